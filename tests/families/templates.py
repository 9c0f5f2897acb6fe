"""Chat templates that write what those of the released models write: the same tokens and words, in the same order.

The texts are ours; what they render was taken from the released templates (transformers' conversion scripts, TRL's
copies, model cards). Preambles of several sentences are cut to one. Families that are released without a template have
`plain_turns`, such as a user would bring along.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Chat:
    """A chat template and what a tokenizer has to know for it.

    `image` is what stands for an image; `tokens` are single tokens; `stops` end generation beside `eos`, the
    tokenizer's end of sequence. `system` says whether a system turn may stand beside an image. `lead` is what stands
    between prompt and answer, `end` what ends an answer: what veridical has to find out.
    """

    text: str
    image: str
    tokens: tuple[str, ...] = ()
    eos: str = "</s>"
    bos: str = ""
    stops: tuple[str, ...] = ()
    system: bool = True
    lead: str = ""
    end: str = ""

    @property
    def ends(self) -> str:
        """What ends an answer: the tokenizer's end of sequence, unless the template writes something."""
        return self.end or self.eos


def _parts(image: str, text: str = "{{ c.text }}") -> str:
    """What is in a message `m`: a string, or its parts in their order."""
    return (
        "{% if m.content is string %}{{ m.content }}{% else %}{% for c in m.content %}"
        f"{{% if c.type == 'image' %}}{image}{{% else %}}{text}{{% endif %}}"
        "{% endfor %}{% endif %}"
    )


def _images_first(image: str, text: str = "{{ c.text }}") -> str:
    """The images of a message `m`, then its texts; it has to be a list."""
    return (
        f"{{% for c in m.content if c.type == 'image' %}}{image}{{% endfor %}}"
        f"{{% for c in m.content if c.type == 'text' %}}{text}{{% endfor %}}"
    )


_IM = ("<|im_start|>", "<|im_end|>")
_ANSWERS = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
_HELPFUL = "You are a helpful assistant."


def chatml(
    image: str,
    said: str = "",
    default: str = "",
    head: str = "",
    tokens: tuple[str, ...] = (),
    after: str = "\n",
    bos: str = "",
) -> Chat:
    """Qwen's turns; `default` is the system turn of a dialogue without one, `head` stands before everything."""
    first = (
        f"{{% if loop.first and m.role != 'system' %}}<|im_start|>system\n{default}<|im_end|>{after}{{% endif %}}"
        if default
        else ""
    )
    turn = f"<|im_start|>{{{{ m.role }}}}\n{said or _parts(image)}<|im_end|>{after}"
    text = f"{head}{{% for m in messages %}}{first}{turn}{{% endfor %}}{_ANSWERS}"
    return Chat(text, image, (*_IM, *tokens), eos="<|im_end|>", bos=bos)


_QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
QWEN2_VL = chatml(_QWEN_IMAGE, default=_HELPFUL)
QWEN3_VL = chatml(_QWEN_IMAGE)


def _qwen3_5() -> Chat:
    """Without thinking: an empty block of thoughts stands before the answer to the last question, and no other."""
    said = _parts(_QWEN_IMAGE)
    empty = "<think>\n\n</think>\n\n"
    text = (
        "{% set ns = namespace(last=0) %}"
        "{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        f"{{% if m.role == 'assistant' and loop.index0 > ns.last %}}{empty}{{% endif %}}{said}<|im_end|>\n"
        f"{{% endfor %}}{{% if add_generation_prompt %}}<|im_start|>assistant\n{empty}{{% endif %}}"
    )
    return Chat(text, _QWEN_IMAGE, _IM, eos="<|im_end|>")


QWEN3_5 = _qwen3_5()
INTERNVL = chatml("<IMG_CONTEXT>\n")
OVIS2 = chatml("<image>\n", head=f"<|im_start|>system\n{_HELPFUL}<|im_end|>\n")
ARIA = chatml("<fim_prefix><image><fim_suffix>", tokens=("<fim_prefix>", "<fim_suffix>"))
LLAVA_ONEVISION = chatml("<image>\n", said=_images_first("<image>\n"))
# A line break before every text, an answer's too: prompts then end in it.
FAST_VLM = chatml("<image>", said=_images_first("<image>", "{{ '\n' + c.text }}"), default=_HELPFUL)
LFM2_VL = chatml("<image>", head="<|startoftext|>", bos="<|startoftext|>")
MOLMO2 = chatml("<|image|>")
GOT_OCR2 = chatml(
    "<img><imgpad></img>\n",
    default="You should follow the instructions carefully and explain your answers in detail.",
    after="",
)


