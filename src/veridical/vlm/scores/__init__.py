"""Score answers after an encoded prefix: log-probabilities, hidden states, layer logits."""
