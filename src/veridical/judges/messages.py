"""The seam to language and vision-language models that answer in text: messages in, a reply out.

Judges are built on it, and so is every protocol that a judge scores. A `Service` keeps replies on disk under the whole
call and counts what they cost and what failed; a `Backend` is where they come from: an endpoint or a local model.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from veridical.judges.interface import JudgeError
from veridical.records import ImageFile, Role


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One turn of a conversation; its images come before its text."""

    role: Role
    text: str
    images: tuple[ImageFile, ...] = ()


@dataclass(frozen=True, slots=True)
class Call:
    """What a service is asked. `prompt` says which prompt file, in which version, the messages are made from."""

    messages: tuple[ChatMessage, ...]
    max_tokens: int = 512
    temperature: float = 0.0
    seed: int = 0
    prompt: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a service answered, its tokens, the day it was given, and whether it came to its end by itself."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    date: str
    finished: bool = True
    cached: bool = False


@dataclass
class Usage:
    """What was asked of a service, and how it went. Tokens and cost are of calls that were really made."""

    calls: int = 0
    cached: int = 0
    retries: int = 0
    repairs: int = 0
    """Replies that could not be read at first."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    failures: Counter[str] = field(default_factory=Counter)
    """Calls without a reply after all tries, and replies that could not be read after their repair, by reason."""
    prompts: Counter[str] = field(default_factory=Counter)
    """Calls by the prompt that they were made from: its name, version and hash."""
    dates: set[str] = field(default_factory=set)
    """The days on which the replies were given."""
    left_out: set[str] = field(default_factory=set)
    """Parameters of requests that the server doesn't take; max_tokens is then sent as max_completion_tokens."""

    def plain(self) -> dict[str, Any]:
        """The counts as JSON values."""
        numbers = ("calls", "cached", "retries", "repairs", "prompt_tokens", "completion_tokens")
        counts = {key: getattr(self, key) for key in numbers}
        return counts | {
            "cost": round(self.cost, 6),
            "failures": dict(sorted(self.failures.items())),
            "prompts": dict(sorted(self.prompts.items())),
            "dates": sorted({min(self.dates), max(self.dates)}) if self.dates else [],
            **({"left_out": sorted(self.left_out)} if self.left_out else {}),
        }

    def clear(self) -> None:
        """Count from nothing."""
        vars(self).update(vars(Usage()))

    def add(self, earlier: Mapping[str, Any]) -> None:
        """Add counts that `plain` gave, as of an earlier part of the same run."""
        for key, value in earlier.items():
            if key in ("failures", "prompts", "dates", "left_out"):
                getattr(self, key).update(value)
            else:
                setattr(self, key, getattr(self, key) + value)


class TextService(Protocol):
    """A model that answers conversations."""

    @property
    def name(self) -> str:
        """The model's id, which is reported with every number it gave."""

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

    def forget(self, call: Call) -> None:
        """Drop the kept reply to a call, because it was of no use."""


class Backend(Protocol):
    """Where replies come from."""

    @property
    def name(self) -> str:
        """The model's id."""

    @property
    def sees(self) -> bool:
        """Whether images may be in the messages."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """What tells this model from others, as JSON values; part of every cache key."""

    def answer(self, calls: Sequence[Call], usage: Usage, done: Callable[[int, Reply | JudgeError], None]) -> None:
        """Answer all calls, and say each reply at once by `done(place, reply)`. Raises UserError as `reply` does."""


class ReplyCache(Protocol):
    """Where replies are kept, under the whole call and what tells the service from others."""

    def get(self, identity: Mapping[str, Any], call: Call) -> Reply | None:
        """The reply to a call; None where there is none."""

    def put(self, identity: Mapping[str, Any], call: Call, reply: Reply) -> None:
        """Keep a reply."""

    def forget(self, identity: Mapping[str, Any], call: Call) -> None:
        """Remove a reply."""


@dataclass(frozen=True)
class Service:
    """A backend with a cache and counts. Equal calls are made once."""

    backend: Backend
    cache: ReplyCache | None = None
    usage: Usage = field(default_factory=Usage)
    _counting: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @property
    def name(self) -> str:
        """The model's id."""
        return self.backend.name

    @property
    def sees(self) -> bool:
        """Whether images may be in the messages."""
        return self.backend.sees

    def reply(self, calls: Sequence[Call]) -> list[Reply | JudgeError]:
        """Reply to each call, from the cache where possible; new replies are cached as they come."""
        replies: dict[Call, Reply | JudgeError] = {}
        for call in dict.fromkeys(calls):
            kept = self.cache.get(self.backend.identity, call) if self.cache else None
            if kept is not None:
                replies[call] = kept
        todo = [call for call in dict.fromkeys(calls) if call not in replies]
        with self._counting:  # several records may ask at the same time
            self.usage.calls += len(calls)
            self.usage.cached += len(calls) - len(todo)
            self.usage.prompts.update(call.prompt for call in calls if call.prompt)

        def done(place: int, reply: Reply | JudgeError) -> None:
            replies[todo[place]] = reply
            if isinstance(reply, JudgeError):
                self.usage.failures[reply.reason] += 1
            elif self.cache:
                self.cache.put(self.backend.identity, todo[place], reply)

        if todo:
            self.backend.answer(todo, self.usage, done)
        with self._counting:
            self.usage.dates |= {reply.date for reply in replies.values() if isinstance(reply, Reply)}
        return [replies[call] for call in calls]

    def forget(self, call: Call) -> None:
        """Drop the kept reply to a call."""
        if self.cache:
            self.cache.forget(self.backend.identity, call)
