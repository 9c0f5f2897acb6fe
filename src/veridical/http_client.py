"""Call a JSON endpoint: many calls at a time over long-lived connections, patient with what may pass.

What may pass (429, 5xx, timeouts, cut connections, replies that can't be read) is tried again after a wait that
doubles, with jitter. An endpoint that fails call after call ends the run with a UserError, so that nothing is rejected
because a server was down.
"""

from __future__ import annotations

import asyncio
import math
import os
import random
import threading
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from veridical.errors import UserError

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")
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


class BadReplyError(ValueError):
    """What a server sent is not what it was asked for; the message says what it is instead."""


class CallError(Exception):
    """A call without a reply: `reason` is a stable slug, `passing` says that it may have one later."""

    def __init__(self, message: str, reason: str, remedy: str = "", *, passing: bool = False) -> None:
        super().__init__(message)
        self.reason, self.remedy, self.passing = reason, remedy, passing


class UnknownError(UserError):
    """The server knows nothing under what was asked for: a status of 404."""


class _PassingError(Exception):
    """Something that may go better next time; `wait` is what the server asked for, in seconds."""

    def __init__(self, reason: str, detail: str, wait: float | None = None) -> None:
        super().__init__(detail)
        self.reason, self.wait = reason, wait


class _InvalidError(Exception):
    """The server does not take the request as it is."""


class _Thread:
    """An event loop in a thread of its own, in which an endpoint's connections live from call to call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = 0
        self.client: httpx.AsyncClient | None = None
        self.room: asyncio.Semaphore | None = None

    def run(self, job: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine in this thread. What interrupts the waiting cancels it."""
        future: Future[T] = asyncio.run_coroutine_threadsafe(job, self._started())
        try:
            return future.result()
        finally:
            future.cancel()

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None or self._process != os.getpid():
                self._loop, self._process = asyncio.new_event_loop(), os.getpid()
                self.client = self.room = None
                threading.Thread(target=self._loop.run_forever, name="endpoint", daemon=True).start()
                weakref.finalize(self, self._loop.call_soon_threadsafe, self._loop.stop)
            return self._loop


@dataclass
class Learnt:
    """What is known of a server: calls in a row without a reply, the parameters that it doesn't take, and how often a
    connection broke, after which another server may be there."""

    failed: int = 0
    refused: frozenset[str] = frozenset()
    broken: int = 0


