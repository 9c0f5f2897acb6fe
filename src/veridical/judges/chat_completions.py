"""The chat-completions protocol: builds requests, reads replies, and finds out which parameters a server takes."""

from __future__ import annotations

import base64
import datetime
import json
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from veridical.http_client import BadReplyError
from veridical.judges.messages import Call, ChatMessage, Reply
from veridical.records import ImageFile

OPTIONAL = ("max_tokens", "temperature", "seed")
"""Parameters that some servers refuse: the first is then called max_completion_tokens, the others are left out."""
_MIME = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp", "GIF": "image/gif"}
_ORIENTATION = 274
"""The EXIF tag that says how a photograph was held."""
_SHOWN = 200


class NoReplyError(BadReplyError):
    """What a server sent is no chat completion; the message says what it is instead."""


def request_body(
    model: str, call: Call, *, refused: AbstractSet[str], extra: Mapping[str, Any], longest_side: int
) -> bytes:
    """The JSON of a request, in ASCII. Raises ImageError for an image that can't be read.

    `extra` goes over everything else; a parameter that it sets to null is left out.
    """
    body = {
        "model": model,
        "messages": [{"role": m.role, "content": _content(m, longest_side)} for m in call.messages],
        "max_completion_tokens" if "max_tokens" in refused else "max_tokens": call.max_tokens,
        "temperature": call.temperature,
        "seed": call.seed,
        "stream": False,
    }
    kept = {key: value for key, value in body.items() if key not in refused} | dict(extra)
    return json.dumps({key: value for key, value in kept.items() if value is not None}).encode()


def next_refused(message: str, refused: AbstractSet[str]) -> str | None:
    """The optional parameter to try without, after a refusal; None where the refusal is about something else.

    It is the one that the message names, or, where that one was not sent, the next of them.
    """
    if not any(name in message for name in OPTIONAL):
        return None
    named = (name for name in OPTIONAL if name in message and name not in refused)
    return next(named, next((name for name in OPTIONAL if name not in refused), None))


def read_reply(content: bytes) -> Reply:
    """The reply in the body of a response. Raises NoReplyError for anything else."""
    try:
        completion = json.loads(content.decode())
        choice = completion["choices"][0]
        text = choice["message"]["content"] or ""
        if isinstance(text, list):
            text = "".join(part.get("text") or "" for part in text)
        usage = completion.get("usage") or {}
        return Reply(
            text=whole_characters(str(text)),
            prompt_tokens=_count(usage.get("prompt_tokens")),
            completion_tokens=_count(usage.get("completion_tokens")),
            date=datetime.datetime.now(datetime.UTC).date().isoformat(),
            finished=choice.get("finish_reason") != "length",
        )
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        shown = content[:_SHOWN].decode(errors="replace")
        raise NoReplyError(f"the reply is no chat completion: {shown!r}") from error


def whole_characters(text: str) -> str:
    """The text with U+FFFD in place of half characters (lone surrogates), which no file can hold."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _count(value: Any) -> int:
    """A number of tokens; 0 where the server says something else."""
    plausible = isinstance(value, int | float) and 0 <= value < 2**53  # neither NaN nor thousands of digits
    return int(value) if plausible else 0


def _content(message: ChatMessage, longest_side: int) -> str | list[dict[str, Any]]:
    if not message.images:
        return message.text
    images: Sequence[dict[str, Any]] = [
        {"type": "image_url", "image_url": {"url": data_url(image, longest_side)}} for image in message.images
    ]
    return [*images, {"type": "text", "text": message.text}]


def data_url(image: ImageFile, longest_side: int = 0) -> str:
    """An image as a data URL: its file as it is, or scaled down to `longest_side` pixels (0: never) and upright.

    A file that is too large, turned by its EXIF data, or of a format that browsers don't know, is sent as PNG or JPEG.
    """
    import io

    import PIL.Image

    from veridical.vlm.images.files import open_image, read_image_file

    upright = open_image(image)
    content = read_image_file(image)
    with PIL.Image.open(io.BytesIO(content)) as opened:
        format_, turned = opened.format or "", opened.getexif().get(_ORIENTATION, 1) != 1
    large = 0 < longest_side < max(upright.size)
    if format_ in _MIME and not turned and not large:
        kind = _MIME[format_]
    else:
        if large:
            upright.thumbnail((longest_side, longest_side), PIL.Image.Resampling.LANCZOS)
        # A photograph as PNG would be many times as large.
        new = "JPEG" if format_ == "JPEG" else "PNG"
        buffer = io.BytesIO()
        upright.save(buffer, new, quality=95)
        content, kind = buffer.getvalue(), _MIME[new]
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
