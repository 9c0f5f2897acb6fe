from __future__ import annotations

import pytest
from transformers import LlavaProcessor, SiglipImageProcessor

from models import CHATML_TEMPLATE, LLAVA_TEMPLATE, tokenizer
from veridical.errors import UserError
from veridical.records import Message
from veridical.vlm.model.chat import end_of_turn, messages

# Roles in words, nothing after an answer but a space: LLaVA-1.5's way.
VICUNA = (
    "{% for message in messages %}{{ message['role'].upper() + ': ' }}"
    "{% for part in message['content'] %}{{ '<image>' if part['type'] == 'image' else part['text'] }} {% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
# Roles as tokens, and a turn ends where the next role begins: GLM's way.
ROLES_ONLY = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' }}"
    "{% for part in message['content'] %}{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
# Contents that must be plain text, and a blank before the end.
TEXT_ONLY = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% endif %} <|end|>{% endfor %}"
)
DROPS_ANSWERS = "{% for message in messages %}{{ '<|' + message['role'] + '|>' }}{% endfor %}"


@pytest.fixture(scope="module")
def words():
    specials = ("<pad>", "<image>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|im_start|>", "<|im_end|>")
    return tokenizer((*specials, "</s>"), "</s>", "<pad>")


def ending(words, template: str, stops: tuple[str, ...] = ()) -> str:
    processor = LlavaProcessor(SiglipImageProcessor(), words, patch_size=16, chat_template=template)
    return words.decode(end_of_turn(processor, words, {words.convert_tokens_to_ids(stop) for stop in stops}))


def test_the_end_of_a_turn_is_what_the_template_writes_after_an_answer(words):
    assert ending(words, LLAVA_TEMPLATE) == "<|end|>"
    assert ending(words, CHATML_TEMPLATE) == "<|im_end|>"  # and not the line break behind it
    assert ending(words, TEXT_ONLY) == " <|end|>"


def test_a_template_without_an_end_leaves_it_to_the_tokenizer(words):
    assert ending(words, VICUNA) == "</s>"
    assert ending(words, ROLES_ONLY) == "</s>"


def test_a_role_ends_the_turn_where_generation_stops_on_it(words):
    assert ending(words, ROLES_ONLY, stops=("<|user|>",)) == "<|user|>"


def test_a_template_that_hides_answers_is_refused(words):
    with pytest.raises(UserError, match="leaves out the assistant's answer"):
        ending(words, DROPS_ANSWERS)


def test_images_stand_in_the_first_user_turn():
    prompt = (
        Message("system", "Be brief."),
        Message("user", "What?"),
        Message("assistant", "A cat."),
        Message("user", "And?"),
    )
    kinds = [[part["type"] for part in message["content"]] for message in messages(prompt, ("a", "b"))]
    assert kinds == [["text"], ["image", "image", "text"], ["text"], ["text"]]
