"""Families whose image tokens see each other in both directions."""

from __future__ import annotations

from tests.families import templates
from tests.families.tiny import WIDTH, Tiny, square, text, tokenizer, vision


def paligemma() -> Tiny:
    """PaliGemma: the whole prompt is bidirectional, and positions start at one."""
    from transformers import PaliGemmaConfig, PaliGemmaProcessor, SiglipImageProcessor

    words = tokenizer(templates.PALIGEMMA, "<image>")
    config = PaliGemmaConfig(
        vision_config=vision(model_type="siglip_vision_model", vision_use_head=False, projection_dim=WIDTH),
        text_config=text(words, model_type="gemma", tie_word_embeddings=True),
        image_token_id=words.convert_tokens_to_ids("<image>"),
        projection_dim=WIDTH,
    )
    image_processor = SiglipImageProcessor(size=square())
    image_processor.image_seq_length = 16
    processor = PaliGemmaProcessor(image_processor, words, chat_template=templates.PALIGEMMA.text)
    note = "its processor ends the prompt with a line break that the chat template doesn't know of"
    return Tiny(config, processor, templates.PALIGEMMA, seed=1, note=note)


def gemma3() -> Tiny:
    """Gemma 3: an image's tokens see each other, in sliding and in full layers."""
    from transformers import Gemma3Config, Gemma3ImageProcessor, Gemma3Processor

    named = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    words = tokenizer(templates.GEMMA3, named=named)
    config = Gemma3Config(
        vision_config=vision(model_type="siglip_vision_model", vision_use_head=False),
        text_config=text(
            words,
            sliding_window=8,
            layer_types=["sliding_attention", "full_attention"],
            query_pre_attn_scalar=8,
            tie_word_embeddings=True,
        ),
        image_token_id=words.convert_tokens_to_ids("<image_soft_token>"),
        boi_token_index=words.convert_tokens_to_ids("<start_of_image>"),
        eoi_token_index=words.convert_tokens_to_ids("<end_of_image>"),
        mm_tokens_per_image=4,
    )
    processor = Gemma3Processor(
        Gemma3ImageProcessor(size=square()),
        words,
        image_seq_length=4,
        chat_template=templates.GEMMA3.text,
    )
    return Tiny(config, processor, templates.GEMMA3)
