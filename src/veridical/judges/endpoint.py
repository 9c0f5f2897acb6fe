"""Ask any OpenAI-compatible chat endpoint: vLLM, SGLang, `transformers serve`, or a company's.

Many calls are under way at a time. What may pass (429, 5xx, timeouts, cut connections, replies that are no JSON) is
tried again after a wait that doubles, with jitter; what can't be answered becomes a JudgeError of its call. An endpoint
that fails call after call ends the run with a UserError, so that nothing is rejected because a server was down.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from veridical.errors import UserError
from veridical.judges.chat_completions import NoReplyError, next_refused, read_reply, request_body
from veridical.judges.interface import JudgeError
from veridical.judges.messages import Call, Reply, Usage

if TYPE_CHECKING:
    import httpx

_PASSING = frozenset((408, 409, 425, 429, 500, 502, 503, 504, 529))
_INVALID = frozenset((400, 422))
_LONGEST_WAIT = 60.0
_LARGEST_REPLY = 16 * 2**20
_IN_A_ROW = 10
"""That many calls without a reply, none with one in between, and the endpoint counts as gone."""
_SECRET = 8
"""Shorter keys ("EMPTY", "none") are placeholders: taking them out of replies would change innocent texts."""
_HIDDEN = "[key]"
_SHOWN = 200


class _PassingError(Exception):
    """Something that may go better next time; `wait` is what the server asked for, in seconds."""

    def __init__(self, reason: str, detail: str, wait: float | None = None) -> None:
        super().__init__(detail)
        self.reason, self.wait = reason, wait


class _InvalidError(Exception):
    """The server does not take the request as it is."""


@dataclass
class _Learnt:
    """What is known of the server: calls in a row without a reply, and the parameters that it doesn't take."""

    failed: int = 0
    refused: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Endpoint:
    """A model behind a URL such as http://localhost:8000/v1."""

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
    _learnt: _Learnt = field(default_factory=_Learnt)

    @property
    def name(self) -> str:
        """The model's id."""
        return self.model

    @property
    def identity(self) -> Mapping[str, Any]:
        """The model, where it is served, and what else changes its replies."""
        more = {"extra": dict(self.extra), "longest_side": self.longest_side}
        return {"url": self.url.rstrip("/"), "model": self.model} | {key: value for key, value in more.items() if value}

    def answer(self, calls: Sequence[Call], usage: Usage, done: Callable[[int, Reply | JudgeError], None]) -> None:
        """Answer all calls, `concurrency` at a time."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            asyncio.run(self._all(calls, usage, done))
            return
        # A notebook has a loop running in this thread, beside which no second one can run.
        with ThreadPoolExecutor(1) as thread:
            thread.submit(asyncio.run, self._all(calls, usage, done)).result()

    async def _all(self, calls: Sequence[Call], usage: Usage, done: Callable[[int, Reply | JudgeError], None]) -> None:
        import httpx

        places = iter(range(len(calls)))

        async def work(client: httpx.AsyncClient) -> None:
            for place in places:
                reply = await self._patiently(client, calls[place], usage)
                done(place, reply)
                self._note(reply)

        check_url(self.url)
        key = read_key(self.key_variable)
        # Replies are short; uncompressed ones can be bounded by their size on the way.
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        headers |= {"Authorization": f"Bearer {key}"} if key else {}
        async with httpx.AsyncClient(headers=headers, timeout=self.timeout) as client:
            workers = [asyncio.create_task(work(client)) for _ in range(min(self.concurrency, len(calls)))]
            try:
                await asyncio.gather(*workers)
            finally:
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)

    def _note(self, reply: Reply | JudgeError) -> None:
        if not isinstance(reply, JudgeError):
            self._learnt.failed = 0
        elif reply.passing or reply.reason == "judge-refused":  # else it is the record's fault, such as a bad image
            self._learnt.failed += 1
        if self._learnt.failed >= _IN_A_ROW:
            raise UserError(
                f"{self._place}: the last {_IN_A_ROW} calls all failed; the last one: {reply}. Finished work is kept: "
                "mend the endpoint and run the same command again."
            )

    async def _patiently(self, client: httpx.AsyncClient, call: Call, usage: Usage) -> Reply | JudgeError:
        """The reply to one call, tried up to `tries` times, and without parameters that the server refuses."""
        refused = self._learnt.refused
        error = _PassingError("judge-unreachable", "never tried")
        attempt = 0
        while attempt < self.tries:
            if attempt:
                usage.retries += 1
                await asyncio.sleep(self._wait(attempt, error))
            try:
                reply = await self._once(client, await self._body(call, refused), usage)
            except _PassingError as failed:
                error = failed
                attempt += 1
            except _InvalidError as invalid:
                name = next_refused(str(invalid), refused)
                if name is None:
                    return JudgeError(f"{self._place}: refuses the request ({invalid})", "judge-refused")
                refused |= {name}
            except JudgeError as failure:
                return failure
            else:
                self._learnt.refused |= refused
                usage.left_out |= refused
                return reply
        message = f"{self._place}: no reply in {self.tries} tries: {error}"
        return JudgeError(message, error.reason, "run the same command again", passing=True)

    async def _body(self, call: Call, refused: frozenset[str]) -> bytes:
        try:
            return await asyncio.to_thread(
                request_body, self.model, call, refused=refused, extra=self.extra, longest_side=self.longest_side
            )
        except (UserError, OSError) as fault:  # an image that can't be shown
            reason, remedy = getattr(fault, "reason", "judge-refused"), getattr(fault, "remedy", "mend the image")
            raise JudgeError(str(fault), reason, remedy) from fault

    def _wait(self, attempt: int, error: _PassingError) -> float:
        """Seconds to wait: what the server asks for, else twice as long each time; give or take a half."""
        if error.wait is not None:
            return min(error.wait, _LONGEST_WAIT)
        # Results don't depend on it, and two processes should not wait alike: not a seeded draw.
        jitter = random.SystemRandom().uniform(0.5, 1.5)
        return min(self.first_wait * 2.0 ** (attempt - 1) * jitter, _LONGEST_WAIT)

    async def _once(self, client: httpx.AsyncClient, body: bytes, usage: Usage) -> Reply:
        import httpx

        try:
            posted = _post(client, completions_url(self.url), body)
            status, wait, content = await asyncio.wait_for(posted, self.timeout)
        except (TimeoutError, httpx.TimeoutException) as error:
            raise _PassingError("judge-timeout", f"no whole answer in {self.timeout:g} s") from error
        except httpx.InvalidURL as error:
            raise UserError(f"{self._place}: no URL ({error}); give one such as http://localhost:8000/v1.") from error
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise _PassingError("judge-unreachable", self._without_key(str(error)) or type(error).__name__) from error
        self._check(status, wait, content)
        try:
            reply = read_reply(content)
        except NoReplyError as error:
            raise _PassingError("judge-bad-reply", self._without_key(str(error))) from error
        usage.prompt_tokens += reply.prompt_tokens
        usage.completion_tokens += reply.completion_tokens
        usage.cost += (reply.prompt_tokens * self.price_in + reply.completion_tokens * self.price_out) / 1e6
        return Reply(
            self._without_key(reply.text), reply.prompt_tokens, reply.completion_tokens, reply.date, reply.finished
        )

    def _check(self, status: int, wait: float | None, content: bytes) -> None:
        said = self._without_key(content[: 20 * _SHOWN].decode(errors="replace"))
        detail = said[:_SHOWN]
        if status in _PASSING:
            raise _PassingError(f"judge-http-{status}", f"status {status}: {detail}", wait)
        if status in (401, 403):
            raise UserError(
                f"{self._place}: refuses the key (status {status}). Put a valid one into the environment variable "
                f"{self.key_variable}."
            )
        if status == 404:
            raise UserError(f"{self._place}: knows no model {self.model!r}, or has no chat completions: {detail}")
        if status in _INVALID:
            raise _InvalidError(f"status {status}: {said}"[: 5 * _SHOWN])
        if status != 200:
            raise JudgeError(f"{self._place}: refuses the request (status {status}): {detail}", "judge-refused")

    @property
    def _place(self) -> str:
        """The URL without what may be secret in it."""
        parts = urlsplit(self.url)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))

    def _without_key(self, text: str) -> str:
        key = read_key(self.key_variable)
        return text.replace(key, _HIDDEN) if len(key) >= _SECRET else text


async def _post(client: httpx.AsyncClient, url: str, body: bytes) -> tuple[int, float | None, bytes]:
    """Status, wait asked for, and content of a response. Raises _PassingError for one that is too large."""
    async with client.stream("POST", url, content=body) as response:
        parts, size = [], 0
        async for part in response.aiter_bytes():
            size += len(part)
            if size > _LARGEST_REPLY:
                raise _PassingError("judge-bad-reply", f"the reply is larger than {_LARGEST_REPLY // 2**20} MiB")
            parts.append(part)
        return response.status_code, _retry_after(response), b"".join(parts)


def completions_url(url: str) -> str:
    """Where chat completions are asked for: the path goes before a query such as ?api-version=1."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/chat/completions"))


