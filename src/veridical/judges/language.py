"""Judges that are language models, with or without eyes: each kind of request is one prompt file and one reading."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeVar

from veridical.judges import interface, reply_parsing
from veridical.judges.interface import (
    AnsweredQuestion,
    Compare,
    Corruption,
    Detect,
    ExtractClaims,
    ExtractObjects,
    Findings,
    Inject,
    JudgeError,
    Kind,
    MakeQuestions,
    Preference,
    Presence,
    Rate,
    Restyle,
    Rewrite,
    Seen,
    Verify,
)
from veridical.judges.lexicon import Mention
from veridical.judges.messages import TextService
from veridical.judges.prompting import CallSettings, PromptRequest, ask_service, seed_of
from veridical.judges.record_context import is_known, known, question_of
from veridical.records import ImageFile, Record

T = TypeVar("T")
R = TypeVar("R")

ERRORS: Mapping[Corruption, str] = MappingProxyType(
    {
        "object": "mention an object that is not in the picture but often occurs together with what is",
        "attribute": "change the colour, shape, material, size or another property of an object",
        "count": "change the number of objects",
        "relation": "move an object, or change its spatial relation to another one",
        "reasoning": "draw a false conclusion from an invented fact",
        "any": "an added object, or a wrong attribute, number, position or conclusion: the most plausible of these",
    }
)
"""The kinds of errors, as `inject` names them to the model."""

STYLES = (
    "plain and factual, in short sentences",
    "flowing prose, in long and connected sentences",
    "like a helpful assistant answering a question about the picture",
    "like a caption for a reader who cannot see the picture, with the most important things first",
    "lively and informal, as if told to a friend",
)
"""The styles that variants count through."""


@dataclass(frozen=True)
class LanguageJudge:
    """A judge that asks a model; one without eyes goes by annotations and reference alone."""

    service: TextService
    call_settings: CallSettings = field(default_factory=CallSettings)
    writing_temperature: float = 0.8
    """The temperature at which errors are made up and texts reworded, seeded by the request's key."""

    @property
    def name(self) -> str:
        """The model's id."""
        return self.service.name

    def detect(self, requests: Sequence[Detect]) -> list[Findings | JudgeError]:
        """Named objects and faults, each with its words in the text and a reason."""
        reads = [_reader(r, lambda r, reading: reply_parsing.findings(reading, r.text)) for r in requests]
        return self._informed("detect", [r.record for r in requests], [{"text": r.text} for r in requests], reads)

    def extract_objects(self, requests: Sequence[ExtractObjects]) -> list[list[Mention] | JudgeError]:
        """The objects that each text names, by the model's own words for them."""
        return ask_service(
            self.service,
            "extract_objects",
            [_ask(r, {"text": r.text}, _mentions) for r in requests],
            self.call_settings,
        )

    def compare(self, requests: Sequence[Compare]) -> list[Preference | JudgeError]:
        """Asked in both orders; a judge that changes its mind with the order makes it a tie."""
        pairs = [(r.first, r.second) for r in requests]
        swapped = [(second, first) for first, second in pairs]
        both = [*self._compared(requests, pairs), *self._compared(requests, swapped)]
        return [_preference(*two) for two in zip(both[: len(pairs)], both[len(pairs) :], strict=True)]

    def rate(self, requests: Sequence[Rate]) -> list[float | JudgeError]:
        """A grade from 0 to 1, in tenths."""
        values = [{"question": question_of(r.prompt), "text": r.text} for r in requests]
        return self._informed("rate", [r.record for r in requests], values, [reply_parsing.grade] * len(requests))

    def verify(self, requests: Sequence[Verify]) -> list[float | JudgeError]:
        """1 for yes, 0 for no, a half for unclear."""
        values = [{"claim": r.claim} for r in requests]
        return self._informed("verify", [r.record for r in requests], values, [reply_parsing.holds] * len(requests))

    def presence(self, requests: Sequence[Presence]) -> list[Mapping[str, Seen] | JudgeError]:
        """Each name is present, absent or unknown, as the model says; without names, all it lists as present."""
        answers: list[Mapping[str, Seen] | JudgeError | None] = [None] * len(requests)
        for prompt, places in (
            ("presence", [place for place, r in enumerate(requests) if r.names]),
            ("list_objects", [place for place, r in enumerate(requests) if not r.names]),
        ):
            asked = [requests[place] for place in places]
            values = [{"names": "\n".join(f"- {name}" for name in r.names)} if r.names else {} for r in asked]
            reads = [_reader(r, lambda r, reading: reply_parsing.presence(reading, r.names)) for r in asked]
            for place, answer in zip(
                places, self._informed(prompt, [r.record for r in asked], values, reads), strict=True
            ):
                answers[place] = answer
        return [answer for answer in answers if answer is not None]

    def rewrite(self, requests: Sequence[Rewrite]) -> list[str | JudgeError | None]:
        """The text with the changes that were asked for."""
        asks = [
            _ask(r, {"text": r.text, "changes": changes(r)}, lambda _, j: reply_parsing.new_text(j)) for r in requests
        ]
        return ask_service(self.service, "rewrite", asks, self.call_settings)

    def inject(self, requests: Sequence[Inject]) -> list[str | JudgeError | None]:
        """The text with errors in it; never the text as it was."""
        asks = [
            PromptRequest(
                {
                    "known": known(r.record),
                    "about": _about(r),
                    "text": r.text,
                    "count": str(r.count),
                    "kind": ERRORS[r.kind],
                },
                _reader(r, lambda r, reading: reply_parsing.changed_text(reading, r.text)),
                self._shown(r.record),
                seed_of(r.key),
            )
            for r in requests
        ]
        return ask_service(self.service, "inject", asks, self._writing)

    def restyle(self, requests: Sequence[Restyle]) -> list[tuple[str, ...] | JudgeError | None]:
        """The texts in the style of their variant."""
        asks = [
            PromptRequest(
                {
                    "style": STYLES[r.variant % len(STYLES)],
                    "texts": "\n\n".join(f"{i}. {text}" for i, text in enumerate(r.texts, start=1)),
                    "count": str(len(r.texts)),
                },
                _reader(r, lambda r, reading: reply_parsing.texts(reading, len(r.texts))),
                (),
                seed_of(r.key),
            )
            for r in requests
        ]
        return [*ask_service(self.service, "restyle", asks, self._writing)]

    def extract_claims(self, requests: Sequence[ExtractClaims]) -> list[tuple[str, ...] | JudgeError]:
        """The atomic claims of each text."""
        asks = [_ask(r, {"text": r.text}, lambda _, j: tuple(reply_parsing.strings(j, "claims"))) for r in requests]
        return ask_service(self.service, "extract_claims", asks, self.call_settings)

    def to_question(self, requests: Sequence[interface.ToQuestion]) -> list[str | JudgeError]:
        """The yes/no question of each claim."""
        asks = [_ask(r, {"claim": r.claim}, lambda _, j: reply_parsing.string(j, "question")) for r in requests]
        return ask_service(self.service, "to_question", asks, self.call_settings)

    def make_questions(self, requests: Sequence[MakeQuestions]) -> list[tuple[AnsweredQuestion, ...] | JudgeError]:
        """Questions on which the two descriptions differ."""
        asks = [
            _ask(r, {"right": r.right, "wrong": r.wrong}, lambda _, j: reply_parsing.questions(j)) for r in requests
        ]
        return ask_service(self.service, "make_questions", asks, self.call_settings)

    def lacks(self, kind: Kind, record: Record) -> JudgeError | None:
        """Anything known about the record, where a judge without eyes is to say what is true."""
        judged = kind in (Detect, Compare, Rate, Verify, Presence)
        return _unknown(record) if judged and not self.service.sees and not is_known(record) else None

    @property
    def _writing(self) -> CallSettings:
        return CallSettings(self.call_settings.max_tokens, self.writing_temperature)

    def _shown(self, record: Record) -> tuple[ImageFile, ...]:
        return record.images if self.service.sees else ()

    def _compared(self, requests: Sequence[Compare], pairs: Sequence[tuple[str, str]]) -> list[float | JudgeError]:
        values = [
            {"question": question_of(r.prompt), "first": first, "second": second}
            for r, (first, second) in zip(requests, pairs, strict=True)
        ]
        return self._informed("compare", [r.record for r in requests], values, [reply_parsing.better] * len(requests))

    def _informed(
        self,
        name: str,
        records: Sequence[Record],
        values: Sequence[Mapping[str, str]],
        reads: Sequence[Callable[[Mapping[str, Any]], T]],
    ) -> list[T | JudgeError]:
        """Put a prompt that says what is known; a judge without eyes is not asked where nothing is."""
        able = [self.service.sees or is_known(record) for record in records]
        asks = [
            PromptRequest({**value, "known": known(record)}, read, self._shown(record))
            for record, value, read, can in zip(records, values, reads, able, strict=True)
            if can
        ]
        answers = iter(ask_service(self.service, name, asks, self.call_settings) if asks else ())
        return [next(answers) if can else _unknown(record) for record, can in zip(records, able, strict=True)]


