"""Ask any OpenAI-compatible chat endpoint: vLLM, SGLang, `transformers serve`, or a company's.

Many calls are under way at a time, over connections that last (`veridical.http_client`). What can't be answered becomes
a JudgeError of its call; an endpoint that fails call after call ends the run with a UserError.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from veridical.errors import UserError
from veridical.http_client import CallError, HttpClient, gather
from veridical.judges.chat_completions import next_refused, read_reply, request_body
from veridical.judges.interface import JudgeError
from veridical.judges.messages import Call, Reply, Usage
from veridical.lanes import Lane

COMPLETIONS = "/chat/completions"


@dataclass(frozen=True)
class Endpoint:
    """A model at a URL such as http://localhost:8000/v1."""

    url: str
    model: str
    sees: bool
    key_variable: str = "OPENAI_API_KEY"
    """The environment variable that holds the key; it is sent to `url` and nowhere else, and never written."""
    concurrency: int = 8
    timeout: float = 120.0
    """Seconds for a whole reply, from the first byte sent to the last received."""
    tries: int = 6
    first_wait: float = 1.0
    price_in: float = 0.0
    price_out: float = 0.0
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of every request's JSON."""
    longest_side: int = 0
    """Larger images are scaled down to this many pixels; 0 sends them as they are."""

    @property
    def name(self) -> str:
        """The model's id."""
        return self.model

    @property
    def identity(self) -> Mapping[str, Any]:
        """The model, where it is served, and what else changes its replies."""
        more = {"extra": dict(self.extra), "longest_side": self.longest_side}
        return {"url": self.url.rstrip("/"), "model": self.model} | {key: value for key, value in more.items() if value}

    @property
    def lane(self) -> Lane:
        """Where calls wait: an endpoint works beside this process."""
        return Lane(f"{self.client.place} {self.model}", self.concurrency)

    @cached_property
    def client(self) -> HttpClient:
        """The connections, which last as long as this does."""
        return HttpClient(
            self.url, self.key_variable, self.concurrency, self.timeout, self.tries, self.first_wait, "judge"
        )

    def answer(self, calls: Sequence[Call], usage: Usage, done: Callable[[int, Reply | JudgeError], None]) -> None:
        """Answer all calls, `concurrency` at a time; several threads may."""
        self.client.run(self._all(calls, usage, done))

    async def _all(self, calls: Sequence[Call], usage: Usage, done: Callable[[int, Reply | JudgeError], None]) -> None:
        async def one(place: int) -> None:
            try:
                reply: Reply | JudgeError = await self._reply(calls[place], usage)
            except CallError as error:
                reply = JudgeError(str(error), error.reason, error.remedy or _AGAIN, passing=error.passing)
            except JudgeError as error:
                reply = error
            done(place, reply)
            self.client.note(reply if isinstance(reply, JudgeError) else None)

        await gather([one(place) for place in range(len(calls))])

    async def _reply(self, call: Call, usage: Usage) -> Reply:
        async def body(refused: frozenset[str]) -> bytes:
            return await self._body(call, refused)

        def retried() -> None:
            usage.retries += 1

        unknown = f"knows no model {self.model!r}, or has no chat completions"
        reply = await self.client.call(
            COMPLETIONS, body, read_reply, next_refused=next_refused, retried=retried, unknown=unknown
        )
        usage.left_out |= self.client.learnt.refused
        usage.prompt_tokens += reply.prompt_tokens
        usage.completion_tokens += reply.completion_tokens
        usage.cost += (reply.prompt_tokens * self.price_in + reply.completion_tokens * self.price_out) / 1e6
        text = self.client.without_key(reply.text)
        return Reply(text, reply.prompt_tokens, reply.completion_tokens, reply.date, reply.finished)

    async def _body(self, call: Call, refused: frozenset[str]) -> bytes:
        try:
            return await asyncio.to_thread(
                request_body, self.model, call, refused=refused, extra=self.extra, longest_side=self.longest_side
            )
        except (UserError, OSError) as fault:  # an image that can't be shown
            reason, remedy = getattr(fault, "reason", "judge-refused"), getattr(fault, "remedy", "mend the image")
            raise JudgeError(str(fault), reason, remedy) from fault


_AGAIN = "run again, or take another judge"


def read_extra(text: str) -> dict[str, Any]:
    """Further fields of a request, given as JSON. Raises UserError for what is no JSON object."""
    try:
        content = json.loads(text or "{}")
    except (ValueError, RecursionError) as error:
        raise UserError(f'extra_body is no JSON ({error}); give an object such as {{"top_p": 0.9}}.') from error
    if not isinstance(content, dict):
        raise UserError(f'extra_body is no JSON object: {text}; give one such as {{"top_p": 0.9}}.')
    return content
