"""What a row of a published data set says, before its images are looked up."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from veridical.records import Annotations, Message, Pair, Provenance, Rejection, Spans

Row: TypeAlias = Mapping[str, Any]
LONGEST_PATH = 4096
"""Characters above which a text that stands for an image is its content in base64."""
ImageSource: TypeAlias = str | bytes
"""A path as the row names it, relative to an image root or absolute, or the bytes of an image file."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of a comparison: who wrote it, its score if the set has one, its own images where they differ."""

    text: str
    source: str = ""
    score: float | None = None
    images: tuple[ImageSource, ...] | None = None
    weight: float | None = None
    spans: Spans | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Answers to one prompt: the first is preferred to each of the others.

    `context` is text that every answer begins with and that is not to be learnt. Where the set says so, `spans` are
    where the first two differ, and `scores` what objectives read of the pair. `notes` is what the source says about the
    row and no other field holds: its id there, annotator, ratings, origin. `record` is the id of what several
    comparisons are about, where it isn't this one's.
    """

    id: str
    images: tuple[ImageSource, ...]
    prompt: tuple[Message, ...]
    answers: tuple[Answer, ...]
    context: str = ""
    notes: Mapping[str, Any] = field(default_factory=dict)
    made: Made | None = None
    spans: Spans | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    record: str = ""
    place: str = field(default="", compare=False)
    """Where the row stands, for messages ("file.jsonl:12")."""


@dataclass(frozen=True, slots=True)
class Made:
    """What only veridical's own files say of a pair."""

    id: str
    record_id: str
    provenance: Provenance
    spans: Spans | None
    open_ended: bool


@dataclass(frozen=True, slots=True)
class Example:
    """One thing to learn from without a preference: a prompt with its reference answer, or annotated images."""

    id: str
    images: tuple[ImageSource, ...]
    prompt: tuple[Message, ...] = ()
    reference: str | None = None
    annotations: Annotations | None = None
    place: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """Choices that some formats need."""

    aspect: str = "mean"
    """Which rating of several decides: a name as the set writes it, or their mean."""
    seed: int = 0
    """Draws what a set leaves open, HA-DPO's questions and variants, and subsamples."""


@dataclass(frozen=True, slots=True)
class Format:
    """A published format: how its rows are recognised and read.

    `fields` are all fields that the format defines; others in a row are counted and reported. `matches` sees the
    first row. `read` yields nothing for a row that the set itself marks as no comparison (a tie, say), and raises
    UnusableError where the row is damaged.
    """

    name: str
    kind: Literal["pairs", "records"]
    fields: frozenset[str]
    matches: Callable[[Row], bool]
    read: Callable[[Row, str, ReadOptions], Iterable[Comparison | Example]]
    write: Callable[[Pair, Sequence[str]], dict[str, Any]] | None = None
    """Writes a pair as a row, its images by the given names. None for formats that are only read."""
    carries: frozenset[str] = frozenset()
    """Which features of wider pairs a written row holds: others, rejected_images, weights, context, spans, open_ended,
    provenance."""
    read_file: Callable[[Path], Iterable[Example | Rejection]] | None = None
    """Reads a whole file, where its rows mean something together only; `read` is not used then."""
    judge: str = ""
    """Who or what said which answer is better, as the set's paper tells."""
