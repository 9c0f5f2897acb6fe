"""Families that are like no other in one respect or another."""

from __future__ import annotations

from tests.families import templates
from tests.families.tiny import WIDTH, Tiny, square, text, tokenizer, vision


def lfm2_vl() -> Tiny:
    """LFM2-VL: short convolutions between the layers of attention."""
    from transformers import Lfm2VlConfig, Lfm2VlImageProcessor, Lfm2VlProcessor

    named = {
        "image_token": "<image>",
        "image_start_token": "<|image_start|>",
        "image_end_token": "<|image_end|>",
        "image_thumbnail_token": "<|img_thumbnail|>",
    }
    words = tokenizer(templates.LFM2_VL, named=named)
    config = Lfm2VlConfig(
        vision_config=vision(model_type="siglip2_vision_model", num_patches=16, vision_use_head=False),
        text_config=text(
            words,
            model_type="lfm2",
            layer_types=["conv", "full_attention"],
            conv_L_cache=3,
            block_auto_adjust_ff_dim=False,
            tie_word_embeddings=True,
        ),
        image_token_id=words.convert_tokens_to_ids("<image>"),
        projector_hidden_size=WIDTH,
        downsample_factor=2,
    )
    image_processor = Lfm2VlImageProcessor(
        encoder_patch_size=8,
        tile_size=32,
        min_image_tokens=2,
        max_image_tokens=4,
        max_tiles=2,
        do_image_splitting=False,
    )
    return Tiny(
        config, Lfm2VlProcessor(image_processor, words, chat_template=templates.LFM2_VL.text), templates.LFM2_VL
    )


def gemma4() -> Tiny:
    """Gemma 4: embeddings of their own for each layer, layers that share keys, images seen in both directions."""
    from transformers import (
        Gemma4AudioFeatureExtractor,
        Gemma4Config,
        Gemma4ImageProcessor,
        Gemma4Processor,
        Gemma4VideoProcessor,
    )

    named = {
        "image_token": "<|image|>",
        "boi_token": "<|image>",
        "eoi_token": "<image|>",
        "audio_token": "<|audio|>",
        "boa_token": "<|audio>",
        "eoa_token": "<audio|>",
        "video_token": "<|video|>",
    }
    words = tokenizer(templates.GEMMA4, named=named)
    language = text(
        words,
        num_hidden_layers=4,
        num_kv_shared_layers=2,
        layer_types=["sliding_attention", "full_attention"] * 2,
        sliding_window=8,
        global_head_dim=8,
        hidden_size_per_layer_input=8,
        vocab_size_per_layer_input=len(words),
        use_bidirectional_attention="vision",
        tie_word_embeddings=True,
    )
    ids = {name.replace("_token", "_token_id"): words.convert_tokens_to_ids(named[name]) for name in named}
    config = Gemma4Config(
        text_config=language,
        vision_config=vision(num_key_value_heads=4, head_dim=8, position_embedding_size=64),
        audio_config=None,
        **ids,
    )
    processor = Gemma4Processor(
        Gemma4AudioFeatureExtractor(),
        Gemma4ImageProcessor(patch_size=8, max_soft_tokens=70),
        words,
        Gemma4VideoProcessor(patch_size=8),
        image_seq_length=70,
        chat_template=templates.GEMMA4.text,
    )
    return Tiny(config, processor, templates.GEMMA4)


def aria() -> Tiny:
    """Aria: a mixture of experts, and images padded to a square behind a mask."""
    from transformers import AriaConfig, AriaImageProcessor, AriaProcessor

    words = tokenizer(templates.ARIA, named={"image_token": "<image>"})
    config = AriaConfig(
        vision_config=vision(model_type="idefics3_vision", image_size=980, patch_size=98),
        text_config=text(words, moe_num_experts=4, moe_topk=2, moe_num_shared_experts=1),
        projector_patch_to_query_dict={100: 4},
        image_token_index=words.convert_tokens_to_ids("<image>"),
    )
    processor = AriaProcessor(AriaImageProcessor(), words, templates.ARIA.text, size_conversion={980: 4})
    return Tiny(config, processor, templates.ARIA)


