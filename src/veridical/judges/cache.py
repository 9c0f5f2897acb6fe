"""Replies of services on disk, under a hash of everything that was asked."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from veridical.files import read_json, write_json
from veridical.judges.messages import Call, ChatMessage, Reply


def default_folder() -> Path:
    """Where replies are kept for all runs of a user."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "veridical" / "replies"


@dataclass(frozen=True)
class Cache:
    """A folder with one JSON file a reply. A file that can't be read counts as absent."""

    folder: Path

    def get(self, identity: Mapping[str, Any], call: Call) -> Reply | None:
        """The reply to a call of the service that `identity` describes; None where there is none."""
        try:
            kept = read_json(self._path(identity, call))
            return Reply(**kept["reply"], cached=True)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def put(self, identity: Mapping[str, Any], call: Call, reply: Reply) -> None:
        """Keep a reply, with what was asked beside it. Images stand there by their hash."""
        kept = asdict(reply)
        del kept["cached"]
        write_json(self._path(identity, call), {"asked": _asked(identity, call), "reply": kept})

    def forget(self, identity: Mapping[str, Any], call: Call) -> None:
        """Drop a reply that was of no use."""
        self._path(identity, call).unlink(missing_ok=True)

    def _path(self, identity: Mapping[str, Any], call: Call) -> Path:
        text = json.dumps(_asked(identity, call), sort_keys=True, ensure_ascii=False)
        digest = hashlib.sha256(text.encode()).hexdigest()
        return self.folder / digest[:2] / f"{digest}.json"


def _asked(identity: Mapping[str, Any], call: Call) -> dict[str, Any]:
    return {
        "service": dict(identity),
        "messages": [_plain(message) for message in call.messages],
        "max_tokens": call.max_tokens,
        "temperature": call.temperature,
        "seed": call.seed,
    }


def _plain(message: ChatMessage) -> dict[str, Any]:
    return {"role": message.role, "text": message.text, "images": [image.sha256 for image in message.images]}