def idefics(head: str, eos: str, stops: tuple[str, ...] = ()) -> Chat:
    """Roles in words; a colon, and a space where no image follows; so an answer begins with a space."""
    turn = (
        "{{ m.role | capitalize }}{% if m.content[0].type == 'image' %}:{% else %}: {% endif %}"
        "{% for c in m.content %}{% if c.type == 'text' %}{{ c.text }}{% elif c.type == 'image' %}<image>{% endif %}"
        "{% endfor %}<end_of_utterance>\n"
    )
    text = f"{head}{{% for m in messages %}}{turn}{{% endfor %}}{{% if add_generation_prompt %}}Assistant:{{% endif %}}"
    tokens = ("<end_of_utterance>", *((head,) if head else ()))
    return Chat(text, "<image>", tokens, eos=eos, stops=stops, lead=" ", end="<end_of_utterance>")


IDEFICS2 = idefics("", "</s>", ("<end_of_utterance>",))
IDEFICS3 = idefics("<|begin_of_text|>", "<|end_of_text|>", ("<end_of_utterance>",))
SMOLVLM = idefics("<|im_start|>", "<end_of_utterance>")


def _llava() -> Chat:
    """LLaVA-1.5: roles in capitals, a space after each text, and nothing but that space after an answer."""
    said = _images_first("<image>\n", "{{ c.text }} ")
    text = (
        "{% for m in messages %}{% if m.role != 'system' %}{{ m.role | upper }}: {% endif %}"
        f"{said}{{% endfor %}}{{% if add_generation_prompt %}}ASSISTANT:{{% endif %}}"
    )
    return Chat(text, "<image>\n", lead=" ")


def _vipllava() -> Chat:
    """ViP-LLaVA: a preamble, and roles after three hashes."""
    said = _images_first("<image>\n")
    text = (
        "{% if messages[0].role != 'system' %}A chat between a curious human and an artificial intelligence assistant."
        "{% endif %}{% for m in messages %}{% if m.role != 'system' %}###"
        "{{ 'Human' if m.role == 'user' else 'Assistant' }}: {% endif %}"
        f"{said}{{% endfor %}}{{% if add_generation_prompt %}}###Assistant:{{% endif %}}"
    )
    return Chat(text, "<image>\n", lead=" ")


LLAVA, VIPLLAVA = _llava(), _vipllava()


def _llava_next() -> Chat:
    """LLaVA-NeXT on Mistral: instructions in brackets that are words, and answers after a space."""
    said = _images_first("<image>\n")
    text = (
        "{% for m in messages %}{% if m.role == 'system' %}<<SYS>>\n{{ m.content[0].text }}\n<</SYS>>\n\n"
        f"{{% elif m.role == 'user' %}}[INST] {said} [/INST]"
        "{% else %} {{ m.content[0].text }}</s> {% endif %}{% endfor %}"
    )
    return Chat(text, "<image>\n", lead=" ", end="</s>")


def _pixtral() -> Chat:
    """Pixtral: texts under "content", answers as strings, the system's text before the last question."""
    text = (
        "<s>{% set turns = messages[1:] if messages[0].role == 'system' else messages %}{% for m in turns %}"
        "{% if m.role == 'user' %}[INST]"
        "{% if loop.last and messages[0].role == 'system' %}{{ messages[0].content + '\n\n' }}{% endif %}"
        "{% if m.content is string %}{{ m.content }}{% else %}{% for c in m.content %}"
        "{% if c.type == 'text' %}{{ c.content }}{% elif c.type == 'image' %}[IMG]{% endif %}{% endfor %}{% endif %}"
        "[/INST]{% else %}{{ m.content + '</s>' }}{% endif %}{% endfor %}"
    )
    return Chat(text, "[IMG]", ("[INST]", "[/INST]"), bos="<s>", end="</s>")


def _mistral3() -> Chat:
    """Mistral 3: everything between tokens; system and assistant turns as strings."""
    text = (
        "<s>{% for m in messages %}{% if m.role == 'user' %}"
        f"[INST]{_parts('[IMG]')}[/INST]"
        "{% elif m.role == 'system' %}{{ '[SYSTEM_PROMPT]' + m.content + '[/SYSTEM_PROMPT]' }}"
        "{% else %}{{ m.content + '</s>' }}{% endif %}{% endfor %}"
    )
    tokens = ("[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]")
    return Chat(text, "[IMG]", tokens, bos="<s>", end="</s>")


