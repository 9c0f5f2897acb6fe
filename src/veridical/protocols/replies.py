"""Replies of a model, kept by request: what was asked before is never asked again.

A reply depends on the model and on the request alone, so that protocols, runs and interrupted runs can share
them. Each batch is a file that appears whole or not at all.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from veridical.errors import UserError
from veridical.files import write_text
from veridical.protocols.eval_task import Reply

FAILED_IN_A_ROW = 8
"""So many images in a row that can't be asked about end a run."""


class Replies:
    """The replies of one model, in memory and in a folder."""

    def __init__(self, folder: Path) -> None:
        """Read what is there. Raises UserError for a file that holds something else."""
        self._folder = folder
        self._found: dict[str, Reply] = {}
        self.failed: dict[str, str] = {}
        """Why a request has no reply, by digest; not kept on disk, so that the next run asks again."""
        self._in_a_row = 0
        self._files = sorted(folder.glob("*.jsonl")) if folder.is_dir() else []
        for path in self._files:
            self._found.update(_read(path))

    def __contains__(self, digest: str) -> bool:
        """Whether there is a reply to the request with this digest."""
        return digest in self._found

    def __getitem__(self, digest: str) -> Reply:
        """The reply to the request with this digest."""
        return self._found[digest]

    def add(self, replies: Mapping[str, Reply]) -> None:
        """Keep a batch of replies."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{len(self._files):06d}-{os.getpid()}.jsonl"
        write_text(path, "".join(_line(digest, reply) for digest, reply in replies.items()))
        self._files.append(path)
        self._found.update(replies)
        self._in_a_row = 0

    def set_aside(self, digests: Iterable[str], error: Exception) -> None:
        """Remember that requests about one image failed. Raises the error where too many images do in a row."""
        self._in_a_row += 1
        if self._in_a_row >= FAILED_IN_A_ROW:
            raise error
        self.failed.update(dict.fromkeys(digests, f"{type(error).__name__}: {error}"))

    def compact(self) -> None:
        """Put the batches into one file."""
        if len(self._files) < 2:
            return
        whole = self._folder / f"000000-{os.getpid()}-all.jsonl"
        write_text(whole, "".join(_line(digest, reply) for digest, reply in sorted(self._found.items())))
        for path in self._files:
            if path != whole:
                path.unlink(missing_ok=True)
        self._files = [whole]


def _line(digest: str, reply: Reply) -> str:
    content = {"text": reply} if isinstance(reply, str) else {"logprobs": list(reply)}
    return json.dumps({"request": digest, **content}, ensure_ascii=False) + "\n"


def _read(path: Path) -> dict[str, Reply]:
    found: dict[str, Reply] = {}
    try:
        # Not splitlines(): a text may hold characters that end a line elsewhere but not in JSON lines.
        for line in path.read_text(encoding="utf-8").split("\n"):
            if line:
                row = json.loads(line)
                found[row["request"]] = row["text"] if "text" in row else tuple(row["logprobs"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: no replies of a model ({error}); delete it to ask again.") from None
    return found
