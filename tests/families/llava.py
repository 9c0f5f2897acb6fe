"""LLaVA and its relatives: a CLIP-like tower, a projector, any language model."""

from __future__ import annotations

from typing import Any

from tests.families import templates
from tests.families.templates import Chat
from tests.families.tiny import Tiny, square, text, tokenizer, vision


def llava() -> Tiny:
    """LLaVA-1.5: CLIP's penultimate layer, its class token left out."""
    from transformers import LlavaConfig

    words = tokenizer(templates.LLAVA, "<image>")
    config = LlavaConfig(
        vision_config=vision(model_type="clip_vision_model"),
        text_config=text(words, model_type="llama"),
        image_token_id=words.convert_tokens_to_ids("<image>"),
        image_seq_length=16,
    )
    return Tiny(config, _llava_processor(templates.LLAVA, words), templates.LLAVA)


def pixtral() -> Tiny:
    """LLaVA around Pixtral's tower: as many tokens as the image has patches, with row and end tokens."""
    from transformers import LlavaConfig, PixtralImageProcessor, PixtralProcessor

    words = tokenizer(templates.PIXTRAL, "[IMG]", "[IMG_BREAK]", "[IMG_END]")
    config = LlavaConfig(
        vision_config=vision(model_type="pixtral", head_dim=8),
        text_config=text(words, model_type="mistral"),
        image_token_id=words.convert_tokens_to_ids("[IMG]"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    processor = PixtralProcessor(
        PixtralImageProcessor(size={"longest_edge": 32}, patch_size=8),
        words,
        patch_size=8,
        chat_template=templates.PIXTRAL.text,
    )
    return Tiny(config, processor, templates.PIXTRAL)


def vipllava() -> Tiny:
    """ViP-LLaVA: several of the tower's layers side by side."""
    from transformers import VipLlavaConfig

    words = tokenizer(templates.VIPLLAVA, "<image>")
    config = VipLlavaConfig(
        vision_config=vision(model_type="clip_vision_model"),
        text_config=text(words, model_type="llama"),
        image_token_id=words.convert_tokens_to_ids("<image>"),
        vision_feature_layers=[-2, -1],
        image_seq_length=16,
    )
    return Tiny(config, _llava_processor(templates.VIPLLAVA, words), templates.VIPLLAVA)


def llava_next() -> Tiny:
    """LLaVA-NeXT: the whole image and its tiles, with a token at each line's end."""
    from transformers import LlavaNextConfig, LlavaNextImageProcessor, LlavaNextProcessor

    words = tokenizer(templates.LLAVA_NEXT, "<image>")
    grids = [[32, 64], [64, 32], [64, 64]]
    config = LlavaNextConfig(
        vision_config=vision(model_type="clip_vision_model"),
        text_config=text(words, model_type="llama"),
        image_token_id=words.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=grids,
    )
    processor = LlavaNextProcessor(
        LlavaNextImageProcessor(size={"shortest_edge": 32}, crop_size=square(), image_grid_pinpoints=grids),
        words,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=templates.LLAVA_NEXT.text,
    )
    return Tiny(config, processor, templates.LLAVA_NEXT, seed=1)


def llava_onevision() -> Tiny:
    """LLaVA-OneVision: SigLIP, tiles for a single image, one view each for several."""
    from transformers import (
        LlavaOnevisionConfig,
        LlavaOnevisionImageProcessor,
        LlavaOnevisionProcessor,
        LlavaOnevisionVideoProcessor,
    )

    words = tokenizer(templates.LLAVA_ONEVISION, "<image>", "<video>")
    grids = [[32, 64], [64, 32], [64, 64]]
    config = LlavaOnevisionConfig(
        vision_config=vision(model_type="siglip_vision_model", vision_use_head=False),
        text_config=text(words, model_type="qwen2"),
        image_token_id=words.convert_tokens_to_ids("<image>"),
        video_token_id=words.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=grids,
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
    )
    processor = LlavaOnevisionProcessor(
        LlavaOnevisionImageProcessor(size=square(), image_grid_pinpoints=grids),
        words,
        LlavaOnevisionVideoProcessor(size=square()),
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        chat_template=templates.LLAVA_ONEVISION.text,
    )
    return Tiny(config, processor, templates.LLAVA_ONEVISION)


def mistral3() -> Tiny:
    """Mistral 3: Pixtral's tower with patches merged two by two."""
    from transformers import Mistral3Config, PixtralImageProcessor, PixtralProcessor

    words = tokenizer(templates.MISTRAL3, "[IMG]", "[IMG_BREAK]", "[IMG_END]")
    config = Mistral3Config(
        vision_config=vision(model_type="pixtral", head_dim=8),
        text_config=text(words, model_type="mistral"),
        image_token_id=words.convert_tokens_to_ids("[IMG]"),
        spatial_merge_size=2,
        vision_feature_layer=-1,
    )
    processor = PixtralProcessor(
        PixtralImageProcessor(size={"longest_edge": 64}, patch_size=16),
        words,
        patch_size=8,
        spatial_merge_size=2,
        chat_template=templates.MISTRAL3.text,
    )
    return Tiny(config, processor, templates.MISTRAL3)


def _llava_processor(chat: Chat, words: Any) -> Any:
    from transformers import CLIPImageProcessor, LlavaProcessor

    return LlavaProcessor(
        CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=square()),
        words,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=chat.text,
    )
