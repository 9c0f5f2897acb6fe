"""What is read of each family's chat template when its model is loaded: turns, the start of an answer, its end."""

from __future__ import annotations

import warnings

import pytest
from tests.families import templates
from tests.families.catalogue import FAMILIES
from tests.families.tiny import random_model
from tests.vlm import plain
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlavaProcessor, PreTrainedTokenizerFast, SiglipImageProcessor

from models import SENTENCES
from veridical.records import Message
from veridical.vlm.inputs.context import Context, PromptError
from veridical.vlm.inputs.prepare import prepare, rendered
from veridical.vlm.load import assemble
from veridical.vlm.model.chat import answer_encoding, read_format
from veridical.vlm.scores.scoring import answer_ids

QUESTION, ANSWER, FURTHER = Message("user", "Which one?"), Message("assistant", "There is."), Message("user", "And?")
SYSTEM = Message("system", "Be brief.")
STRINGS = {
    "llava (Pixtral)": {"assistant", "system"},
    "mistral3": {"assistant", "system"},
    "mllama": {"system"},
    "perception_lm": {"system"},
}
"""Roles whose content has to be a string."""
RENDERED = {
    "llava": "USER: <image>\nWhich one? ASSISTANT:",
    "llava_next": "[INST] <image>\nWhich one? [/INST]",
    "llava (Pixtral)": "<s>[INST][IMG]Which one?[/INST]",
    "mistral3": "<s>[INST][IMG]Which one?[/INST]",
    "idefics2": "User:<image>Which one?<end_of_utterance>\nAssistant:",
    "smolvlm": "<|im_start|>User:<image>Which one?<end_of_utterance>\nAssistant:",
    "qwen2_vl": "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|>"
    "<|image_pad|><|vision_end|>Which one?<|im_end|>\n<|im_start|>assistant\n",
    "qwen3_5": "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Which one?<|im_end|>\n"
    "<|im_start|>assistant\n<think>\n\n</think>\n\n",
    "fast_vlm": "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<image>\nWhich one?"
    "<|im_end|>\n<|im_start|>assistant\n\n",
    "got_ocr2": "<|im_start|>system\nYou should follow the instructions carefully and explain your answers in detail."
    "<|im_end|><|im_start|>user\n<img><imgpad></img>\nWhich one?<|im_end|><|im_start|>assistant\n",
    "gemma3": "<bos><start_of_turn>user\n<start_of_image>Which one?<end_of_turn>\n<start_of_turn>model\n",
    "glm4v": "[gMASK]<sop><|user|>\n<|begin_of_image|><|image|><|end_of_image|>Which one?<|assistant|>\n",
    "mllama": "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n<|image|>Which one?<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "janus": "<|User|>: <image_placeholder>\nWhich one?\n\n<|Assistant|>:",
    "blip-2 (OPT)": "Question: Which one? Answer:",
}
"""A question about an image, as the released models' templates write it."""


@pytest.fixture(scope="module", params=FAMILIES)
def built(request):
    tiny = FAMILIES[request.param]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return request.param, tiny, assemble(request.param, random_model(tiny), tiny.processor)


def test_the_marked_dialogue_is_rendered_when_a_model_is_loaded(built):
    name, tiny, vlm = built
    assert vlm.traits.chat.plain == STRINGS.get(name, set())
    assert vlm.traits.chat.lead == tiny.chat.lead
    assert vlm.tokenizer.decode(vlm.traits.end_ids) == tiny.chat.ends
    if name in RENDERED:
        assert rendered(vlm, Context((), (QUESTION,)), [None]) == RENDERED[name]
    dialogue = (*([SYSTEM] if tiny.chat.system else []), QUESTION, ANSWER, FURTHER)
    text = rendered(vlm, Context((), dialogue), [None])
    places = [text.index(turn.text) for turn in (QUESTION, ANSWER, FURTHER)]
    assert places == sorted(places)
    assert not tiny.chat.image or text.count(tiny.chat.image) == 1
    if not tiny.chat.system:
        with pytest.raises(PromptError, match="incompatible with system messages") as refused:
            prepare(vlm, Context((plain.picture(0),), (SYSTEM, QUESTION)))
        assert refused.value.reason == "template-refuses-prompt"


@pytest.mark.parametrize("answer", ["There is a cup.", "Yes", "a fork", "\u00e9t\u00e9"])
def test_answers_are_the_difference_of_two_renderings(built, answer):
    _, tiny, vlm = built
    ids = answer_ids(vlm, answer)
    assert ids == plain.answer_ids(vlm, answer)
    assert vlm.tokenizer.decode(ids) == tiny.chat.lead + answer + tiny.chat.ends


def word_marks(chat):
    """A tokenizer that marks the beginnings of words, as Llama's does."""
    bpe = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    bpe.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    bpe.decoder = decoders.Metaspace(prepend_scheme="first")
    tokens = ["<pad>", "<unk>", chat.eos, "<image>", *chat.tokens]
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=tokens, show_progress=False)
    bpe.train_from_iterator(
        [*SENTENCES, "USER: What? ASSISTANT: There is. ###Human: ###Assistant: [INST] [/INST]"], trainer
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token=chat.eos, pad_token="<pad>", unk_token="<unk>", extra_special_tokens=["<image>"]
    )


@pytest.mark.parametrize("name", ["LLAVA", "VIPLLAVA", "LLAVA_NEXT", "IDEFICS2"])
def test_word_marks_of_a_first_token_are_those_of_the_whole_dialogue(name):
    chat = getattr(templates, name)
    words = word_marks(chat)
    processor = LlavaProcessor(SiglipImageProcessor(), words, patch_size=16, chat_template=chat.text)
    style = read_format(processor, words)
    assert style.lead == " "
    question = {"role": "user", "content": [{"type": "text", "text": "What is on the left?"}]}
    for answer in ("There is a cup.", "Yes."):
        told = {"role": "assistant", "content": [{"type": "text", "text": answer}]}
        prompt = words(processor.apply_chat_template([question], add_generation_prompt=True), add_special_tokens=False)
        whole = words(processor.apply_chat_template([question, told]), add_special_tokens=False).input_ids
        ids, _ = answer_encoding(words, style, answer)
        assert words.convert_ids_to_tokens(ids)[0].startswith("\u2581")
        assert whole[: len(prompt.input_ids) + len(ids)] == [*prompt.input_ids, *ids]
