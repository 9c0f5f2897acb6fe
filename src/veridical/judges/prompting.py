"""Send one prompt to a service for many requests, and parse the replies strictly: valid, repaired once, or failed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from veridical.judges.interface import JudgeError
from veridical.judges.messages import Call, ChatMessage, Reply, TextService
from veridical.judges.prompts import PromptTemplate, prompt
from veridical.records import ImageFile

T = TypeVar("T")
_SHOWN = 80
_HALF = re.compile("[\ud800-\udfff\ufffd]")
"""A lone surrogate, or its replacement character."""


class UnreadableError(ValueError):
    """A reply is not in the format asked for. The model reads the message, when its reply is sent back for repair."""


@dataclass(frozen=True, slots=True)
class PromptRequest(Generic[T]):
    """One use of a prompt: the values to fill in, the images to show, and how to parse the reply."""

    values: Mapping[str, str]
    read: Callable[[Mapping[str, Any]], T]
    """Takes the reply's JSON object. Raises UnreadableError."""
    images: tuple[ImageFile, ...] = ()
    seed: int = 0


@dataclass(frozen=True, slots=True)
class CallSettings:
    """The limits and the temperature of calls."""

    max_tokens: int = 1024
    temperature: float = 0.0


def ask_service(
    service: TextService, name: str, requests: Sequence[PromptRequest[T]], settings: CallSettings
) -> list[T | JudgeError]:
    """Send the prompt called `name` once for each request; return what the replies say, in order.

    A reply that can't be read is sent back once, with what is wrong with it. If the second one can't be read either,
    the request is answered with a JudgeError, and the cache forgets both replies.
    """
    template = prompt(name)
    calls = [_call(template, request, settings) for request in requests]
    replies = service.reply(calls)
    answers: list[T | JudgeError | UnreadableError] = list(map(_read, replies, requests))
    broken = [place for place, answer in enumerate(answers) if isinstance(answer, UnreadableError)]
    service.usage.repairs += len(broken)
    repairs = [_repair(calls[place], replies[place], answers[place]) for place in broken]
    for place, call, reply in zip(broken, repairs, service.reply(repairs) if repairs else (), strict=True):
        again = _read(reply, requests[place])
        answers[place] = again
        if isinstance(again, UnreadableError) and isinstance(reply, Reply):
            answers[place] = UnreadableError(f"{again}; it begins {reply.text[:_SHOWN]!r}")
            service.forget(calls[place])
            service.forget(call)
            service.usage.failures["judge-unreadable"] += 1
    return [_final(answer, service, template) for answer in answers]


def seed_of(key: Sequence[str | int]) -> int:
    """A seed for a service out of a request's key."""
    from veridical.vlm.seeds import generator

    return int(generator("judge", key).integers(2**31)) if key else 0


def _call(template: PromptTemplate, request: PromptRequest[T], settings: CallSettings) -> Call:
    messages = (
        ChatMessage("system", template.system),
        ChatMessage("user", template.fill(request.values), request.images),
    )
    return Call(messages, settings.max_tokens, settings.temperature, request.seed, template.tag)


def _repair(call: Call, reply: object, error: object) -> Call:
    assert isinstance(reply, Reply)
    again = ChatMessage("user", prompt("repair").fill({"reason": str(error)}))
    messages = (*call.messages, ChatMessage("assistant", reply.text or "(nothing)"), again)
    return Call(messages, call.max_tokens, call.temperature, call.seed, call.prompt)


def _read(reply: Reply | JudgeError, request: PromptRequest[T]) -> T | JudgeError | UnreadableError:
    if isinstance(reply, JudgeError):
        return reply
    try:
        if not reply.finished:
            raise UnreadableError("it was cut off; make it shorter")
        return request.read(json_object(reply.text))
    except UnreadableError as error:
        return error


def _final(answer: T | JudgeError | UnreadableError, service: TextService, template: PromptTemplate) -> T | JudgeError:
    if isinstance(answer, UnreadableError):
        message = f"{service.name}: its reply to {template.tag} could not be read: {answer}"
        remedy = "take a stronger judge, or raise its --judge.max-tokens (of a writer --writer.max-tokens)"
        return JudgeError(message, "judge-unreadable", remedy)
    return answer


def json_object(text: str) -> dict[str, Any]:
    """Parse a reply as a JSON object, without a code fence around it or thoughts before it. Raises UnreadableError."""
    bare = re.sub(r"^\s*<think>.*?</think>", "", text, flags=re.DOTALL).strip()
    fenced = re.fullmatch(r"```(?:json)?\s*\n(.*?)\n?\s*```", bare, re.DOTALL)
    try:
        content = json.loads(fenced.group(1) if fenced else bare)
    except ValueError as error:
        raise UnreadableError(f"it is not JSON ({error})" if bare else "it is empty") from None
    except RecursionError:
        raise UnreadableError("its JSON is nested too deeply") from None
    if any(_HALF.search(string) for string in _strings(content)):
        raise UnreadableError("it contains a broken character (half an emoji)")
    if not isinstance(content, dict):
        raise UnreadableError(f"it is a JSON {type(content).__name__}, not an object")
    return content


def _strings(content: Any) -> Iterator[str]:
    """All texts in JSON values, at any depth."""
    todo = [content]
    while todo:
        value = todo.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            todo += [*value.keys(), *value.values()]
        elif isinstance(value, list):
            todo += value