def ovis2() -> Tiny:
    """Ovis2: an image is made of words of a visual vocabulary, each with its probability."""
    from transformers import Ovis2Config, Ovis2ImageProcessor, Ovis2Processor

    marks = ("<IMG_START>", "<IMG_GRID>", "<IMG_COL>", "<IMG_ROW>", "<IMG_END>")
    words = tokenizer(templates.OVIS2, "<image>", "<IMG_ATOM>", *marks)
    config = Ovis2Config(
        vision_config=vision(vocab_size=64, hidden_stride=2, num_visual_indicator_tokens=5),
        text_config=text(words, model_type="qwen2"),
        image_token_id=words.convert_tokens_to_ids("<IMG_ATOM>"),
        visual_indicator_token_ids=words.convert_tokens_to_ids(list(marks)),
        vocab_size=len(words),
        hidden_size=WIDTH,
    )
    processor = Ovis2Processor(
        Ovis2ImageProcessor(size=square(), crop_to_patches=True, max_patches=2),
        words,
        image_seq_length=4,
        chat_template=templates.OVIS2.text,
    )
    return Tiny(config, processor, templates.OVIS2)


def deepseek_vl() -> Tiny:
    """DeepSeek-VL: SigLIP and a Llama."""
    from transformers import DeepseekVLConfig, DeepseekVLImageProcessor, DeepseekVLProcessor

    words = tokenizer(templates.DEEPSEEK_VL, named={"image_token": "<image_placeholder>"})
    config = DeepseekVLConfig(
        vision_config=vision(model_type="siglip_vision_model", vision_use_head=False),
        text_config=text(words, model_type="llama"),
        image_token_id=words.convert_tokens_to_ids("<image_placeholder>"),
    )
    processor = DeepseekVLProcessor(
        DeepseekVLImageProcessor(size=square()),
        words,
        chat_template=templates.DEEPSEEK_VL.text,
        num_image_tokens=16,
    )
    return Tiny(config, processor, templates.DEEPSEEK_VL)


def janus() -> Tiny:
    """Janus: a tower to see with beside a codebook to draw with, which answers never touch."""
    from transformers import JanusConfig, JanusImageProcessor, JanusProcessor

    named = {"image_token": "<image_placeholder>", "boi_token": "<begin_of_image>", "eoi_token": "<end_of_image>"}
    words = tokenizer(templates.JANUS, named=named)
    config = JanusConfig(
        vision_config=vision(projection_dim=WIDTH, num_image_tokens=16),
        text_config=text(words, model_type="llama"),
        vq_config={
            "num_embeddings": 16,
            "latent_channels": 32,
            "base_channels": 32,
            "channel_multiplier": [1, 1],
            "num_res_blocks": 1,
            "projection_dim": WIDTH,
            "image_token_embed_dim": WIDTH,
        },
        image_token_id=words.convert_tokens_to_ids("<image_placeholder>"),
    )
    processor = JanusProcessor(
        JanusImageProcessor(size=square()),
        words,
        chat_template=templates.JANUS.text,
        num_image_tokens=16,
    )
    return Tiny(config, processor, templates.JANUS)


def got_ocr2() -> Tiny:
    """GOT-OCR 2: a tower of the SAM kind that leaves few tokens."""
    from transformers import GotOcr2Config, GotOcr2ImageProcessor, GotOcr2Processor

    words = tokenizer(templates.GOT_OCR2, "<img>", "</img>", "<imgpad>")
    config = GotOcr2Config(
        vision_config=vision(
            image_size=64, patch_size=4, output_channels=8, mlp_dim=64, window_size=4, global_attn_indexes=[1]
        ),
        text_config=text(words, model_type="qwen2"),
        image_token_index=words.convert_tokens_to_ids("<imgpad>"),
        image_seq_length=16,
    )
    processor = GotOcr2Processor(GotOcr2ImageProcessor(size=square(64)), words, chat_template=templates.GOT_OCR2.text)
    processor.num_image_tokens, processor.multi_page = 16, True
    note = "its processor takes a conversation only with multi_page set, which isn't saved with it"
    return Tiny(config, processor, templates.GOT_OCR2, images=1, note=note)