@dataclass(frozen=True)
class HttpClient:
    """An endpoint such as http://localhost:8000/v1, with its limits."""

    url: str
    key_variable: str = "OPENAI_API_KEY"
    """The environment variable that holds the key; it is sent to `url` and nowhere else, and never written."""
    concurrency: int = 8
    timeout: float = 120.0
    """Seconds for a whole reply, from the first byte sent to the last received."""
    tries: int = 6
    first_wait: float = 1.0
    who: str = "judge"
    """What reasons of failures begin with."""
    learnt: Learnt = field(default_factory=Learnt, compare=False)
    _thread: _Thread = field(default_factory=_Thread, repr=False, compare=False)

    def run(self, job: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine that makes calls; any number of threads may wait for theirs."""
        return self._thread.run(job)

    async def call(
        self,
        path: str,
        body: Callable[[frozenset[str]], Awaitable[bytes]],
        read: Callable[[bytes], T],
        *,
        next_refused: Callable[[str, frozenset[str]], str | None] = lambda _message, _refused: None,
        retried: Callable[[], None] = lambda: None,
        unknown: str = "knows nothing there",
    ) -> T:
        """What `read` makes of the reply to a POST, tried up to `tries` times.

        `body` makes the request without the parameters that the server has refused; `next_refused` finds another of
        them in a refusal. `unknown` is what a status of 404 means. Raises CallError without a reply, and UserError
        where going on is no use.
        """
        async with await self._room():
            return await self._patiently(path, body, read, next_refused, retried, unknown)

    async def _patiently(
        self,
        path: str,
        body: Callable[[frozenset[str]], Awaitable[bytes]],
        read: Callable[[bytes], T],
        next_refused: Callable[[str, frozenset[str]], str | None],
        retried: Callable[[], None],
        unknown: str,
    ) -> T:
        refused = self.learnt.refused
        error = _PassingError("unreachable", "never tried")
        attempt = 0
        while attempt < self.tries:
            if attempt:
                retried()
                await asyncio.sleep(self._wait(attempt, error))
            try:
                status, wait, content = await self._once("POST", path, await body(refused))
                self._check(status, wait, content, unknown)
                reply = read(content)
            except BadReplyError as bad:
                error = _PassingError("bad-reply", self.without_key(str(bad)))
                attempt += 1
            except _PassingError as failed:
                error = failed
                attempt += 1
            except _InvalidError as invalid:
                name = next_refused(str(invalid), refused)
                if name is None:
                    message = f"{self.place}: refuses the request ({invalid})"
                    raise CallError(message, f"{self.who}-refused") from None
                refused |= {name}
            else:
                self.learnt.refused |= refused
                return reply
        message = f"{self.place}: no reply in {self.tries} tries: {error}"
        raise CallError(message, f"{self.who}-{error.reason}", "run the same command again", passing=True)

    async def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """Status and content of a single request, whatever the status; tried again where the server is busy or gone.

        Raises CallError where there is no answer at all.
        """
        error = _PassingError("unreachable", "never tried")
        for attempt in range(self.tries):
            if attempt:
                await asyncio.sleep(self._wait(attempt, error))
            try:
                async with await self._room():
                    status, wait, content = await self._once(method, path, body)
            except _PassingError as failed:
                error = failed
                continue
            if status in (401, 403):
                raise self._wrong_key(status)
            if status not in (408, 425, 429, 503, 529):
                return status, content
            error = _PassingError(f"http-{status}", f"status {status}", wait)
        message = f"{self.place}: no reply in {self.tries} tries: {error}"
        raise CallError(message, f"{self.who}-{error.reason}", "start the server", passing=True)

    def note(self, failure: BaseException | None) -> None:
        """Count a call's failure, or that it had none. Raises UserError where too many in a row have failed."""
        if failure is None:
            self.learnt.failed = 0
        # Else it is the record's fault, such as a bad image.
        elif getattr(failure, "passing", False) or getattr(failure, "reason", "") == f"{self.who}-refused":
            self.learnt.failed += 1
        if self.learnt.failed >= _IN_A_ROW:
            raise UserError(
                f"{self.place}: the last {_IN_A_ROW} calls all failed; the last one: {failure}. Finished work is kept: "
                "mend the endpoint and run the same command again."
            )

    async def _room(self) -> asyncio.Semaphore:
        if self._thread.room is None:
            self._thread.room = asyncio.Semaphore(self.concurrency)
        return self._thread.room

    async def _connections(self) -> httpx.AsyncClient:
        import httpx

        if self._thread.client is None:
            limits = httpx.Limits(max_connections=self.concurrency + 1, max_keepalive_connections=self.concurrency)
            self._thread.client = httpx.AsyncClient(timeout=self.timeout, limits=limits)
        return self._thread.client

    def _wait(self, attempt: int, error: _PassingError) -> float:
        """Seconds to wait: what the server asks for, else twice as long each time; give or take a half."""
        if error.wait is not None:
            return min(error.wait, _LONGEST_WAIT)
        # Results don't depend on it, and two processes should not wait alike: not a seeded draw.
        jitter = random.SystemRandom().uniform(0.5, 1.5)
        return min(self.first_wait * 2.0 ** (attempt - 1) * jitter, _LONGEST_WAIT)

    async def _once(self, method: str, path: str, body: bytes) -> tuple[int, float | None, bytes]:
        import httpx

        check_url(self.url, self.who)
        key = read_key(self.key_variable)
        # Replies are short; uncompressed ones can be bounded by their size on the way.
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        headers |= {"Authorization": f"Bearer {key}"} if key else {}
        try:
            client = await self._connections()
            sent = _send(client, method, join(self.url, path), body, headers)
            return await asyncio.wait_for(sent, self.timeout)
        except (TimeoutError, httpx.TimeoutException) as error:
            raise _PassingError("timeout", f"no whole answer in {self.timeout:g} s") from error
        except httpx.InvalidURL as error:
            raise UserError(f"{self.place}: no URL ({error}); give one such as http://localhost:8000/v1.") from error
        except (httpx.TransportError, httpx.DecodingError) as error:
            self.learnt.broken += 1
            raise _PassingError("unreachable", self.without_key(str(error)) or type(error).__name__) from error

    def _check(self, status: int, wait: float | None, content: bytes, unknown: str) -> None:
        said = self.without_key(content[: 20 * _SHOWN].decode(errors="replace"))
        detail = said[:_SHOWN]
        if status in _PASSING:
            raise _PassingError(f"http-{status}", f"status {status}: {detail}", wait)
        if status in (401, 403):
            raise self._wrong_key(status)
        if status == 404:
            raise UnknownError(f"{self.place}: {unknown}: {detail}")
        if status in _INVALID:
            raise _InvalidError(f"status {status}: {said}"[: 5 * _SHOWN])
        if status != 200:
            message = f"{self.place}: refuses the request (status {status}): {detail}"
            raise CallError(message, f"{self.who}-refused")

    def _wrong_key(self, status: int) -> UserError:
        return UserError(
            f"{self.place}: refuses the key (status {status}). Put a valid one into the environment variable "
            f"{self.key_variable}."
        )

    @property
    def place(self) -> str:
        """The URL without what may be secret in it."""
        parts = urlsplit(self.url)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))

    def without_key(self, text: str) -> str:
        """A text of the server's without the key, should it repeat that."""
        key = read_key(self.key_variable)
        return text.replace(key, _HIDDEN) if len(key) >= _SECRET else text


