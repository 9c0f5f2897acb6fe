"""Read large JSON files value by value, with Python's own parser, so that NaN and every character are as it has them.

A damaged value in an array or an object is skipped and reported, since it ends where its brackets close; only a file
that was cut short ends the reading.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import IO, Any, TypeAlias

CHUNK = 2**18
MAX_VALUE = 64 * 2**20
"""Characters of one value, above which a file is refused, so that memory stays bounded."""
_DECODER = json.JSONDecoder(strict=False)
"""Takes line breaks and tabs inside texts as they are, which writers of their own forget to escape."""
_BLANK = re.compile(r"[\s,]*")
_TOKEN = re.compile(r'"(?:[^"\\\n]|\\.)*(?:"|\n|\\?\Z)|[\[\]{}]', re.DOTALL)
"""A string, also one that its line or the text in memory ends before its second quote; or a bracket."""
_BARE = re.compile(r"[,\]}\n]")


class BadValueError(ValueError):
    """One value that isn't JSON; those after it can be read."""


class CutShortError(ValueError):
    """The file ends within a value, or isn't JSON from some place on."""


Value: TypeAlias = Any | BadValueError


def array_items(file: IO[bytes]) -> Iterator[Value]:
    """The items of an array at the top of a file. Raises CutShortError."""
    text = _Text(file)
    text.expect("[")
    while (ahead := text.ahead()) != "]":
        if not ahead:
            raise CutShortError("the file ends before its list does")
        yield text.value()
    text.finish()


def members(file: IO[bytes]) -> Iterator[tuple[str, Value]]:
    """The keys and values of an object at the top of a file. Raises CutShortError."""
    text = _Text(file)
    text.expect("{")
    while (ahead := text.ahead()) != "}":
        if ahead != '"':
            raise CutShortError(f"{ahead} where a key should be" if ahead else "the file ends before its object does")
        key = text.value()
        text.expect(":")
        yield str(key), text.value()
    text.finish()


class _Text:
    """A file's text and the place that has been read to; text before it is forgotten."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._buffer, self._place = "", 0

    def _more(self, size: int = CHUNK) -> bool:
        content = self._file.read(size)
        self._buffer = self._buffer[self._place :] + self._decoder.decode(content, not content)
        self._place = 0
        return bool(content)

    def ahead(self) -> str:
        """The next character that is neither blank nor a comma; empty at the end."""
        while True:
            match = _BLANK.match(self._buffer, self._place)
            self._place = match.end() if match else self._place
            if self._place < len(self._buffer):
                return self._buffer[self._place]
            if not self._more():
                return ""

    def expect(self, wanted: str) -> None:
        """Read one character. Raises CutShortError where it is another one."""
        if (ahead := self.ahead()) != wanted:
            raise CutShortError(f"{ahead or 'the end'} where {wanted} should be")
        self._place += 1

    def finish(self) -> None:
        """Read the last bracket. Raises CutShortError where something follows it."""
        self._place += 1
        if self.ahead():
            raise CutShortError("more follows after its last bracket")

    def value(self) -> Value:
        """Read the next value, or the damage in its place. Raises CutShortError where the file ends within it."""
        self.ahead()
        size = CHUNK
        while True:
            try:
                found, end = _DECODER.raw_decode(self._buffer, self._place)
                if end < len(self._buffer) or self._buffer[end - 1] in '"}]' or not self._more():
                    self._place = end
                    return found
                continue  # a number may go on
            except (ValueError, RecursionError) as error:
                if (close := self._end()) is not None:
                    self._place = close
                    return BadValueError(str(error).partition(": line")[0] or "nested too deeply")
            if len(self._buffer) - self._place > MAX_VALUE:
                raise CutShortError(f"a value is over {MAX_VALUE >> 20} MiB, or its quotes don't match")
            if not self._more(size):
                raise CutShortError("the file ends within a value")
            size *= 2

    def _end(self) -> int | None:
        """Where a damaged value ends, by its brackets; None where that isn't in memory yet."""
        if self._buffer[self._place : self._place + 1] not in tuple('"[{'):
            bare = _BARE.search(self._buffer, self._place)
            if bare is not None and bare.start() == self._place:
                raise CutShortError(f"{bare[0]} where a value should be")
            return bare.start() if bare else None
        depth = 0
        for token in _TOKEN.finditer(self._buffer, self._place):
            if token[0][0] == '"':
                if token[0][-1] not in '"\n' or len(token[0]) == 1:
                    return None
            else:
                depth += 1 if token[0] in "[{" else -1
            if depth <= 0:
                return token.end()
        return None
