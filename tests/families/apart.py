"""Families that keep the image apart from the text: cross-attention, a Q-Former, an encoder."""

from __future__ import annotations

from tests.families import templates
from tests.families.tiny import WIDTH, Tiny, square, text, tokenizer, vision


def mllama() -> Tiny:
    """Llama 3.2 Vision: layers of cross-attention to the images' tiles; the prompt only marks where images are."""
    from transformers import MllamaConfig, MllamaImageProcessor, MllamaProcessor

    words = tokenizer(templates.MLLAMA, "<|python_tag|>", named={"image_token": "<|image|>"})
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
        MllamaImageProcessor(size=square(), max_image_tiles=4), words, chat_template=templates.MLLAMA.text
    )
    note = "images are read by cross-attention: no image tokens to hide, no place for activated LoRA to begin"
    return Tiny(config, processor, templates.MLLAMA, images=1, note=note)


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

    words = tokenizer(templates.BLIP_2)
    words.chat_template = templates.BLIP_2.text
    processor = Blip2Processor(BlipImageProcessor(size=square()), words, num_query_tokens=4)
    config = Blip2Config(
        vision_config=vision(),
        qformer_config=_QFORMER,
        text_config=text(words, model_type="opt", ffn_dim=64, word_embed_proj_dim=WIDTH, dropout=0.0),
        num_query_tokens=4,
        image_token_index=words.convert_tokens_to_ids("<image>"),
    )
    note = "OPT flattens rows, which PEFT's activated LoRA doesn't expect"
    return Tiny(config, processor, templates.BLIP_2, images=1, note=note)


def instructblip() -> Tiny:
    """InstructBLIP: the Q-Former reads the prompt too."""
    from transformers import BlipImageProcessor, InstructBlipConfig, InstructBlipProcessor

    words = tokenizer(templates.NO_IMAGE_TURNS)
    words.chat_template = templates.NO_IMAGE_TURNS.text
    reader = tokenizer(templates.NO_IMAGE_TURNS)
    reader.padding_side = "right"
    processor = InstructBlipProcessor(BlipImageProcessor(size=square()), words, reader, num_query_tokens=4)
    config = InstructBlipConfig(
        vision_config=vision(),
        qformer_config=_QFORMER | {"vocab_size": len(reader)},
        text_config=text(words, model_type="llama"),
        num_query_tokens=4,
        image_token_index=words.convert_tokens_to_ids("<image>"),
    )
    return Tiny(config, processor, templates.NO_IMAGE_TURNS, images=1)


def git() -> Tiny:
    """GIT: the tower's patches stand before the text, inside the model."""
    from transformers import CLIPImageProcessor, GitConfig, GitProcessor

    words = tokenizer(templates.NO_IMAGE_TURNS)
    words.chat_template = templates.NO_IMAGE_TURNS.text
    settings = text(words)
    for name in ("num_key_value_heads", "head_dim"):
        settings.pop(name)
    config = GitConfig(vision_config=vision(), hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **settings)
    image_processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=square())
    note = "the image stands outside the prompt: no image tokens to hide"
    return Tiny(config, GitProcessor(image_processor, words), templates.NO_IMAGE_TURNS, images=1, note=note)


def florence2() -> Tiny:
    """Florence-2: an encoder reads image and prompt, a decoder writes."""
    from transformers import CLIPImageProcessor, Florence2Config, Florence2Processor

    words = tokenizer(templates.NO_IMAGE_TURNS, named={"image_token": "<image>"}, bos_token="<bos>")
    words.chat_template = templates.NO_IMAGE_TURNS.text
    config = Florence2Config(
        vision_config={
            "depths": [1, 1],
            "embed_dim": [8, 16],
            "num_heads": [2, 2],
            "num_groups": [2, 2],
            "patch_size": [7, 3],
            "patch_stride": [4, 2],
            "patch_padding": [3, 1],
            "patch_prenorm": [False, True],
            "window_size": 2,
            "projection_dim": WIDTH,
        },
        text_config={
            "model_type": "bart",
            "vocab_size": len(words),
            "d_model": WIDTH,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 64,
            "decoder_ffn_dim": 64,
            "pad_token_id": words.pad_token_id,
            "bos_token_id": words.bos_token_id,
            "eos_token_id": words.eos_token_id,
            "decoder_start_token_id": words.eos_token_id,
        },
        image_token_id=words.convert_tokens_to_ids("<image>"),
    )
    image_processor = CLIPImageProcessor(size=square(), crop_size=square())
    image_processor.image_seq_length = 17
    return Tiny(config, Florence2Processor(image_processor, words), templates.NO_IMAGE_TURNS, images=1)


def kosmos_2() -> Tiny:
    """Kosmos-2: a pooled image inside the text, of which the model keeps the place."""
    from transformers import CLIPImageProcessor, Kosmos2Config, Kosmos2Processor

    words = tokenizer(templates.KOSMOS_2, "<image>", "</image>")
    words.chat_template = templates.KOSMOS_2.text
    processor = Kosmos2Processor(
        CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=square()), words, num_patch_index_tokens=4
    )
    config = Kosmos2Config(
        vision_config=vision(model_type="kosmos_2_vision_model"),
        text_config={
            "vocab_size": len(words),
            "embed_dim": WIDTH,
            "layers": 2,
            "ffn_dim": 64,
            "attention_heads": 4,
            "dropout": 0.0,
            "attention_dropout": 0.0,
            "max_position_embeddings": 1024,
            "pad_token_id": words.pad_token_id,
            "bos_token_id": words.bos_token_id,
            "eos_token_id": words.eos_token_id,
        },
        latent_query_num=64,
    )
    note = "image tokens have no id of their own: none to hide"
    return Tiny(config, processor, templates.KOSMOS_2, images=1, seed=1, note=note)
