"""Families whose prompts count image tokens by a grid, and whose positions have three dimensions (M-RoPE)."""

from __future__ import annotations

from typing import Any

from tests.families import templates
from tests.families.templates import Chat
from tests.families.tiny import WIDTH, Tiny, text, tokenizer

_QWEN = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
_PIXELS = {"shortest_edge": 16 * 16, "longest_edge": 48 * 48}
_ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}


def _ids(words: Any) -> dict[str, int]:
    names = ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id")
    return dict(zip(names, words.convert_tokens_to_ids(list(_QWEN)), strict=True))


def _processor(chat: Chat, cls: Any, words: Any, video: Any, **patches: int) -> Any:
    from transformers import Qwen2VLImageProcessor

    return cls(
        Qwen2VLImageProcessor(size=_PIXELS, **patches),
        words,
        video(size=_PIXELS, **patches),
        chat_template=chat.text,
    )


def qwen2_vl() -> Tiny:
    """Qwen2-VL: patches merged two by two, as many as the image has."""
    from transformers import Qwen2VLConfig, Qwen2VLProcessor, Qwen2VLVideoProcessor

    words = tokenizer(templates.QWEN2_VL, *_QWEN)
    config = Qwen2VLConfig(
        text_config=text(words, rope_parameters=_ROPE),
        vision_config={"depth": 2, "embed_dim": 32, "hidden_size": WIDTH, "num_heads": 4, "patch_size": 8},
        **_ids(words),
    )
    return Tiny(
        config,
        _processor(templates.QWEN2_VL, Qwen2VLProcessor, words, Qwen2VLVideoProcessor, patch_size=8),
        templates.QWEN2_VL,
    )


def qwen2_5_vl() -> Tiny:
    """Qwen2.5-VL: a tower with windows."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLProcessor, Qwen2VLVideoProcessor

    words = tokenizer(templates.QWEN2_VL, *_QWEN)
    tower = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "out_hidden_size": WIDTH,
        "num_heads": 4,
        "patch_size": 8,
        "window_size": 32,
        "fullatt_block_indexes": [1],
    }
    config = Qwen2_5_VLConfig(text_config=text(words, rope_parameters=_ROPE), vision_config=tower, **_ids(words))
    return Tiny(
        config,
        _processor(templates.QWEN2_VL, Qwen2_5_VLProcessor, words, Qwen2VLVideoProcessor, patch_size=8),
        templates.QWEN2_VL,
    )


def _qwen3_tower(**more: Any) -> dict[str, Any]:
    settings = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "out_hidden_size": WIDTH,
        "num_heads": 4,
        "patch_size": 8,
        "num_position_embeddings": 16,
    }
    return settings | more


def qwen3_vl() -> Tiny:
    """Qwen3-VL: image features also enter inner layers."""
    from transformers import Qwen3VLConfig, Qwen3VLProcessor, Qwen3VLVideoProcessor

    words = tokenizer(templates.QWEN3_VL, *_QWEN)
    config = Qwen3VLConfig(
        text_config=text(words, rope_parameters=_ROPE),
        vision_config=_qwen3_tower(deepstack_visual_indexes=[0, 1]),
        **_ids(words),
    )
    return Tiny(
        config,
        _processor(templates.QWEN3_VL, Qwen3VLProcessor, words, Qwen3VLVideoProcessor, patch_size=8),
        templates.QWEN3_VL,
    )


def qwen3_5() -> Tiny:
    """Qwen3.5: layers of gated linear attention between those of full attention."""
    from transformers import Qwen3_5Config, Qwen3VLProcessor, Qwen3VLVideoProcessor

    words = tokenizer(templates.QWEN3_5, *_QWEN)
    language = text(
        words,
        rope_parameters=_ROPE | {"partial_rotary_factor": 1.0},
        layer_types=["linear_attention", "full_attention"],
        linear_conv_kernel_dim=4,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        linear_num_key_heads=2,
        linear_num_value_heads=4,
    )
    config = Qwen3_5Config(text_config=language, vision_config=_qwen3_tower(), **_ids(words))
    processor = _processor(templates.QWEN3_5, Qwen3VLProcessor, words, Qwen3VLVideoProcessor, patch_size=8)
    return Tiny(config, processor, templates.QWEN3_5, spread=0.08)


def glm4v() -> Tiny:
    """GLM-4V: a two-dimensional grid and its own order of rotary dimensions."""
    from transformers import Glm4vConfig, Glm4vImageProcessor, Glm4vProcessor, Glm4vVideoProcessor

    names = ("<|begin_of_image|>", "<|end_of_image|>", "<|image|>", "<|video|>", "<|begin_of_video|>")
    words = tokenizer(templates.GLM4V, *names, "<|end_of_video|>")
    words.image_token, words.video_token = "<|image|>", "<|video|>"
    ids = words.convert_tokens_to_ids
    tower = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "out_hidden_size": WIDTH,
        "num_heads": 4,
        "patch_size": 8,
        "image_size": 32,
    }
    config = Glm4vConfig(
        text_config=text(words, rope_parameters=_ROPE),
        vision_config=tower,
        image_start_token_id=ids("<|begin_of_image|>"),
        image_end_token_id=ids("<|end_of_image|>"),
        video_start_token_id=ids("<|begin_of_video|>"),
        video_end_token_id=ids("<|end_of_video|>"),
        image_token_id=ids("<|image|>"),
        video_token_id=ids("<|video|>"),
    )
    size = {"shortest_edge": 16 * 16, "longest_edge": 48 * 48}
    processor = Glm4vProcessor(
        Glm4vImageProcessor(size=size, patch_size=8),
        words,
        Glm4vVideoProcessor(size=size, patch_size=8),
        chat_template=templates.GLM4V.text,
    )
    return Tiny(config, processor, templates.GLM4V)