LLAVA_NEXT, PIXTRAL, MISTRAL3 = _llava_next(), _pixtral(), _mistral3()


def _glm4v() -> Chat:
    """GLM-4.1V: roles as tokens, and no end of a turn but the next role."""
    image = "<|begin_of_image|><|image|><|end_of_image|>"
    text = (
        "[gMASK]<sop>{% for m in messages %}<|{{ m.role }}|>\n"
        f"{_parts(image)}{{% endfor %}}{{% if add_generation_prompt %}}<|assistant|>\n{{% endif %}}"
    )
    tokens = ("[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>")
    return Chat(text, image, tokens, eos="<|endoftext|>", stops=("<|user|>",), end="<|user|>")


GLM4V = _glm4v()


def llama3(image: str, said: str, head: str, marks: tuple[str, str, str], first: str, system: bool = True) -> Chat:
    """Llama's headers; `head` stands before all, `first` before the turns in `turns`."""
    start, close, end = marks
    text = (
        f"{head}{first}{{% for m in turns %}}{start}{{{{ m.role }}}}{close}\n\n{said}{end}{{% endfor %}}"
        f"{{% if add_generation_prompt %}}{start}assistant{close}\n\n{{% endif %}}"
    )
    return Chat(text, image, marks, eos=end, bos=head, system=system)


_LLAMA = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
_WITHOUT_SYSTEM = "{% set turns = messages[1:] if messages[0].role == 'system' else messages %}"
_SYSTEM = "<|start_header_id|>system<|end_header_id|>\n\n"
MLLAMA = llama3(
    "<|image|>",
    _parts("<|image|>"),
    "<|begin_of_text|>",
    _LLAMA,
    # A system turn and an image exclude each other; without an image the date is told.
    _WITHOUT_SYSTEM
    + "{% set ns = namespace(images=false) %}{% for m in turns %}{% for c in m.content %}{% if c.type == 'image' %}"
    "{% set ns.images = true %}{% endif %}{% endfor %}{% endfor %}"
    "{% if ns.images and messages[0].role == 'system' %}"
    "{{ raise_exception('Prompting with images is incompatible with system messages.') }}{% endif %}"
    "{% if not ns.images %}"
    + _SYSTEM
    + "Today Date: 26 Jul 2024\n\n{{ messages[0].content | trim if messages[0].role == 'system' }}<|eot_id|>"
    "{% endif %}",
    system=False,
)
PERCEPTION_LM = llama3(
    "<|image|>",
    _images_first("<|image|>", "{{ c.text | trim }}"),
    "<|begin_of_text|>",
    _LLAMA,
    _WITHOUT_SYSTEM
    + _SYSTEM
    + "{{ messages[0].content | trim if messages[0].role == 'system' else 'You are a helpful language and vision "
    "assistant.' }}<|eot_id|>",
)
LLAMA4 = llama3(
    "<|image|>",
    _parts("<|image|>"),
    "<|begin_of_text|>",
    ("<|header_start|>", "<|header_end|>", "<|eot|>"),
    "{% set turns = messages %}",
)


def gemma(image: str, start: str, end: str, system: str) -> Chat:
    """Gemma's turns: the assistant is called model, texts are trimmed; `system` writes a system turn's text."""
    said = _parts(image, "{{ c.text | trim }}")
    turn = (
        f"{start}{{{{ 'model' if m.role == 'assistant' else m.role }}}}\n"
        f"{{% if loop.first %}}{{{{ ns.before }}}}{{% endif %}}{said}{end}\n"
    )
    text = (
        f"<bos>{{% set ns = namespace(before='') %}}{_WITHOUT_SYSTEM}"
        f"{{% if messages[0].role == 'system' %}}{system}{{% endif %}}"
        "{% for m in turns %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
        f"{turn}{{% endfor %}}{{% if add_generation_prompt %}}{start}model\n{{% endif %}}"
    )
    return Chat(text, image, (start, end), eos="<eos>", bos="<bos>", stops=(end,), end=end)


