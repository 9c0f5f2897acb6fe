"""The seam to language and vision-language models that answer in text: messages in, a reply out.

Judges are built on it, and so is every protocol that a judge scores. Replies are kept on disk under the whole call
(`cache.py`), and `Usage` counts what they cost and what failed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from veridical.judges.interface import JudgeError
from veridical.records import ImageFile, Role


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation; its images come before its text."""

    role: Role
    text: str
    images: tuple[ImageFile, ...] = ()


@dataclass(frozen=True, slots=True)
class Call:
    """What a service is asked. `prompt` says which prompt file, in which version, the messages are made from."""

    messages: tuple[Message, ...]
    max_tokens: int = 512
    temperature: float = 0.0
    seed: int = 0
    prompt: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a service answered, what it cost in tokens, the day it was given, and whether it came from the cache."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    date: str
    cached: bool = False


@dataclass
class Usage:
    """What was asked of a service, and how it went."""

    calls: int = 0
    cached: int = 0
    retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    failures: Counter[str] = field(default_factory=Counter)
    """Calls that got no reply after all tries, and replies that could not be read after their repair, by reason."""
    repairs: int = 0
    """Replies that could not be read at first."""

    def plain(self) -> dict[str, Any]:
        """The counts as JSON values."""
        numbers = {key: getattr(self, key) for key in ("calls", "cached", "retries", "repairs")}
        tokens = {key: getattr(self, key) for key in ("prompt_tokens", "completion_tokens")}
        return numbers | tokens | {"cost": round(self.cost, 6), "failures": dict(sorted(self.failures.items()))}


class TextService(Protocol):
    """A model that answers conversations."""

    @property
    def name(self) -> str:
        """The model's id, which stands beside every number it gave."""

    @property
    def sees(self) -> bool:
        """Whether images may be in the messages."""

    @property
    def usage(self) -> Usage:
        """The counts so far."""

    def reply(self, calls: Sequence[Call]) -> list[Reply | JudgeError]:
        """A reply to each call, in order; a JudgeError where there was none after all tries.

        Raises UserError where going on is no use: a wrong key, an unknown model, a service that is gone.
        """
