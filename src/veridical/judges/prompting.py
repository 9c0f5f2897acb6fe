"""Puts one prompt to a service for many requests, and reads the replies strictly: right, repaired once, or failed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from veridical.judges.interface import JudgeError
from veridical.judges.messages import Call, ChatMessage, Reply, TextService
from veridical.judges.prompts import Prompt, prompt
from veridical.records import ImageFile

T = TypeVar("T")
_SHOWN = 80
_HALF = re.compile("[\ud800-\udfff\ufffd]")
"""A lone surrogate, or what stands in its place."""


class UnreadableError(ValueError):
    """A reply that is not of the form asked for; the message says what is wrong, for the repair."""


@dataclass(frozen=True, slots=True)
class Ask(Generic[T]):
    """One question: what goes into the prompt, what the model is shown, and how its reply is read."""

    values: Mapping[str, str]
    read: Callable[[Mapping[str, Any]], T]
    """Takes the reply's JSON object. Raises UnreadableError."""
    images: tuple[ImageFile, ...] = ()
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Manner:
    """How a service is asked."""

    max_tokens: int = 1024
    temperature: float = 0.0


def put(service: TextService, name: str, asks: Sequence[Ask[T]], manner: Manner) -> list[T | JudgeError]:
    """Put the prompt called `name` for each ask; answers in order.

    A reply that can't be read is sent back once with what is wrong with it. What can't be read then either is a
    JudgeError; it is counted, and forgotten by the cache.
    """
    wanted = prompt(name)
    calls = [_call(wanted, ask, manner) for ask in asks]
    replies = service.reply(calls)
    answers: list[T | JudgeError | UnreadableError] = list(map(_read, replies, asks))
    broken = [place for place, answer in enumerate(answers) if isinstance(answer, UnreadableError)]
    service.usage.repairs += len(broken)
    repairs = [_repair(calls[place], replies[place], answers[place]) for place in broken]
    for place, call, reply in zip(broken, repairs, service.reply(repairs) if repairs else (), strict=True):
        again = _read(reply, asks[place])
        answers[place] = again
        if isinstance(again, UnreadableError) and isinstance(reply, Reply):
            answers[place] = UnreadableError(f"{again}; it begins {reply.text[:_SHOWN]!r}")
            service.forget(calls[place])
            service.forget(call)
            service.usage.failures["judge-unreadable"] += 1
    return [_final(answer, service, wanted) for answer in answers]


def seed_of(key: Sequence[str | int]) -> int:
    """A seed for a service out of a request's key."""
    from veridical.vlm.seeds import generator

    return int(generator("judge", key).integers(2**31)) if key else 0


def _call(wanted: Prompt, ask: Ask[T], manner: Manner) -> Call:
    messages = (ChatMessage("system", wanted.system), ChatMessage("user", wanted.fill(ask.values), ask.images))
    return Call(messages, manner.max_tokens, manner.temperature, ask.seed, wanted.tag)


def _repair(call: Call, reply: object, error: object) -> Call:
    assert isinstance(reply, Reply)
    again = ChatMessage("user", prompt("repair").fill({"reason": str(error)}))
    messages = (*call.messages, ChatMessage("assistant", reply.text or "(nothing)"), again)
    return Call(messages, call.max_tokens, call.temperature, call.seed, call.prompt)


def _read(reply: Reply | JudgeError, ask: Ask[T]) -> T | JudgeError | UnreadableError:
    if isinstance(reply, JudgeError):
        return reply
    try:
        if not reply.finished:
            raise UnreadableError("it was cut off before its end; be shorter")
        return ask.read(json_object(reply.text))
    except UnreadableError as error:
        return error


def _final(answer: T | JudgeError | UnreadableError, service: TextService, wanted: Prompt) -> T | JudgeError:
    if isinstance(answer, UnreadableError):
        message = f"{service.name}: its reply to {wanted.tag} could not be read: {answer}"
        remedy = "take a stronger judge, or raise its --judge.max-tokens (of a writer --writer.max-tokens)"
        return JudgeError(message, "judge-unreadable", remedy)
    return answer


def json_object(text: str) -> dict[str, Any]:
    """The JSON object that a reply is, a code fence around it and thoughts before it aside. Raises UnreadableError."""
    bare = re.sub(r"^\s*<think>.*?</think>", "", text, flags=re.DOTALL).strip()
    fenced = re.fullmatch(r"```(?:json)?\s*\n(.*?)\n?\s*```", bare, re.DOTALL)
    try:
        content = json.loads(fenced.group(1) if fenced else bare)
    except ValueError as error:
        raise UnreadableError(f"it is not JSON ({error})" if bare else "it is empty") from None
    except RecursionError:
        raise UnreadableError("it is JSON of a great many levels") from None
    if any(_HALF.search(string) for string in _strings(content)):
        raise UnreadableError("it holds half a character")
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