GEMMA3 = gemma(
    "<start_of_image>",
    "<start_of_turn>",
    "<end_of_turn>",
    "{% set ns.before = messages[0].content[0].text + '\n\n' %}",
)
GEMMA4 = gemma(
    "<|image|>",
    "<|turn>",
    "<turn|>",
    "<|turn>system\n{% for c in messages[0].content %}{{ c.text | trim + ' ' }}{% endfor %}<turn|>\n",
)


def cohere(image: str) -> Chat:
    """Cohere's turns: a preamble, and answers between tokens of their own."""
    said = _parts(image)
    roles = "{{ {'user': '<|USER_TOKEN|>', 'system': '<|SYSTEM_TOKEN|>'}[m.role] }}"
    text = (
        "<BOS_TOKEN><|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|># System Preamble\nYou are in contextual safety mode."
        "<|END_OF_TURN_TOKEN|>{% for m in messages %}<|START_OF_TURN_TOKEN|>{% if m.role == 'assistant' %}"
        f"<|CHATBOT_TOKEN|><|START_RESPONSE|>{said}<|END_RESPONSE|>{{% else %}}{roles}{said}{{% endif %}}"
        "<|END_OF_TURN_TOKEN|>{% endfor %}"
        "{% if add_generation_prompt %}<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|><|START_RESPONSE|>{% endif %}"
    )
    turn = ("<|START_OF_TURN_TOKEN|>", "<|USER_TOKEN|>", "<|SYSTEM_TOKEN|>", "<|CHATBOT_TOKEN|>")
    return Chat(
        text,
        image,
        (*turn, "<|START_RESPONSE|>", "<|END_RESPONSE|>"),
        eos="<|END_OF_TURN_TOKEN|>",
        bos="<BOS_TOKEN>",
        end="<|END_RESPONSE|>",
    )


AYA_VISION, COHERE2_VISION = cohere("<image>"), cohere("<image>")


def deepseek(user: str, assistant: str, preamble: str = "", tokens: tuple[str, ...] = ()) -> Chat:
    """DeepSeek's turns: roles in words, a blank line after a question; an answer ends where another turn follows."""
    end = "<\uff5cend\u2581of\u2581sentence\uff5c>"
    text = (
        f"{preamble}{{% for m in messages %}}"
        f"{{% if m.role == 'user' %}}{user}: {{% elif m.role == 'assistant' %}}{assistant}: {{% else %}}"
        "{{ m.role | capitalize }}: {% endif %}"
        "{% for c in m.content %}{% if c.type == 'image' %}<image_placeholder>{{ '\n' if not loop.last }}"
        "{% else %}{{ c.text }}{% endif %}{% endfor %}"
        "{% if not loop.last or add_generation_prompt %}"
        f"{{{{ '\n\n' if m.role == 'user' else '{end}' }}}}"
        f"{{% endif %}}{{% endfor %}}{{% if add_generation_prompt %}}{assistant}:{{% endif %}}"
    )
    return Chat(text, "<image_placeholder>", tokens, eos=end, lead=" ")


JANUS = deepseek("<|User|>", "<|Assistant|>", tokens=("<|User|>", "<|Assistant|>"))
DEEPSEEK_VL = deepseek("User", "Assistant", "You are a helpful language and vision assistant.\n\n")


def question_and_answer(bos: str = "") -> Chat:
    """BLIP-2's and Kosmos-2's prompts, as their papers have them; the image stands before, put there elsewhere."""
    text = (
        f"{bos}{{% for m in messages %}}"
        "{% if m.role == 'user' %}Question: {% elif m.role == 'assistant' %}Answer: {% endif %}"
        f"{_parts('')} {{% endfor %}}{{% if add_generation_prompt %}}Answer:{{% endif %}}"
    )
    return Chat(text, "", bos=bos, lead=" ")


BLIP_2, KOSMOS_2 = question_and_answer(), question_and_answer("<s>")


def plain_turns(image: str) -> Chat:
    """A template such as users bring along: each turn between tokens of its role and its end."""
    text = (
        f"{{% for m in messages %}}<|{{{{ m.role }}}}|>{_parts(image)}<|end|>{{% endfor %}}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    return Chat(text, image, ("<|system|>", "<|user|>", "<|assistant|>"), eos="<|end|>")


NO_IMAGE_TURNS = plain_turns("")
PALIGEMMA = replace(plain_turns("<image>"), bos="<bos>")  # which its processor writes
