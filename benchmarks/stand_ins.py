"""Random models with the proportions of real ones: tokens of an image, and operations of tower and language model.

A ratio of times means something for a real model only where what isn't shared costs what it costs there. `limits.py`
counts both, the stand-ins and the models that they stand for. Weights have the spread that transformers starts them
with: much wider ones (those of the tests' models) saturate attention, whose weights then fall among the denormal
numbers, and a backward pass of attention takes up to thirty times as long on processors that are slow with these.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from models import CHATML_TEMPLATE, LLAVA_TEMPLATE, tokenizer


def llava_shaped(folder: Path) -> Path:
    """A random model with LLaVA-1.5's proportions of tokens, and of operations between tower and language model."""
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaProcessor,
    )

    text = tokenizer(("<pad>", "<image>", "<|user|>", "<|assistant|>", "<|end|>"), "<|end|>", "<pad>")
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=160,
            intermediate_size=640,
            num_hidden_layers=4,
            num_attention_heads=5,
            image_size=336,
            patch_size=14,
        ),
        text_config=LlamaConfig(
            vocab_size=len(text),
            hidden_size=512,
            intermediate_size=1376,
            num_hidden_layers=8,
            num_attention_heads=8,
            max_position_embeddings=2048,
            pad_token_id=text.pad_token_id,
            bos_token_id=None,
            eos_token_id=text.eos_token_id,
        ),
        image_token_id=text.convert_tokens_to_ids("<image>"),
        vision_feature_select_strategy="default",
        vision_feature_layer=-2,
        image_seq_length=576,
    )
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessor(size={"height": 336, "width": 336}, crop_size={"height": 336, "width": 336}),
        tokenizer=text,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token="<image>",
        chat_template=LLAVA_TEMPLATE,
    )
    return _saved(folder, config, processor, text)


def qwen_shaped(folder: Path, side: int = 24) -> Path:
    """A random Qwen2.5-VL for images of `side` x `side` tokens, in pixels 28 times as many, with the 7B model's
    proportion of operations between tower and language model."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLProcessor, Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    specials = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>")
    text = tokenizer((*specials, "<|image_pad|>", "<|video_pad|>"), "<|im_end|>", "<|endoftext|>")
    ids = {name: text.convert_tokens_to_ids(f"<|{name}|>") for name in ("image_pad", "video_pad", "vision_start")}
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(text),
            "hidden_size": 512,
            "intermediate_size": 1376,
            "num_hidden_layers": 8,
            "num_attention_heads": 8,
            "num_key_value_heads": 2,
            "max_position_embeddings": 2048,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [8, 12, 12]},
            "bos_token_id": None,
            "eos_token_id": text.eos_token_id,
            "pad_token_id": text.pad_token_id,
        },
        vision_config={
            "depth": 4,
            "hidden_size": 160,
            "intermediate_size": 432,
            "num_heads": 4,
            "out_hidden_size": 512,
            "fullatt_block_indexes": [3],
        },
        image_token_id=ids["image_pad"],
        video_token_id=ids["video_pad"],
        vision_start_token_id=ids["vision_start"],
        tie_word_embeddings=False,
    )
    pixels = {"shortest_edge": 28 * 28, "longest_edge": (28 * side) ** 2}
    processor = Qwen2_5_VLProcessor(
        Qwen2VLImageProcessor(size=pixels), text, Qwen2VLVideoProcessor(size=pixels), chat_template=CHATML_TEMPLATE
    )
    return _saved(folder, config, processor, text)


def _saved(folder: Path, config: Any, processor: Any, text: Any) -> Path:
    import torch
    from transformers import AutoModelForImageTextToText

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForImageTextToText.from_config(config)
    model.generation_config.eos_token_id = text.eos_token_id
    model.generation_config.pad_token_id = text.pad_token_id
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