def changes(request: Rewrite) -> str:
    """What a rewrite asks for, in words, one change a line."""
    lines = [f"- Remove every mention of: {name}." for name in request.leave_out]
    lines += [f"- Replace the {old} with a {new}." for old, new in request.swap.items()]
    lines += [f"- Also mention: {name}." for name in request.put_in]
    for fault in request.faults:
        said = request.text[fault.start : fault.end]
        remedy = f'change it to "{fault.correction}"' if fault.correction else "delete it"
        lines.append(f'- "{said}" is wrong ({fault.reason}); {remedy}.')
    return "\n".join(lines) or "- None: return the text as it is."


def _reader(request: R, read: Callable[[R, Mapping[str, Any]], T]) -> Callable[[Mapping[str, Any]], T]:
    return lambda reading: read(request, reading)


def _ask(request: R, values: Mapping[str, str], read: Callable[[R, Mapping[str, Any]], T]) -> PromptRequest[T]:
    return PromptRequest(values, _reader(request, read))


def _mentions(request: ExtractObjects, reading: Mapping[str, Any]) -> list[Mention]:
    return reply_parsing.mentions(reading, request.text)


def _about(request: Inject) -> str:
    if request.mode == "description":
        return "Description of the picture:"
    return f"Question about the picture:\n{question_of(request.record.prompt)}\n\nCorrect answer:"


def _preference(forward: float | JudgeError, backward: float | JudgeError) -> Preference | JudgeError:
    if isinstance(forward, JudgeError):
        return forward
    if isinstance(backward, JudgeError):
        return backward
    return Preference((forward - backward) / 2, consistent=forward == -backward, orders=(forward, -backward))


def _unknown(record: Record) -> JudgeError:
    return JudgeError(
        f"{record.id}: has neither annotations nor a reference, and this judge does not see",
        "nothing-to-judge-by",
        "annotate the record, give it a reference, or take --judge.name vision-language-model",
    )
