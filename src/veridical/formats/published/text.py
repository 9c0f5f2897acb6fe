"""Fields and texts of published rows: required fields, image placeholders, conversations, prompts with a template."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from veridical.formats.published.types import Answer, Comparison, ImageSource, Row
from veridical.formats.rows import UnusableError
from veridical.records import Message, Pair

PLACEHOLDER = re.compile(r"<(?:image|img|ImageHere|video)>|<\|image_pad\|>|<\|image\|>")
_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
_VICUNA = re.compile(r"\s*(USER|ASSISTANT):\s*")


def text_of(row: Row, *names: str) -> str:
    """The first of the named fields that the row has, which must be a text that isn't blank. Raises UnusableError."""
    for name in names:
        if row.get(name) is not None:
            value = row[name]
            if not isinstance(value, str):
                raise UnusableError("bad-field", f"`{name}` is a {type(value).__name__}", f"give `{name}` as one text")
            if not value.strip():
                raise UnusableError("empty-field", f"`{name}` is empty", f"fill `{name}` or delete the row")
            return value.strip()
    raise UnusableError("missing-field", f"has no `{names[0]}`", f"add `{names[0]}` or delete the row")


def json_of(row: Row, name: str) -> Any:
    """The value of a field that holds JSON as text, written as text twice perhaps, or that is parsed already."""
    value = row.get(name)
    for _ in range(2):
        if not isinstance(value, str):
            break
        try:
            value = json.loads(value)
        except (json.JSONDecodeError, RecursionError) as error:
            raise UnusableError(
                "bad-json", f"`{name}` isn't valid JSON ({error})", f"repair `{name}` or delete the row"
            ) from None
    return value


def listed(value: Any) -> Any:
    """A list that a table's cell holds as JSON text; any other value as it is."""
    if isinstance(value, str) and value.lstrip()[:1] == "[":
        try:
            return json.loads(value)
        except (json.JSONDecodeError, RecursionError):
            return value
    return value


def number_of(value: Any) -> float | None:
    """A finite number, also one written as text ("4"); None for anything else ("N/A")."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if number == number and abs(number) != float("inf") else None


def images_of(row: Row, *names: str) -> tuple[ImageSource, ...]:
    """The images in the first of the named fields that has any: paths, bytes, {bytes, path}, or lists of these."""
    for name in names:
        value = listed(row.get(name))
        if value is None or value == "" or value == []:
            continue
        many = value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else [value]
        return tuple(_image(image, name) for image in many)
    return ()


def _image(value: Any, name: str) -> ImageSource:
    if isinstance(value, str | bytes) and value:
        return value
    if isinstance(value, Mapping):
        image = value.get("bytes") or value.get("path")
        if isinstance(image, str | bytes) and image:
            return image
    raise UnusableError("bad-image-field", f"`{name}` holds {str(value)[:60]!r}", "name each image by its path")


def images_in(*conversations: Any) -> tuple[ImageSource, ...]:
    """The images inside content parts of messages: {"type": "image", "image": ...} or {"type": "image_url", ...}."""
    found: dict[ImageSource, None] = {}
    for turns in conversations:
        for turn in turns if isinstance(turns, Sequence) and not isinstance(turns, str) else ():
            parts = turn.get("content") if isinstance(turn, Mapping) else None
            for part in parts if isinstance(parts, Sequence) and not isinstance(parts, str) else ():
                if isinstance(part, Mapping) and part.get("type") in ("image", "image_url"):
                    value = part.get(part["type"]) or part.get("path") or part.get("bytes")
                    value = value.get("url") if isinstance(value, Mapping) and "url" in value else value
                    if value is not None:
                        found[_image(value, part["type"])] = None
    return tuple(found)


def one_user_turn(text: str, images: Sequence[ImageSource]) -> tuple[Message, ...]:
    """A prompt of one message, its image placeholders taken out. Raises UnusableError where they don't match."""
    return without_placeholders((Message("user", text),), len(images))


