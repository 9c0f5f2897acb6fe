"""Random numbers that depend on a key and on nothing else: not on order, batch size or process."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy

Key = Sequence[str | int]


def generator(purpose: str, key: Key) -> numpy.random.Generator:
    """A NumPy generator for one purpose and one key; `("a", 1)` and `("a", "1")` differ."""
    import numpy

    digest = hashlib.sha256(json.dumps([purpose, *key], ensure_ascii=False).encode()).digest()
    return numpy.random.Generator(numpy.random.PCG64(int.from_bytes(digest[:16], "big")))
