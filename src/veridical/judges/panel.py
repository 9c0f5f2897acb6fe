"""Several judges as one: each kind of request goes to the first of them that answers it.

A *writer* among them makes the texts (`WRITING`), whoever else could.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from veridical.errors import UserError
from veridical.judges.interface import (
    METHODS,
    ExtractClaims,
    Inject,
    Judge,
    JudgeError,
    JudgeRequest,
    Kind,
    KnowsItsLimits,
    MakeQuestions,
    Restyle,
    Rewrite,
    ToQuestion,
)
from veridical.lanes import LOCAL, Lane
from veridical.records import Record

WRITING: frozenset[Kind] = frozenset((Rewrite, Inject, Restyle, ExtractClaims, ToQuestion, MakeQuestions))


def offers(judge: Judge | type[Any]) -> frozenset[Kind]:
    """The kinds of requests that a judge, or a class of judges, answers."""
    return frozenset(kind for kind, method in METHODS.items() if hasattr(judge, method))


@dataclass(frozen=True)
class Panel:
    """Judges in the order in which they are asked, and the one that writes before all others."""

    judges: tuple[Judge, ...] = ()
    writer: Judge | None = None

    @property
    def members(self) -> tuple[Judge, ...]:
        """All of them, the writer first."""
        return self.judges if self.writer is None else (self.writer, *self.judges)

    @property
    def kinds(self) -> frozenset[Kind]:
        """What the panel answers."""
        return frozenset(kind for kind in METHODS if self.who(kind) is not None)

    def who(self, kind: Kind) -> Judge | None:
        """The judge that answers requests of a kind; None where there is none."""
        asked = self.members if kind in WRITING else self.judges
        return next((judge for judge in asked if kind in offers(judge)), None)

    def lane(self, kind: Kind) -> Lane:
        """Where requests of a kind wait: at an endpoint, or in this process."""
        backend = getattr(getattr(self.who(kind), "service", None), "backend", None)
        lane: Lane = getattr(backend, "lane", LOCAL)
        return lane

    def names(self, kinds: Iterable[Kind]) -> str:
        """The judges that answer requests of these kinds, for provenance: "oracle", or "oracle+gpt"."""
        judges = (self.who(kind) for kind in METHODS if kind in set(kinds))
        return "+".join(dict.fromkeys(judge.name for judge in judges if judge is not None))

    def require(self, kinds: Iterable[Kind], who: str, without: Callable[[Iterable[Kind]], str] = lambda _: "") -> None:
        """Raise UserError that names what `who` needs and no judge here answers, before any work is done.

        `without` says how to do without some kinds, as a sentence.
        """
        if lacking := sorted(METHODS[kind] for kind in set(kinds) - self.kinds):
            have = ", ".join(judge.name for judge in self.members) or "none"
            raise UserError(
                f"{who} needs a judge for: {', '.join(lacking)}; the judges here are: {have}. "
                f"{_remedies(lacking)}{without(set(kinds) - self.kinds)} An oracle needs annotated records ("
                '"objects") and words for them (--lexicon).'
            )

    def lacks(self, kinds: Iterable[Kind], record: Record) -> JudgeError | None:
        """What a judge here would miss in a record that it is asked about, for judges that can tell beforehand."""
        for kind in kinds:
            judge = self.who(kind)
            if isinstance(judge, KnowsItsLimits) and (lacking := judge.lacks(kind, record)) is not None:
                return lacking
        return None

    def usage(self) -> dict[str, Any]:
        """What was asked of the judges' services, by the judge's name, as JSON values."""
        return {name: service.usage.plain() for name, service in self._services().items()}

    def add_usage(self, earlier: Mapping[str, Any]) -> None:
        """Count on from what `usage` said in an earlier part of the same run."""
        for name, service in self._services().items():
            service.usage.add(earlier.get(name, {}))

    def clear_usage(self) -> None:
        """Count from nothing."""
        for service in self._services().values():
            service.usage.clear()

    def _services(self) -> dict[str, Any]:
        return {judge.name: judge.service for judge in self.members if hasattr(judge, "service")}

    def answer(self, requests: Sequence[JudgeRequest]) -> list[Any]:
        """Answers to requests of one kind, in order; a JudgeError where a judge had none."""
        kind = type(requests[0])
        judge = self.who(kind)
        if judge is None:
            self.require([kind], "This construction")
        answers: list[Any] = getattr(judge, METHODS[kind])(requests)
        return answers


def _remedies(methods: Sequence[str]) -> str:
    from veridical.judges.offering import who_offers

    writing = {METHODS[kind] for kind in WRITING}
    return " ".join(
        f"For {method} take --{'writer' if method in writing else 'judge'}.name {' or '.join(who_offers(method))}."
        for method in methods
    )
