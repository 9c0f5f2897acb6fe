"""What may be asked of a judge, and what a judge answers.

Each kind of request is a frozen dataclass and asks one thing; a judge answers the kinds that it has a method for
(`METHODS`). Judges get lists, so that a remote one can work on many texts at once. Where a service gave no
answer, a `JudgeError` is returned instead: failures are counted and never guessed away.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

from veridical.errors import UserError
from veridical.judges.lexicon import Mention
from veridical.records import Message, Record

Key: TypeAlias = tuple[str | int, ...]
FaultKind: TypeAlias = Literal["object", "attribute", "count", "relation", "other"]
"""What is wrong: an object that is not in the image, an attribute, a count, a relation, or a conclusion."""

Corruption: TypeAlias = Literal["object", "attribute", "count", "relation", "reasoning", "any"]
"""What to get wrong on purpose: a thing that usually comes along, its look, how many there are, where things are,
a conclusion from a fact that was made up, or whatever is most plausible."""


class JudgeError(UserError):
    """A judge could not answer a request; `reason` is a stable slug, as in a Rejection.

    `passing` says that the same request may well be answered later, because a service was down or busy: what needed the
    answer is then left open, and not rejected.
    """

    def __init__(
        self,
        message: str,
        reason: str = "judge-failed",
        remedy: str = "run again, or take another judge",
        *,
        passing: bool = False,
    ) -> None:
        super().__init__(message)
        self.reason, self.remedy, self.passing = reason, remedy, passing


@dataclass(frozen=True, slots=True)
class Detect:
    """Asks what is wrong with a text about a record's images. Answered with `Findings`."""

    record: Record
    text: str


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong in a text: the characters [start, end), why, and what should stand there ("" if nothing)."""

    kind: FaultKind
    start: int
    end: int
    reason: str
    correction: str = ""


@dataclass(frozen=True, slots=True)
class Findings:
    """What a text names, everything that is wrong with it, and which objects it leaves out.

    `faults` is the one list of what is wrong: an invented object is a fault of the kind "object". A judge may find such
    faults without naming objects (sentence by sentence, say); `invented` then holds nothing, `invents` is True.
    """

    named: tuple[Mention, ...] = ()
    faults: tuple[Fault, ...] = ()
    missing: tuple[str, ...] = ()
    unsure: tuple[Mention, ...] = ()
    """The named objects of which the judge can't tell whether they are in the image."""

    @property
    def invented(self) -> tuple[Mention, ...]:
        """The named objects that are not in the image: those inside a fault of the kind "object"."""
        return tuple(m for m in self.named if any(f.start <= m.start and m.end <= f.end for f in self._absent))

    @property
    def invents(self) -> bool:
        """Whether the text names an object that is not in the image."""
        return bool(self._absent)

    @property
    def unnamed(self) -> tuple[Fault, ...]:
        """The faults of the kind "object" in which no object is named."""
        return tuple(f for f in self._absent if not any(f.start <= m.start and m.end <= f.end for m in self.named))

    @property
    def _absent(self) -> tuple[Fault, ...]:
        return tuple(fault for fault in self.faults if fault.kind == "object")

    @property
    def invented_names(self) -> tuple[str, ...]:
        """The distinct invented classes, in order of mention."""
        return tuple(dict.fromkeys(mention.name for mention in self.invented))

    @property
    def true_names(self) -> tuple[str, ...]:
        """The distinct classes that are named and there, in order of mention."""
        wrong = set(self.invented_names)
        return tuple(dict.fromkeys(m.name for m in self.named if m.name not in wrong))

    @property
    def wrong(self) -> bool:
        """Whether anything is wrong with the text."""
        return bool(self.faults)


@dataclass(frozen=True, slots=True)
class ExtractObjects:
    """Asks which objects a text names, whether they are in the image or not. Answered with a list of `Mention`."""

    text: str


@dataclass(frozen=True, slots=True)
class Rewrite:
    """Asks for the same text in the same style with its objects changed or its faults put right.

    `swap` maps a class to the one that takes its place; `leave_out` classes are named no more; `put_in` classes are
    named in addition; `faults` are corrected. Answered with the text, or None where the judge cannot write it.
    """

    text: str
    leave_out: tuple[str, ...] = ()
    swap: Mapping[str, str] = field(default_factory=dict)
    put_in: tuple[str, ...] = ()
    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True, slots=True)
class Compare:
    """Asks which of two answers to a prompt about a record's images is better. Answered with a `Preference`."""

    record: Record
    prompt: tuple[Message, ...]
    first: str
    second: str


@dataclass(frozen=True, slots=True)
class Preference:
    """How much better the first of two texts is, -1 to 1; 0 is a tie.

    `consistent` is False where the judge changed its mind when it saw the two in the other order. `orders` are the
    margins when the first text was shown first and when it was shown second; None where only one order was asked for.
    """

    margin: float
    consistent: bool = True
    orders: tuple[float, float] | None = None

    @property
    def better(self) -> Literal["first", "second", "tie"]:
        """The better text."""
        return "tie" if self.margin == 0 else "first" if self.margin > 0 else "second"


