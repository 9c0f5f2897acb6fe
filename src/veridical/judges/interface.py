"""What a construction may ask of a judge, and what a judge answers.

Judges get lists, so that a judge behind a network can work on many texts at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from veridical.judges.lexicon import Mention
from veridical.records import Record


@dataclass(frozen=True, slots=True)
class Detect:
    """Asks what is wrong with a text about a record's images."""

    record: Record
    text: str


@dataclass(frozen=True, slots=True)
class Findings:
    """What a text names, which of it is invented, and which objects it leaves out."""

    named: tuple[Mention, ...]
    invented: tuple[Mention, ...]
    missing: tuple[str, ...]

    @property
    def invented_names(self) -> tuple[str, ...]:
        """The distinct invented classes, in order of mention."""
        return tuple(dict.fromkeys(mention.name for mention in self.invented))

    @property
    def true_names(self) -> tuple[str, ...]:
        """The distinct classes that are named and there, in order of mention."""
        wrong = set(self.invented_names)
        return tuple(dict.fromkeys(m.name for m in self.named if m.name not in wrong))


@dataclass(frozen=True, slots=True)
class Name:
    """Asks which objects a text names, whether they are there or not."""

    text: str


@dataclass(frozen=True, slots=True)
class Rewrite:
    """Asks for the same text in the same style without some objects, with others in their stead, or with
    more.

    `swap` maps a class to the one that takes its place; `leave_out` classes are named no more; `put_in`
    classes are named in addition.
    """

    text: str
    leave_out: tuple[str, ...] = ()
    swap: Mapping[str, str] = field(default_factory=dict)
    put_in: tuple[str, ...] = ()


class Judge(Protocol):
    """Says what is wrong with texts about images, and rewrites texts."""

    @property
    def name(self) -> str:
        """Stands in the provenance of what it judged."""

    def detect(self, requests: Sequence[Detect]) -> list[Findings]:
        """Findings for each request. Every record must have what the judge needs to know."""

    def mentions(self, requests: Sequence[Name]) -> list[list[Mention]]:
        """The objects that each text names."""

    def rewrite(self, requests: Sequence[Rewrite]) -> list[str | None]:
        """The new text for each request, or None where the judge cannot write it."""


class Writer(Protocol):
    """Rewrites one text."""

    def __call__(self, request: Rewrite) -> str | None:
        """The new text, or None where this writer cannot write it."""
