"""Keep the replies of services on disk, under a hash of the whole request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from veridical.judges.messages import Call, ChatMessage, Reply
from veridical.store import Store, key_of

FILE = "replies.sqlite"


@dataclass(frozen=True)
class Cache:
    """The replies in a folder. An entry that can't be read counts as missing."""

    folder: Path
    store: Store = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "store", Store(self.folder / FILE))

    def get(self, identity: Mapping[str, Any], call: Call) -> Reply | None:
        """The reply to a call of the service that `identity` describes; None where there is none."""
        kept = self.store.get(key_of(_asked(identity, call)))
        try:
            return None if kept is None else Reply(**kept["reply"], cached=True)
        except (KeyError, TypeError):
            return None

    def put(self, identity: Mapping[str, Any], call: Call, reply: Reply) -> None:
        """Store a reply together with its request, in which images are hashes."""
        kept = asdict(reply)
        del kept["cached"]
        asked = _asked(identity, call)
        self.store.put(key_of(asked), {"asked": asked, "reply": kept})

    def forget(self, identity: Mapping[str, Any], call: Call) -> None:
        """Remove a reply that was of no use."""
        self.store.forget([key_of(_asked(identity, call))])


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
