"""Changes good inputs into bad ones: values of another kind, bytes that flip, files cut short, paths that lead out."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from typing import Any

NASTY: tuple[Any, ...] = (
    None, True, False, 0, -1, 2**63, 10**400, 1e308, float("nan"), float("inf"), "", " ", "\x00", "\ud800", "a\u2028b",
    "\u202egnp.exe", "x" * 70_000, [], {}, [[]], [None], {"": {}}, {"a": [1]}, "../../secret.png",
    "../outside/secret.png", "../../../outside/secret.png",
    "/etc/passwd", "/proc/self/environ", "/dev/zero", "pipe.png", "giant.png", "link.png", "http://127.0.0.1:9/a.jpg",
    "file:///etc/passwd", "..\\..\\a.jpg", "<image>" * 40, "<|im_end|>", "{{ 1/0 }}", '{"a": ',
    "data:image/png;base64,!!",
        b"\xff\xd8\xff", b"GIF89a",
    {"bytes": b"<html>", "path": "/etc/passwd"}, {"bytes": None, "path": "/etc/hostname"},
    "没有狗。", "yes", "No", "C:\\con", "a" * 300 + ".png",
)  # fmt: skip
"""What stands where something else belongs."""
LEVELS = (6, 400, 5000)


def value(draw: random.Random) -> Any:
    """Something that belongs nowhere."""
    if draw.random() < 0.05:
        found: Any = "x"
        for _ in range(draw.choice(LEVELS)):
            found = [found]
        return found
    return draw.choice(NASTY)


def row(good: Any, draw: random.Random, changes: int = 3) -> Any:
    """A copy of nested values with one place, or up to `changes`, dropped, cut, doubled or replaced."""
    found = copy.deepcopy(good)
    for _ in range(draw.randint(1, changes)):
        _change(found, draw)
    return found


def _change(node: Any, draw: random.Random) -> None:
    while node:
        key = draw.choice(list(node) if isinstance(node, dict) else list(range(len(node))))
        inner = node[key]
        if isinstance(inner, dict | list) and inner and draw.random() < 0.6:
            node = inner
            continue
        kind = draw.random()
        if kind < 0.15:
            del node[key]
        elif kind < 0.25 and isinstance(inner, str):
            node[key] = inner[: draw.randrange(len(inner) + 1)]
        elif kind < 0.3 and isinstance(node, dict):
            node[draw.choice(("id", "other", "\ud800", ""))] = inner
        elif kind < 0.35 and isinstance(node, list):
            node.append(inner)
        else:
            node[key] = value(draw)
        return


def as_json(content: Any) -> str:
    """Any values as JSON text; bytes as texts, and what is nested too deeply for the encoder as brackets."""
    try:
        return json.dumps(content, default=lambda odd: odd.decode("latin-1"))
    except (RecursionError, ValueError):
        return "[" * 5000 + "]" * 5000


def lines(rows: list[Any]) -> bytes:
    """Rows as JSON lines; lone surrogates are escapes, as other programs write them."""
    return "".join(as_json(one) + "\n" for one in rows).encode(errors="surrogatepass")


def content(good: bytes, draw: random.Random) -> bytes:
    """Bytes that were damaged: flipped, cut, doubled, zeroed, swapped, or something else altogether."""
    damaged = bytearray(good)
    ways: tuple[Callable[[bytearray, random.Random], bytearray], ...] = (_flip, _flip, _cut, _double, _zero, _insert)
    if draw.random() < 0.03:
        return draw.choice((b"", b"\x00" * 4096, b"\xff" * 100, b"[" * 9000, b"null", b"{}", b"[]", good[::-1]))
    for _ in range(draw.randint(1, 3)):
        damaged = draw.choice(ways)(damaged, draw)
    return bytes(damaged)


def _flip(found: bytearray, draw: random.Random) -> bytearray:
    for _ in range(draw.choice((1, 1, 4, 40))):
        if found:
            found[draw.randrange(len(found))] ^= 1 << draw.randrange(8)
    return found


def _cut(found: bytearray, draw: random.Random) -> bytearray:
    return found[: draw.randrange(len(found) + 1)]


def _double(found: bytearray, draw: random.Random) -> bytearray:
    start = draw.randrange(len(found) + 1)
    end = min(len(found), start + draw.randint(1, 200))
    return found[:end] + found[start:]


def _zero(found: bytearray, draw: random.Random) -> bytearray:
    start = draw.randrange(len(found) + 1)
    end = min(len(found), start + draw.randint(1, 200))
    found[start:end] = bytes(end - start)
    return found


def _insert(found: bytearray, draw: random.Random) -> bytearray:
    start = draw.randrange(len(found) + 1)
    words = (
        b"\x00",
        b"\xff\xfe",
        b"\r",
        b"}",
        b"[",
        b'"',
        b"\xe2\x80\xa8",
        b"&a [*a,*a]",
        b"1e999",
        b"9" * 5000,
        b"\xed\xa0\x80",
    )
    return found[:start] + draw.choice(words) + found[start:]
