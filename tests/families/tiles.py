"""Families that cut large images into tiles, or merge patches into few tokens."""

from __future__ import annotations

from tests.families import templates
from tests.families.tiny import WIDTH, Tiny, square, text, tokenizer, vision


def internvl() -> Tiny:
    """InternVL: its own tower, patches merged two by two, tiles for wide images."""
    from transformers import GotOcr2ImageProcessor, InternVLConfig, InternVLProcessor, InternVLVideoProcessor

    named = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    words = tokenizer(templates.INTERNVL, named=named)
    config = InternVLConfig(
        vision_config=vision(image_size=[32, 32], patch_size=[8, 8]),
        text_config=text(words, model_type="qwen2"),
        image_token_id=words.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
    )
    processor = InternVLProcessor(
        GotOcr2ImageProcessor(size=square(), crop_to_patches=True, max_patches=2),
        words,
        InternVLVideoProcessor(size=square()),
        image_seq_length=4,
        chat_template=templates.INTERNVL.text,
    )
    return Tiny(config, processor, templates.INTERNVL)


def idefics2() -> Tiny:
    """Idefics2: a perceiver makes the same few tokens of any image."""
    from transformers import Idefics2Config, Idefics2ImageProcessor, Idefics2Processor

    words = tokenizer(templates.IDEFICS2, "<fake_token_around_image>", "<image>")
    config = Idefics2Config(
        vision_config=vision(),
        perceiver_config={
            "hidden_size": WIDTH,
            "resampler_n_latents": 4,
            "resampler_depth": 1,
            "resampler_n_heads": 4,
            "resampler_head_dim": 8,
            "num_key_value_heads": 2,
        },
        text_config=text(words, model_type="mistral"),
        image_token_id=words.convert_tokens_to_ids("<image>"),
    )
    sizes = {"shortest_edge": 24, "longest_edge": 32}
    image_processor = Idefics2ImageProcessor(size=sizes, do_image_splitting=False)
    return Tiny(
        config,
        Idefics2Processor(image_processor, words, image_seq_len=4, chat_template=templates.IDEFICS2.text),
        templates.IDEFICS2,
    )


_ROWS = tuple(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7))


