"""The bundled model before training: a small LLaVA from stock transformers classes."""

from __future__ import annotations

import random
from collections.abc import Iterator

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    SiglipImageProcessor,
    SiglipVisionConfig,
)

from veridical.world.captions import DESCRIBE, EXISTS, caption, questions
from veridical.world.scenes import make_scene
from veridical.world.vocabulary import CLASSES, article, plural

IMAGE_SIDE = 96
PATCH = 16
GRID = IMAGE_SIDE // PATCH
PATCHES = GRID * GRID
VISION_WIDTH = 192
TEXT_WIDTH = 192
SPECIAL = {
    "pad_token": "<pad>",
    "bos_token": "<s>",
    "eos_token": "<|end|>",
    "unk_token": "<unk>",
}
ROLES = ("<|user|>", "<|assistant|>", "<image>")

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ '<|' + message['role'] + '|>' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] if part['type'] == 'image' %}<image>{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}{% endif %}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def build_processor() -> LlavaProcessor:
    """A LLaVA processor with a byte-level BPE tokenizer trained on the world's own language."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=_train_tokenizer(),
        additional_special_tokens=list(ROLES),
        model_max_length=1024,
        padding_side="left",
        **SPECIAL,
    )
    image_processor = SiglipImageProcessor(
        size={"height": IMAGE_SIDE, "width": IMAGE_SIDE}, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    return LlavaProcessor(
        image_processor=image_processor,
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="full",
        num_additional_image_tokens=0,
        image_token="<image>",
        chat_template=CHAT_TEMPLATE,
    )


def _train_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1024,
        min_frequency=2,
        special_tokens=[*SPECIAL.values(), *ROLES],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer


def _corpus() -> Iterator[str]:
    """Enough of the world's language that every word of it becomes one token."""
    for i in range(3000):
        scene = make_scene("balanced", f"tokenizer-{i}")
        rng = random.Random(i)
        yield caption(scene, rng)
        for question, answer in questions(scene, rng):
            yield question
            yield answer
    for name in CLASSES:
        yield from [f"a {name} {plural(name)} {name} {plural(name)}"] * 20
        yield from [wording.format(a=article(name), name=name) for wording in EXISTS] * 3
    yield from [*DESCRIBE, "Yes.", "No.", "Yes.", "No."] * 20


def build_model(processor: LlavaProcessor) -> LlavaForConditionalGeneration:
    """The model with random weights from torch's global generator; about 4 million parameters."""
    tokenizer = processor.tokenizer
    token_id = tokenizer.convert_tokens_to_ids
    vision = SiglipVisionConfig(
        hidden_size=VISION_WIDTH,
        intermediate_size=4 * VISION_WIDTH,
        num_hidden_layers=4,
        num_attention_heads=6,
        image_size=IMAGE_SIDE,
        patch_size=PATCH,
        vision_use_head=False,
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=6,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=token_id("<s>"),
        eos_token_id=token_id("<|end|>"),
        pad_token_id=token_id("<pad>"),
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=token_id("<image>"),
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
        tie_word_embeddings=True,
        pad_token_id=token_id("<pad>"),
        eos_token_id=token_id("<|end|>"),
        bos_token_id=token_id("<s>"),
    )
    model = LlavaForConditionalGeneration(config)
    model.generation_config.eos_token_id = token_id("<|end|>")
    model.generation_config.pad_token_id = token_id("<pad>")
    return model
