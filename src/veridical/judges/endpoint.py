"""Any OpenAI-compatible chat endpoint: vLLM, SGLang, `transformers serve`, or a company's.

Many calls are under way at a time. What may pass (429, 5xx, timeouts, cut connections, replies that are no JSON) is
tried again after a wait that doubles, with jitter; what can't be answered becomes a JudgeError of its call. An endpoint
that fails call after call ends the run with a UserError, so that nothing is rejected because a server was down.
"""

from __future__ import annotations

import asyncio
import base64
import datetime
import os
import random
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from veridical.errors import UserError
from veridical.judges.interface import JudgeError
from veridical.judges.messages import Call, ChatMessage, Reply, Usage
from veridical.records import ImageFile

if TYPE_CHECKING:
    import httpx

_PASSING = frozenset((408, 409, 425, 429, 500, 502, 503, 504, 529))
_LONGEST_WAIT = 60.0
_IN_A_ROW = 10
"""That many calls without a reply, none with one in between, and the endpoint counts as gone."""
_MIME = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp", "GIF": "image/gif"}


class _PassingError(Exception):
    """Something that may go better next time; `wait` is what the server asked for, in seconds."""

    def __init__(self, reason: str, detail: str, wait: float | None = None) -> None:
        super().__init__(detail)
        self.reason, self.wait = reason, wait


@dataclass
class _Health:
    """How many calls in a row got no reply."""

    failed: int = 0


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
    tries: int = 6
    first_wait: float = 1.0
    price_in: float = 0.0
    price_out: float = 0.0
    _health: _Health = field(default_factory=_Health)

    @property
    def name(self) -> str:
        """The model's id."""
        return self.model

    @property
    def identity(self) -> Mapping[str, Any]:
        """The model and where it is served."""
        return {"url": self.url.rstrip("/"), "model": self.model}

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

        key = os.environ.get(self.key_variable)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        async with httpx.AsyncClient(headers=headers, timeout=self.timeout) as client:
            workers = [asyncio.create_task(work(client)) for _ in range(min(self.concurrency, len(calls)))]
            try:
                await asyncio.gather(*workers)
            finally:
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)

    def _note(self, reply: Reply | JudgeError) -> None:
        self._health.failed = self._health.failed + 1 if isinstance(reply, JudgeError) else 0
        if self._health.failed >= _IN_A_ROW:
            raise UserError(
                f"{self.url}: the last {_IN_A_ROW} calls all failed; the last one: {reply}. What is done is kept: mend "
                "the endpoint and run the same command again."
            )

    async def _patiently(self, client: httpx.AsyncClient, call: Call, usage: Usage) -> Reply | JudgeError:
        """The reply to one call, tried up to `tries` times."""
        try:
            body = _body(self.model, call)
        except UserError as fault:  # an image that can't be shown
            return JudgeError(str(fault), getattr(fault, "reason", "judge-refused"), getattr(fault, "remedy", ""))
        error = _PassingError("judge-unreachable", "never tried")
        for attempt in range(self.tries):
            if attempt:
                usage.retries += 1
                await asyncio.sleep(self._wait(attempt, error))
            try:
                return await self._once(client, body, usage)
            except _PassingError as failed:
                error = failed
            except JudgeError as refused:
                return refused
        return JudgeError(f"{self.url}: no reply in {self.tries} tries: {error}", error.reason, "run again later")

    def _wait(self, attempt: int, error: _PassingError) -> float:
        """Seconds to wait: what the server asks for, else twice as long each time; give or take a half."""
        if error.wait is not None:
            return min(error.wait, _LONGEST_WAIT)
        # Results don't depend on it, and two processes should not wait alike: not a seeded draw.
        jitter = random.SystemRandom().uniform(0.5, 1.5)
        return min(self.first_wait * 2.0 ** (attempt - 1) * jitter, _LONGEST_WAIT)

    async def _once(self, client: httpx.AsyncClient, body: Mapping[str, Any], usage: Usage) -> Reply:
        import httpx

        try:
            response = await client.post(f"{self.url.rstrip('/')}/chat/completions", json=body)
        except httpx.TimeoutException as error:
            raise _PassingError("judge-timeout", f"no answer in {self.timeout:g} s") from error
        except httpx.InvalidURL as error:
            raise UserError(f"{self.url}: is no URL ({error}); give one such as http://localhost:8000/v1.") from error
        except httpx.TransportError as error:
            raise _PassingError("judge-unreachable", str(error) or type(error).__name__) from error
        self._check(response)
        reply = _read(response)
        usage.prompt_tokens += reply.prompt_tokens
        usage.completion_tokens += reply.completion_tokens
        usage.cost += (reply.prompt_tokens * self.price_in + reply.completion_tokens * self.price_out) / 1e6
        return reply

    def _check(self, response: httpx.Response) -> None:
        status, detail = response.status_code, response.text[:200]
        if status in _PASSING:
            raise _PassingError(f"judge-http-{status}", f"status {status}: {detail}", _retry_after(response))
        if status in (401, 403):
            raise UserError(
                f"{self.url}: refuses the key (status {status}). Put a valid one into the environment variable "
                f"{self.key_variable}."
            )
        if status == 404:
            raise UserError(f"{self.url}: knows no model {self.model!r}, or has no chat completions: {detail}")
        if status != 200:
            raise JudgeError(f"{self.url}: refuses the request (status {status}): {detail}", "judge-refused")


def _body(model: str, call: Call) -> dict[str, Any]:
    return {
        "model": model,
        "messages": [{"role": m.role, "content": _content(m)} for m in call.messages],
        "max_tokens": call.max_tokens,
        "temperature": call.temperature,
        "seed": call.seed,
        "stream": False,
    }


def _content(message: ChatMessage) -> str | list[dict[str, Any]]:
    if not message.images:
        return message.text
    images = [{"type": "image_url", "image_url": {"url": _data_url(image)}} for image in message.images]
    return [*images, {"type": "text", "text": message.text}]


def _data_url(image: ImageFile) -> str:
    """An image as it lies on disk, where browsers know its format; else as PNG."""
    import io

    import PIL.Image

    from veridical.vlm.images.files import open_image

    content = image.path.read_bytes()
    with PIL.Image.open(io.BytesIO(content)) as opened:
        kind = _MIME.get(opened.format or "")
    if kind is None:
        buffer = io.BytesIO()
        open_image(image).save(buffer, "PNG")
        content, kind = buffer.getvalue(), "image/png"
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _retry_after(response: httpx.Response) -> float | None:
    try:
        return max(0.0, float(response.headers["retry-after"]))
    except (KeyError, ValueError):
        return None


def _read(response: httpx.Response) -> Reply:
    """The reply in a chat completion. Raises _PassingError for what is none."""
    try:
        content = response.json()
        choice = content["choices"][0]
        text = choice["message"]["content"] or ""
        if isinstance(text, list):
            text = "".join(part.get("text") or "" for part in text)
        usage = content.get("usage") or {}
        return Reply(
            text=str(text),
            prompt_tokens=int(usage.get("prompt_tokens") or 0),
            completion_tokens=int(usage.get("completion_tokens") or 0),
            date=datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
            finished=choice.get("finish_reason") != "length",
        )
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise _PassingError("judge-bad-reply", f"the reply is no chat completion: {response.text[:200]!r}") from error
