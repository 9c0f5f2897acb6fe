"""Which of very many texts were there before, in 16 bytes each: millions of ids need no memory to speak of."""

from __future__ import annotations

import hashlib
from collections import Counter

_SIZE = 16
_EMPTY = bytes(_SIZE)


class Seen:
    """A set of texts that knows them by 128 bits of their hash: an open-addressing table in one block of memory."""

    def __init__(self) -> None:
        """Begin with no text."""
        self._slots, self._count = 1024, 0
        self._table = bytearray(self._slots * _SIZE)

    def __len__(self) -> int:
        return self._count

    def add(self, text: str) -> bool:
        """Take a text in; whether it is new."""
        if 2 * self._count >= self._slots:
            self._grow()
        key = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_SIZE).digest()
        if not self._put(key):
            return False
        self._count += 1
        return True

    def _put(self, key: bytes) -> bool:
        table, last = self._table, self._slots - 1
        slot = int.from_bytes(key[:8], "little") & last
        while True:
            start = slot * _SIZE
            found = table[start : start + _SIZE]
            if found == key:
                return False
            if found == _EMPTY:
                table[start : start + _SIZE] = key
                return True
            slot = (slot + 1) & last

    def _grow(self) -> None:
        before = self._table
        self._slots *= 2
        self._table = bytearray(self._slots * _SIZE)
        for start in range(0, len(before), _SIZE):
            key = bytes(before[start : start + _SIZE])
            if key != _EMPTY:
                self._put(key)


class Occurrences:
    """How often each of very many names came; only those that came again are held as they are."""

    def __init__(self) -> None:
        """Begin with none."""
        self._once, self._more = Seen(), Counter[str]()

    def count(self, name: str) -> int:
        """Count a name; how often it has come by now."""
        if self._once.add(name):
            return 1
        self._more[name] += 1
        return self._more[name] + 1