def perception_lm() -> Tiny:
    """Perception LM: a tower of timm's under pooled tiles."""
    from transformers import (
        PerceptionLMConfig,
        PerceptionLMImageProcessor,
        PerceptionLMProcessor,
        PerceptionLMVideoProcessor,
    )

    words = tokenizer(templates.PERCEPTION_LM, named={"image_token": "<|image|>", "video_token": "<|video|>"})
    tower = {"model_type": "timm_wrapper", "architecture": "vit_pe_core_large_patch14_336", "do_pooling": False}
    tower["model_args"] = {
        "embed_dim": WIDTH,
        "img_size": [28, 28],
        "depth": 2,
        "num_heads": 4,
        "global_pool": "",
        "use_post_transformer_norm": False,
        "init_values": 0.1,
        "ref_feat_shape": [2, 2],
    }
    config = PerceptionLMConfig(
        vision_config=tower,
        text_config=text(words, model_type="llama"),
        projector_pooling_ratio=2,
        image_token_id=words.convert_tokens_to_ids("<|image|>"),
        video_token_id=words.convert_tokens_to_ids("<|video|>"),
    )
    processor = PerceptionLMProcessor(
        PerceptionLMVideoProcessor(size=square(28)),
        PerceptionLMImageProcessor(tile_size=28, max_num_tiles=2),
        words,
        patch_size=14,
        pooling_ratio=2,
        chat_template=templates.PERCEPTION_LM.text,
    )
    return Tiny(config, processor, templates.PERCEPTION_LM)


def molmo2() -> Tiny:
    """Molmo 2: every image-like token sees all others, marks of rows and ends included."""
    from transformers import Molmo2Config, Molmo2ImageProcessor, Molmo2Processor, Molmo2VideoProcessor

    marks = ("<im_start>", "<im_end>", "<im_patch>", "<im_col>", "<low_res_im_start>", "<im_low>")
    words = tokenizer(templates.MOLMO2, "<|image|>", "<|video|>", *marks, "<frame_start>", "<frame_end>")
    ids = words.convert_tokens_to_ids
    heads = {"num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 8}
    config = Molmo2Config(
        vision_config=vision(image_size=[28, 28], patch_size=7, num_position_embeddings=16, **heads),
        adapter_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "text_hidden_size": WIDTH,
            "vision_feature_layer": [-1, -2],
            **heads,
        },
        text_config=text(words, additional_vocab_size=8),
        image_start_token_id=ids("<im_start>"),
        low_res_image_start_token_id=ids("<low_res_im_start>"),
        image_end_token_id=ids("<im_end>"),
        image_patch_id=ids("<im_patch>"),
        frame_start_token_id=ids("<frame_start>"),
        frame_end_token_id=ids("<frame_end>"),
    )
    pixels = {"size": square(28), "patch_size": 7, "pooling_size": [2, 2]}
    processor = Molmo2Processor(
        Molmo2ImageProcessor(max_crops=2, overlap_margins=[1, 1], **pixels),
        Molmo2VideoProcessor(**pixels),
        words,
        chat_template=templates.MOLMO2.text,
    )
    return Tiny(config, processor, templates.MOLMO2)


def fast_vlm() -> Tiny:
    """FastVLM: a convolutional tower of timm's."""
    from transformers import CLIPImageProcessor, FastVlmConfig, LlavaProcessor

    words = tokenizer(templates.FAST_VLM, "<image>")
    tower = {
        "model_type": "timm_wrapper",
        "architecture": "fastvit_mci3",
        "do_pooling": True,
        "global_pool": "avg",
        "hidden_size": 64,
        "model_args": {
            "inference_mode": True,
            "layers": [1, 1, 1, 1, 1],
            "embed_dims": [8, 8, 16, 32, 32],
        },
    }
    config = FastVlmConfig(
        vision_config=tower,
        text_config=text(words, model_type="qwen2"),
        image_token_index=words.convert_tokens_to_ids("<image>"),
    )
    processor = LlavaProcessor(
        CLIPImageProcessor(size={"shortest_edge": 128}, crop_size=square(128)),
        words,
        patch_size=64,
        vision_feature_select_strategy="full",
        chat_template=templates.FAST_VLM.text,
    )
    return Tiny(config, processor, templates.FAST_VLM)
