"""Generate text after an encoded prefix: sampling, greedy decoding, contrastive decoding."""