def idefics3() -> Tiny:
    """Idefics3: rows and columns of tiles, each named by a token."""
    from transformers import Idefics3Config, Idefics3ImageProcessor, Idefics3Processor

    words = tokenizer(templates.IDEFICS3, "<fake_token_around_image>", "<image>", "<global-img>", *_ROWS)
    config = Idefics3Config(
        vision_config=vision(),
        text_config=text(words, model_type="llama"),
        image_token_id=words.convert_tokens_to_ids("<image>"),
        scale_factor=2,
    )
    sizes = {"size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 32}}
    processor = Idefics3Processor(
        Idefics3ImageProcessor(**sizes), words, image_seq_len=4, chat_template=templates.IDEFICS3.text
    )
    return Tiny(config, processor, templates.IDEFICS3)


def smolvlm() -> Tiny:
    """SmolVLM: Idefics3 with video."""
    from transformers import SmolVLMConfig, SmolVLMImageProcessor, SmolVLMProcessor, SmolVLMVideoProcessor

    words = tokenizer(templates.SMOLVLM, "<fake_token_around_image>", "<image>", "<global-img>", *_ROWS)
    config = SmolVLMConfig(
        vision_config=vision(),
        text_config=text(words, model_type="llama"),
        image_token_id=words.convert_tokens_to_ids("<image>"),
        scale_factor=2,
    )
    sizes = {"size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 32}}
    processor = SmolVLMProcessor(
        SmolVLMImageProcessor(**sizes),
        words,
        SmolVLMVideoProcessor(**sizes),
        image_seq_len=4,
        chat_template=templates.SMOLVLM.text,
    )
    return Tiny(config, processor, templates.SMOLVLM)


def aya_vision() -> Tiny:
    """Aya Vision: SigLIP tiles under a Cohere2 language model with sliding and full layers."""
    from transformers import AyaVisionConfig, AyaVisionProcessor, GotOcr2ImageProcessor

    names = ("<image>", "<|START_OF_IMG|>", "<|END_OF_IMG|>", "<|IMG_PATCH|>", "<|IMG_LINE_BREAK|>")
    words = tokenizer(templates.AYA_VISION, *names, "TILE_GLOBAL", "TILE_1", "TILE_2")
    config = AyaVisionConfig(
        vision_config=vision(model_type="siglip_vision_model", vision_use_head=False),
        text_config=text(
            words,
            model_type="cohere2",
            sliding_window=8,
            layer_types=["sliding_attention", "full_attention"],
            tie_word_embeddings=True,
        ),
        image_token_id=words.convert_tokens_to_ids("<|IMG_PATCH|>"),
        downsample_factor=2,
        alignment_intermediate_size=64,
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
    )
    processor = AyaVisionProcessor(
        GotOcr2ImageProcessor(size=square(), crop_to_patches=True, max_patches=2),
        words,
        patch_size=8,
        img_size=32,
        downsample_factor=2,
        chat_template=templates.AYA_VISION.text,
    )
    return Tiny(config, processor, templates.AYA_VISION)


def cohere2_vision() -> Tiny:
    """Command A Vision: as many tokens to a tile as the patch's side squared."""
    from transformers import Cohere2VisionConfig, Cohere2VisionImageProcessor, Cohere2VisionProcessor

    named = {
        "image_token": "<image>",
        "boi_token": "<boi>",
        "eoi_token": "<eoi>",
        "img_line_break_token": "<break>",
    }
    words = tokenizer(templates.COHERE2_VISION, named=named)
    config = Cohere2VisionConfig(
        vision_config=vision(model_type="siglip_vision_model", vision_use_head=False, patch_size=4),
        text_config=text(
            words,
            model_type="cohere2",
            sliding_window=8,
            layer_types=["sliding_attention", "full_attention"],
            tie_word_embeddings=True,
        ),
        image_token_id=words.convert_tokens_to_ids("<image>"),
        downsample_factor=2,
        alignment_intermediate_size=64,
    )
    processor = Cohere2VisionProcessor(
        Cohere2VisionImageProcessor(size=square(), patch_size=4, max_patches=2),
        words,
        chat_template=templates.COHERE2_VISION.text,
    )
    return Tiny(config, processor, templates.COHERE2_VISION)


def llama4() -> Tiny:
    """Llama 4: mixture of experts, attention in chunks, tiles."""
    from transformers import Llama4Config, Llama4ImageProcessor, Llama4Processor

    names = ("<|image|>", "<|image_start|>", "<|image_end|>", "<|patch|>")
    words = tokenizer(templates.LLAMA4, *names, "<|tile_x_separator|>", "<|tile_y_separator|>")
    config = Llama4Config(
        vision_config=vision(
            intermediate_size=128,
            projector_input_dim=WIDTH,
            projector_output_dim=WIDTH,
            vision_output_dim=WIDTH,
            pixel_shuffle_ratio=0.5,
        ),
        text_config=text(
            words,
            intermediate_size_mlp=64,
            num_local_experts=2,
            attention_chunk_size=16,
            layer_types=["chunked_attention", "full_attention"],
            no_rope_layers=[1, 0],
        ),
        image_token_index=words.convert_tokens_to_ids("<|patch|>"),
        boi_token_index=words.convert_tokens_to_ids("<|image_start|>"),
        eoi_token_index=words.convert_tokens_to_ids("<|image_end|>"),
    )
    processor = Llama4Processor(
        Llama4ImageProcessor(size=square(), max_patches=2),
        words,
        patch_size=8,
        pixel_shuffle_ratio=0.5,
        chat_template=templates.LLAMA4.text,
    )
    note = "transformers 5.24.0 raises an AttributeError (image_outputs) in the model's own forward"
    return Tiny(config, processor, templates.LLAMA4, note=note)
