"""Tiny detection models from configurations, with the real processors of their families."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    BertTokenizerFast,
    CLIPTokenizerFast,
    DeformableDetrConfig,
    DeformableDetrForObjectDetection,
    DeformableDetrImageProcessor,
    DetrConfig,
    DetrForObjectDetection,
    DetrImageProcessor,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessor,
    GroundingDinoProcessor,
    Owlv2Config,
    Owlv2ForObjectDetection,
    Owlv2ImageProcessor,
    Owlv2Processor,
    ResNetConfig,
    RTDetrConfig,
    RTDetrForObjectDetection,
    RTDetrImageProcessor,
    RTDetrResNetConfig,
    YolosConfig,
    YolosForObjectDetection,
    YolosImageProcessor,
)

LABELS = {0: "N/A", 1: "red", 2: "green", 3: "blue"}
SIZE = {"height": 64, "width": 64}


def save(folder: Path, model_class, config, processor, **labels) -> Path:
    """A model of this configuration, seeded, and its processor."""
    for key, value in labels.items():
        setattr(config, key, value)
    torch.manual_seed(0)
    model = model_class(config).eval()
    if model_class is Owlv2ForObjectDetection:
        for part in (model.class_head.logit_shift, model.class_head.logit_scale):
            torch.nn.init.normal_(part.weight, std=0.02)
            torch.nn.init.zeros_(part.bias)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def labelled() -> dict[str, dict]:
    return {"id2label": LABELS, "label2id": {name: place for place, name in LABELS.items()}}


def resnet() -> ResNetConfig:
    return ResNetConfig(embedding_size=8, hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], layer_type="basic",
                        out_features=["stage4"])  # fmt: skip


def tiny_detr(folder: Path) -> Path:
    config = DetrConfig(
        use_timm_backbone=False, backbone_config=resnet(), use_pretrained_backbone=False, backbone=None, d_model=16,
        encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=16,
        decoder_ffn_dim=16, num_queries=6,
    )  # fmt: skip
    size = {"shortest_edge": 64, "longest_edge": 96}
    return save(folder, DetrForObjectDetection, config, DetrImageProcessor(size=size), **labelled())


def tiny_deformable(folder: Path) -> Path:
    config = DeformableDetrConfig(
        use_timm_backbone=False, backbone_config=resnet(), use_pretrained_backbone=False, backbone=None, d_model=32,
        encoder_layers=1, decoder_layers=2, encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=16,
        decoder_ffn_dim=16, num_queries=6, num_feature_levels=1,
    )  # fmt: skip
    size = {"shortest_edge": 64, "longest_edge": 96}
    processor = DeformableDetrImageProcessor(size=size)
    return save(folder, DeformableDetrForObjectDetection, config, processor, **labelled())


def tiny_yolos(folder: Path) -> Path:
    config = YolosConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=[64, 64],
        patch_size=8, num_detection_tokens=6,
    )  # fmt: skip
    processor = YolosImageProcessor(size={"shortest_edge": 64, "longest_edge": 96})
    return save(folder, YolosForObjectDetection, config, processor, **labelled())


def tiny_rt_detr(folder: Path) -> Path:
    return save(folder, RTDetrForObjectDetection, rt_detr_config(), RTDetrImageProcessor(size=SIZE), **labelled())


def rt_detr_config(**changes) -> RTDetrConfig:
    backbone = RTDetrResNetConfig(
        embedding_size=16, hidden_sizes=[16, 16, 16, 16], depths=[1, 1, 1, 1], layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )  # fmt: skip
    settings = {
        "backbone_config": backbone, "backbone": None, "use_pretrained_backbone": False, "encoder_hidden_dim": 32,
        "encoder_in_channels": [16, 16, 16], "feat_strides": [8, 16, 32], "encoder_ffn_dim": 32, "d_model": 32,
        "encoder_attention_heads": 2, "decoder_attention_heads": 2, "decoder_in_channels": [32, 32, 32],
        "decoder_ffn_dim": 32, "decoder_layers": 1, "num_queries": 8, "num_denoising": 0, "hidden_expansion": 1.0,
    }  # fmt: skip
    return RTDetrConfig(**settings | changes)


CLOSED = {"detr": tiny_detr, "deformable-detr": tiny_deformable, "yolos": tiny_yolos, "rt-detr": tiny_rt_detr}
WORDS = ("a", "photo", "of", "red", "green", "blue", "traffic", "light", "cat")


def tiny_owlv2(folder: Path) -> Path:
    folder.mkdir(parents=True)
    letters = [*map(chr, range(97, 123))]
    merges = [pair for word in WORDS for pair in _merges(word)]
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), *map("".join, merges)]
    vocabulary = list(dict.fromkeys([*pieces, "<|startoftext|>", "<|endoftext|>"]))
    tokenizer = CLIPTokenizerFast(
        vocab={token: place for place, token in enumerate(vocabulary)},
        merges=list(dict.fromkeys(merges)),
        model_max_length=16,
    )
    text = {"vocab_size": len(vocabulary), "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
            "num_attention_heads": 2, "max_position_embeddings": 16, "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}  # fmt: skip
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
              "image_size": 64, "patch_size": 16}  # fmt: skip
    config = Owlv2Config(text_config=text, vision_config=vision, projection_dim=16)
    processor = Owlv2Processor(Owlv2ImageProcessor(size=SIZE), tokenizer)
    return save(folder, Owlv2ForObjectDetection, config, processor)


def _merges(word: str) -> list[tuple[str, str]]:
    """The merges that build a word from its letters, left to right."""
    parts = [*word[:-1], f"{word[-1]}</w>"]
    return [("".join(parts[:end]), parts[end]) for end in range(1, len(parts))]


def tiny_grounding_dino(folder: Path) -> Path:
    folder.mkdir(parents=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", *WORDS]
    tokenizer = BertTokenizerFast(vocab={token: place for place, token in enumerate(words)}, model_max_length=64)
    text = {"model_type": "bert", "vocab_size": len(words), "hidden_size": 16, "num_hidden_layers": 1,
            "num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 64}  # fmt: skip
    backbone = {"model_type": "swin", "image_size": 64, "patch_size": 4, "embed_dim": 8, "depths": [1, 1, 1],
                "num_heads": [1, 1, 1], "window_size": 4, "out_features": ["stage2", "stage3"]}  # fmt: skip
    config = GroundingDinoConfig(
        backbone_config=backbone, text_config=text, d_model=32, encoder_layers=1, decoder_layers=2,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, num_queries=6,
        num_feature_levels=2, max_text_len=64,
    )  # fmt: skip
    image_processor = GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 96})
    return save(folder, GroundingDinoForObjectDetection, config, GroundingDinoProcessor(image_processor, tokenizer))


ZERO_SHOT = {"owlv2": tiny_owlv2, "grounding-dino": tiny_grounding_dino}