def conversation(value: Any) -> tuple[Message, ...]:
    """Messages of a LLaVA, ShareGPT or OpenAI conversation. Raises UnusableError for other shapes."""
    value = listed(value)
    turns = value[0] if isinstance(value, list) and len(value) == 1 and isinstance(value[0], list) else value
    if not isinstance(turns, Sequence) or isinstance(turns, str) or not turns:
        raise UnusableError("bad-conversation", "the conversation is no list of messages", "give a list of messages")
    return tuple(_message(turn) for turn in turns)


def _message(turn: Any) -> Message:
    if isinstance(turn, Mapping):
        role, content = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
        if isinstance(content, Sequence) and not isinstance(content, str):
            content = "".join(_part(part) for part in content)
        if role in _ROLES and isinstance(content, str):
            return Message(_ROLES[role], content)  # type: ignore[arg-type]
    raise UnusableError(
        "bad-conversation",
        f"a message holds {str(turn)[:60]!r}",
        'write messages as {"from": "human", "value": "..."} or {"role": "user", "content": "..."}',
    )


def _part(part: Any) -> str:
    """The text of one content part; an image part is written as a placeholder, so that its place is known."""
    if isinstance(part, Mapping):
        if part.get("type") == "text" and isinstance(part.get("text"), str):
            return str(part["text"])
        if part.get("type") in ("image", "image_url"):
            return "<image>"
    raise UnusableError("bad-conversation", f"a content part holds {str(part)[:60]!r}", "use text and image parts")


def without_placeholders(prompt: Sequence[Message], images: int) -> tuple[Message, ...]:
    """A prompt without image placeholders, which veridical writes by the model's own chat template.

    Placeholders at the edge of a message are dropped, those inside a text become "(image 1)" and so on, so that what
    the text says about them stays. Raises UnusableError where there are placeholders for other than `images` images.
    """
    count = sum(len(PLACEHOLDER.findall(message.text)) for message in prompt)
    if count not in (0, images):
        raise UnusableError(
            "image-count", f"{count} image placeholders for {images} images", "give each placeholder its image"
        )
    seen = 0
    cleaned = []
    for message in prompt:
        text, placeholders = _clean(message.text, seen, images)
        seen += placeholders
        cleaned.append(Message(message.role, text))
    return tuple(cleaned)


def _clean(text: str, seen: int, images: int) -> tuple[str, int]:
    number = seen

    def place(match: re.Match[str]) -> str:
        nonlocal number
        number += 1
        around = (text[: match.start()], text[match.end() :])
        inside = all(PLACEHOLDER.sub("", part).strip() for part in around)
        return f"(image {number})" if images > 1 and inside else ""

    return PLACEHOLDER.sub(place, text).strip(), number - seen


def refuse_placeholders(text: str) -> str:
    """An answer, which holds no image placeholder. Raises UnusableError."""
    if PLACEHOLDER.search(text):
        raise UnusableError("placeholder-in-answer", "an answer holds an image placeholder", "delete the row")
    return text


