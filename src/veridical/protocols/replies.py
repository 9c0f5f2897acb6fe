"""Replies of a model, kept by request: what was asked before is never asked again.

A reply depends on the model and on the request alone, so that protocols, runs and interrupted runs can share them.
All replies of a folder are in one file, each under a hash of model and request.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from veridical.protocols.eval_task import Reply
from veridical.store import Store, key_of

FILE = "replies.sqlite"
FAILED_IN_A_ROW = 8
"""So many images in a row that can't be asked about end a run."""


@dataclass
class Replies:
    """The replies of one model.

    `failed` says why a request has no reply, by digest; it is not kept on disk, so that the next run asks again.
    """

    store: Store
    model: str
    failed: dict[str, str] = field(default_factory=dict)
    _in_a_row: int = 0

    def find(self, digests: Iterable[str]) -> dict[str, Reply]:
        """The replies that there are, by the digests of requests."""
        keys = {self._key(digest): digest for digest in digests}
        kept = self.store.get_many(keys)
        return {keys[key]: reply if isinstance(reply, str) else tuple(reply) for key, reply in kept.items()}

    def add(self, replies: Mapping[str, Reply]) -> None:
        """Keep a batch of replies."""
        self.store.put_many({self._key(digest): reply for digest, reply in replies.items()})
        self._in_a_row = 0

    def set_aside(self, digests: Iterable[str], error: Exception) -> None:
        """Remember that requests about one image failed. Raises the error where too many images do in a row."""
        self._in_a_row += 1
        if self._in_a_row >= FAILED_IN_A_ROW:
            raise error
        self.failed.update(dict.fromkeys(digests, f"{type(error).__name__}: {error}"))

    def _key(self, digest: str) -> str:
        return key_of({"model": self.model, "request": digest})


def open_store(folder: Path) -> Store:
    """The file of replies in a folder. Says so where an earlier version left replies, which aren't read."""
    if any(folder.glob("*/*.jsonl")):
        print(
            f"{folder}: an earlier version left answers here as JSON lines, which aren't read: what they answered is "
            "asked again. Their folders may be deleted."
        )
    return Store(folder / FILE)
