"""Families that keep the image apart from the text: cross-attention, a Q-Former, an encoder."""

from __future__ import annotations

from tests.families.tiny import WIDTH, Tiny, square, template, text, tokenizer, vision


def mllama() -> Tiny:
    """Llama 3.2 Vision: layers of cross-attention to the images' tiles; the prompt only marks where images are."""
    from transformers import MllamaConfig, MllamaImageProcessor, MllamaProcessor

    words = tokenizer("<|python_tag|>", named={"image_token": "<|image|>"}, bos_token="<bos>")
    config = MllamaConfig(
        vision_config=vision(
            num_global_layers=1,
            attention_heads=4,
            vision_output_dim=64,
            max_num_tiles=4,
            intermediate_layers_indices=[0],
        ),
        text_config=text(words, num_hidden_layers=3, cross_attention_layers=[1], bos_token_id=words.bos_token_id),
        image_token_index=words.convert_tokens_to_ids("<|image|>"),
    )
    processor = MllamaProcessor(
        MllamaImageProcessor(size=square(), max_image_tiles=4), words, chat_template=template("<|image|>")
    )
    note = "images are read by cross-attention: no image tokens to hide, no place for activated LoRA to begin"
    return Tiny(config, processor, images=1, note=note)


_QFORMER = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "encoder_hidden_size": 32,
    "cross_attention_frequency": 1,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}


def blip_2() -> Tiny:
    """BLIP-2: a Q-Former makes a few tokens of an image for an OPT."""
    from transformers import Blip2Config, Blip2Processor, BlipImageProcessor

    words = tokenizer()
    words.chat_template = template("")
    processor = Blip2Processor(BlipImageProcessor(size=square()), words, num_query_tokens=4)
    config = Blip2Config(
        vision_config=vision(),
        qformer_config=_QFORMER,
        text_config=text(words, model_type="opt", ffn_dim=64, word_embed_proj_dim=WIDTH, dropout=0.0),
        num_query_tokens=4,
        image_token_index=words.convert_tokens_to_ids("<image>"),
    )
    note = "OPT flattens rows, which PEFT's activated LoRA doesn't expect"
    return Tiny(config, processor, images=1, note=note)


def instructblip() -> Tiny:
    """InstructBLIP: the Q-Former reads the prompt too."""
    from transformers import BlipImageProcessor, InstructBlipConfig, InstructBlipProcessor

    words = tokenizer()
    words.chat_template = template("")
    reader = tokenizer()
    reader.padding_side = "right"
    processor = InstructBlipProcessor(BlipImageProcessor(size=square()), words, reader, num_query_tokens=4)
    config = InstructBlipConfig(
        vision_config=vision(),
        qformer_config=_QFORMER | {"vocab_size": len(reader)},
        text_config=text(words, model_type="llama"),
        num_query_tokens=4,
        image_token_index=words.convert_tokens_to_ids("<image>"),
    )
    return Tiny(config, processor, images=1)