@dataclass(frozen=True, slots=True)
class Rate:
    """Asks how good an answer to a prompt about a record's images is. Answered with a float, higher is better.

    The scale is the judge's own; only numbers of one judge compare.
    """

    record: Record
    prompt: tuple[Message, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Verify:
    """Asks whether a claim about a record's images is true. Answered with its probability, 0 to 1.

    `truth_of` reads the answer; around a half, the judge can't tell.
    """

    record: Record
    claim: str


Truth: TypeAlias = Literal["true", "false", "unknown"]


SURE = 0.6
"""The probability from which a claim counts as true; at 1 less this, and below, it is false."""


def truth_of(probability: float, sure: float = SURE) -> Truth:
    """What the answer to `Verify` says; "unknown" between 1 - `sure` and `sure`."""
    return "true" if probability >= sure else "false" if probability <= 1 - sure else "unknown"


Seen: TypeAlias = Literal["present", "absent", "unknown"]
"""Whether an object is in an image; "unknown" where the judge can't tell, or has never heard of it."""


@dataclass(frozen=True, slots=True)
class Presence:
    """Asks which of the named objects are in a record's images. Answered with a mapping of each name to `Seen`.

    Without names it asks for everything that the judge has a name for, which may leave out what is absent.
    """

    record: Record
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Inject:
    """Asks for the same text with plausible errors of a kind put in; `count` of them.

    In question mode the text answers the record's prompt, and the new one answers it wrongly. `key` seeds whatever is
    drawn. Answered with the text, or None where the judge cannot get this text wrong in this way.
    """

    record: Record
    text: str
    kind: Corruption
    key: Key
    count: int = 1
    mode: Literal["description", "question"] = "description"


@dataclass(frozen=True, slots=True)
class Restyle:
    """Asks for several texts about a record's images, all rewritten in one style, each saying what it said.

    The same `variant` is the same style. Answered with the texts in order, or None where the judge cannot.
    """

    record: Record
    texts: tuple[str, ...]
    variant: int
    key: Key


@dataclass(frozen=True, slots=True)
class ExtractClaims:
    """Asks for the atomic claims of a text. Answered with a tuple of sentences, opinions left out."""

    text: str


@dataclass(frozen=True, slots=True)
class ToQuestion:
    """Asks for the yes/no question that is answered with yes if and only if a claim holds. Answered with a string."""

    claim: str


@dataclass(frozen=True, slots=True)
class MakeQuestions:
    """Asks for yes/no questions that a right and a wrong description answer differently.

    Answered with a tuple of `AnsweredQuestion`, possibly empty.
    """

    record: Record
    right: str
    wrong: str


@dataclass(frozen=True, slots=True)
class AnsweredQuestion:
    """A question with its right and its wrong answer."""

    question: str
    right: str
    wrong: str


@dataclass(frozen=True, slots=True)
class Similarity:
    """Asks how alike two texts are. Answered with a float, 0 to 1."""

    first: str
    second: str


JudgeRequest: TypeAlias = (
    Detect
    | ExtractObjects
    | Rewrite
    | Compare
    | Rate
    | Verify
    | Presence
    | Inject
    | Restyle
    | ExtractClaims
    | ToQuestion
    | MakeQuestions
    | Similarity
)
Kind: TypeAlias = type[Any]
"""A kind of request: one of the classes above."""

METHODS: Mapping[Kind, str] = MappingProxyType(
    {
        Detect: "detect",
        ExtractObjects: "extract_objects",
        Rewrite: "rewrite",
        Compare: "compare",
        Rate: "rate",
        Verify: "verify",
        Presence: "presence",
        Inject: "inject",
        Restyle: "restyle",
        ExtractClaims: "extract_claims",
        ToQuestion: "to_question",
        MakeQuestions: "make_questions",
        Similarity: "similarity",
    }
)
"""The method by which a judge answers each kind: it takes a sequence of requests and returns a list of answers."""


class Judge(Protocol):
    """Anything with a name and the methods of the kinds that it answers."""

    @property
    def name(self) -> str:
        """Stands in the provenance of what it judged."""


@runtime_checkable
class KnowsItsLimits(Judge, Protocol):
    """A judge that can tell beforehand which records it can't judge, so that no model time is spent on them."""

    def lacks(self, kind: Kind, record: Record) -> JudgeError | None:
        """What the judge misses in a record to answer requests of a kind about it; None where nothing is."""


class Writer(Protocol):
    """Rewrites one text."""

    def __call__(self, request: Rewrite) -> str | None:
        """The new text, or None where this writer cannot write it."""