def check_url(url: str) -> None:
    """Raise UserError for what is no URL, or has a key in it, which settings files would show."""
    try:
        parts = urlsplit(url)
        asked = [name.lower() for name, _ in parse_qsl(parts.query)]
        good = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        raise UserError("The judge's url is no URL; give one such as http://localhost:8000/v1.") from None
    if "@" in parts.netloc or any(word in name for name in asked for word in ("key", "token", "secret", "password")):
        raise UserError(
            "The judge's url holds a password or a key, which would be written into settings files; take it out, and "
            "put the key into the environment variable that --judge.key-variable names."
        )
    if not good:
        raise UserError(f"{url}: no URL; give one such as http://localhost:8000/v1.")


def read_key(variable: str) -> str:
    """The key in an environment variable, without spaces and line ends around it; "" where there is none.

    Raises UserError, without the key, for one that no HTTP header can hold.
    """
    key = os.environ.get(variable, "").strip()
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise UserError(
            f"The key in the environment variable {variable} holds spaces, line ends or letters that no key has; set "
            "it again."
        )
    return key


def read_extra(text: str) -> dict[str, Any]:
    """Further fields of a request, given as JSON. Raises UserError for what is no JSON object."""
    try:
        content = json.loads(text or "{}")
    except (ValueError, RecursionError) as error:
        raise UserError(f'extra_body is no JSON ({error}); give an object such as {{"top_p": 0.9}}.') from error
    if not isinstance(content, dict):
        raise UserError(f'extra_body is no JSON object: {text}; give one such as {{"top_p": 0.9}}.')
    return content


def _retry_after(response: httpx.Response) -> float | None:
    try:
        seconds = float(response.headers["retry-after"])
    except (KeyError, ValueError):
        return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
