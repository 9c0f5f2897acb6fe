"""Tiny random vision-language models with real processors and chat templates, built without a download.

Each builder writes a folder that `AutoProcessor` and `AutoModelForImageTextToText` load as they load a
published model. The weights are random but wide, so that the image, the prompt and every answer token show in
the scores.
"""

from __future__ import annotations

from pathlib import Path

SENTENCES = (
    "Describe this image.",
    "There is a fork and a knife on the table. I can also see two cups.",
    "A dog and a ball are in the park, next to a tree.",
    "Is there a fork in the image? Is there a spoon in the image?",
    "Yes. No. There are three cups and a plate in this picture.",
    "What is on the left? The cat sits behind the red car and a bicycle.",
)

LLAVA_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|' + message['role'] + '|>' -}}"
    "{%- if message['content'] is string -%}{{- message['content'] -}}{%- else -%}"
    "{%- for part in message['content'] -%}"
    "{%- if part['type'] == 'image' -%}{{- '<image>' -}}{%- else -%}{{- part['text'] -}}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}"
    "{{- '<|end|>' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)

CHATML_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if loop.first and message['role'] != 'system' -%}"
    "{{- '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' -}}{%- endif -%}"
    "{{- '<|im_start|>' + message['role'] + '\n' -}}"
    "{%- if message['content'] is string -%}{{- message['content'] -}}{%- else -%}"
    "{%- for part in message['content'] -%}"
    "{%- if part['type'] == 'image' -%}{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}"
    "{%- else -%}{{- part['text'] -}}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}"
    "{{- '<|im_end|>\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"
)


def tokenizer(specials: tuple[str, ...], eos: str, pad: str, vocabulary: int = 512):
    """A byte-level BPE trained in place on a few sentences; `specials` become single tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(specials),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(SENTENCES, trainer)
    extra = [special for special in specials if special not in (eos, pad)]
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token=eos, pad_token=pad, extra_special_tokens=extra, padding_side="left"
    )


def save(folder: Path, config, processor, seed: int, eos_id: int, pad_id: int) -> Path:
    """Write a random model of `config` and its processor to `folder`, with weights that depend on `seed`
    only.
    """
    import torch
    from transformers import AutoModelForImageTextToText

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForImageTextToText.from_config(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim < 2:
                continue
            generator = torch.Generator().manual_seed(seed + sum(map(ord, name)))
            parameter.normal_(0.0, 0.25, generator=generator)
    model.generation_config.eos_token_id = eos_id
    model.generation_config.pad_token_id = pad_id
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def tiny_llava(folder: Path, seed: int = 0) -> Path:
    """A LLaVA of 146 thousand parameters: a SigLIP tower (96x96, patch 16: 36 image tokens) and a two-layer
    Llama.
    """
    from transformers import (
        LlamaConfig,
        LlavaConfig,
        LlavaProcessor,
        SiglipImageProcessor,
        SiglipVisionConfig,
    )

    text = tokenizer(("<pad>", "<image>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"), "<|end|>", "<pad>")
    vision_config = SiglipVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=96,
        patch_size=16,
        vision_use_head=False,
    )
    text_config = LlamaConfig(
        vocab_size=len(text),
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        pad_token_id=text.pad_token_id,
        bos_token_id=None,
        eos_token_id=text.eos_token_id,
        tie_word_embeddings=False,
    )
    config = LlavaConfig(
        vision_config=vision_config,
        text_config=text_config,
        image_token_id=text.convert_tokens_to_ids("<image>"),
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
        image_seq_length=36,
        tie_word_embeddings=False,
    )
    processor = LlavaProcessor(
        image_processor=SiglipImageProcessor(size={"height": 96, "width": 96}),
        tokenizer=text,
        patch_size=16,
        vision_feature_select_strategy="full",
        num_additional_image_tokens=0,
        image_token="<image>",
        chat_template=LLAVA_TEMPLATE,
    )
    return save(folder, config, processor, seed, text.eos_token_id, text.pad_token_id)


def tiny_qwen2_vl(folder: Path, seed: int = 0) -> Path:
    """A Qwen2-VL (M-RoPE; tokens depend on the image's size) with its own image and video processors."""
    from transformers import Qwen2VLConfig, Qwen2VLImageProcessor, Qwen2VLProcessor, Qwen2VLVideoProcessor

    specials = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>")
    text = tokenizer((*specials, "<|image_pad|>", "<|video_pad|>"), "<|im_end|>", "<|endoftext|>")
    pixels = {"shortest_edge": 28 * 28, "longest_edge": 112 * 112}
    config = Qwen2VLConfig(
        text_config={
            "vocab_size": len(text),
            "hidden_size": 48,
            "intermediate_size": 96,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 1024,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 2, 2]},
            "bos_token_id": None,
            "eos_token_id": text.eos_token_id,
            "pad_token_id": text.pad_token_id,
        },
        vision_config={
            "depth": 2,
            "embed_dim": 32,
            "hidden_size": 48,
            "num_heads": 4,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
        },
        image_token_id=text.convert_tokens_to_ids("<|image_pad|>"),
        video_token_id=text.convert_tokens_to_ids("<|video_pad|>"),
        vision_start_token_id=text.convert_tokens_to_ids("<|vision_start|>"),
        vision_end_token_id=text.convert_tokens_to_ids("<|vision_end|>"),
        tie_word_embeddings=False,
    )
    processor = Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=pixels),
        tokenizer=text,
        video_processor=Qwen2VLVideoProcessor(size=pixels),
        chat_template=CHATML_TEMPLATE,
    )
    return save(folder, config, processor, seed, text.eos_token_id, text.pad_token_id)