def vicuna_prompt(text: str) -> tuple[Message, ...]:
    """The messages inside a whole Vicuna prompt ("... USER: <image>\\n... ASSISTANT:"), whose first sentence is the
    template's own; another text is one message of the user's."""
    _, *parts = _VICUNA.split(text)
    roles, texts = parts[::2], [part.removesuffix("</s>").strip() for part in parts[1::2]]
    if not roles or roles != ["USER", "ASSISTANT"] * (len(roles) // 2) or texts[-1] or not all(texts[:-1]):
        return (Message("user", text),)
    return tuple(
        Message("user" if role == "USER" else "assistant", said)
        for role, said in zip(roles[:-1], texts[:-1], strict=True)
    )


def differing_answers(
    chosen: Sequence[Message], rejected: Sequence[Message]
) -> list[tuple[tuple[Message, ...], str, str]]:
    """Where two conversations answer differently: the chosen one until there, and the two answers; the last answers
    where all are equal. Raises UnusableError where the conversations don't ask the same."""
    prompt, last = last_answer(chosen)
    _, last_rejected = last_answer(rejected)
    if [(turn.role, _bare(turn)) for turn in chosen if turn.role != "assistant"] != [
        (turn.role, _bare(turn)) for turn in rejected if turn.role != "assistant"
    ] or len(chosen) != len(rejected):
        raise UnusableError(
            "other-questions", "the rejected conversation asks something else than the chosen one", "delete the row"
        )
    found = [
        (tuple(chosen[:place]), refuse_placeholders(one.text.strip()), refuse_placeholders(other.text.strip()))
        for place, (one, other) in enumerate(zip(chosen, rejected, strict=True))
        if one.role == "assistant" and one.text.strip() != other.text.strip()
    ]
    if any(not one or not other for _, one, other in found):
        raise UnusableError("empty-field", "an answer is empty", "delete the row")
    return found or [(prompt, last, last_rejected)]


def _bare(turn: Message) -> str:
    return " ".join(PLACEHOLDER.sub(" ", turn.text).split())


def last_answer(turns: Sequence[Message]) -> tuple[tuple[Message, ...], str]:
    """A conversation as its prompt and its last answer. Raises UnusableError where it doesn't end with an answer."""
    if len(turns) < 2 or turns[-1].role != "assistant" or turns[-2].role != "user":
        raise UnusableError(
            "no-answer", "the conversation doesn't end with a question and its answer", "delete the row"
        )
    if not turns[-1].text.strip():
        raise UnusableError("empty-field", "the last answer is empty", "delete the row")
    return tuple(turns[:-1]), refuse_placeholders(turns[-1].text.strip())


def row_id(row: Row, origin: str, *names: str) -> str:
    """The row's own id, else its place in its file."""
    for name in names:
        if row.get(name) not in (None, ""):
            return str(row[name])
    return origin


def notes_of(row: Row, *names: str) -> dict[str, Any]:
    """What the row says in the named fields, those that hold JSON parsed."""
    notes: dict[str, Any] = {}
    for name in names:
        value = row.get(name)
        if value not in (None, ""):
            try:
                notes[name] = json.loads(value) if isinstance(value, str) and value[:1] in "{[" else value
            except (json.JSONDecodeError, RecursionError):
                notes[name] = value
    return notes


def flat_comparison(
    row: Row,
    name: str,
    images: Sequence[ImageSource],
    question: str | tuple[Message, ...],
    *,
    sides: tuple[str, str] = ("chosen", "rejected"),
    sources: tuple[str, str] = ("model", "model"),
    weights: tuple[float | None, float | None] = (None, None),
    context: str = "",
    notes: Mapping[str, Any] | None = None,
) -> Comparison:
    """A row that holds its question and its two answers as plain texts."""
    chosen, rejected = (
        Answer(refuse_placeholders(text_of(row, side)), source, weight=weight)
        for side, source, weight in zip(sides, sources, weights, strict=True)
    )
    asked = (Message("user", question),) if isinstance(question, str) else question
    prompt = without_placeholders(asked, len(images))
    return Comparison(name, tuple(images), prompt, (chosen, rejected), context, notes or {})


def with_placeholders(pair: Pair, images: int) -> list[Message]:
    """A pair's prompt with "<image>" for each of its images before the first user message, as LLaVA writes it."""
    first = next((place for place, message in enumerate(pair.prompt) if message.role == "user"), 0)
    return [
        Message(message.role, "<image>\n" * images + message.text) if place == first else message
        for place, message in enumerate(pair.prompt)
    ]


def whole(pair: Pair, text: str) -> str:
    """An answer with the context that it continues."""
    return f"{pair.context} {text}" if pair.context else text