async def gather(jobs: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of coroutines that run at the same time; the first exception cancels the others."""
    tasks = [asyncio.ensure_future(job) for job in jobs]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _send(
    client: httpx.AsyncClient, method: str, url: str, body: bytes, headers: dict[str, str]
) -> tuple[int, float | None, bytes]:
    """Status, wait asked for, and content of a response. Raises _PassingError for one that is too large."""
    async with client.stream(method, url, content=body or None, headers=headers) as response:
        parts, size = [], 0
        async for part in response.aiter_bytes():
            size += len(part)
            if size > _LARGEST_REPLY:
                raise _PassingError("bad-reply", f"the reply is larger than {_LARGEST_REPLY // 2**20} MiB")
            parts.append(part)
        return response.status_code, _retry_after(response), b"".join(parts)


def join(url: str, path: str) -> str:
    """The URL of a path below an endpoint's; it goes before a query such as ?api-version=1. A path that begins with
    "//" is one beside the endpoint's last part: `//tokenize` of http://host/v1 is http://host/tokenize."""
    parts = urlsplit(url)
    base = parts.path.rstrip("/")
    if path.startswith("//"):
        base, path = base.rpartition("/")[0], path[1:]
    return urlunsplit(parts._replace(path=f"{base}{path}"))


def check_url(url: str, who: str = "judge") -> None:
    """Raise UserError for what is no URL, or has a key in it, which settings files would show."""
    try:
        parts = urlsplit(url)
        asked = [name.lower() for name, _ in parse_qsl(parts.query)]
        good = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        raise UserError(f"The {who}'s url is no URL; give one such as http://localhost:8000/v1.") from None
    if "@" in parts.netloc or any(word in name for name in asked for word in ("key", "token", "secret", "password")):
        raise UserError(
            f"The {who}'s url holds a password or a key, which would be written into settings files; take it out, and "
            f"put the key into the environment variable that --{who}.key-variable names."
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


def _retry_after(response: httpx.Response) -> float | None:
    try:
        seconds = float(response.headers["retry-after"])
    except (KeyError, ValueError):
        return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
