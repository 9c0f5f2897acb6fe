"""The data that flows through veridical: records go in, pairs come out.

Everything here is immutable and free of torch, so that it can be imported anywhere in no time.
"""

from __future__ import annotations

import html
import textwrap
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

Role = Literal["system", "user", "assistant"]
Box: TypeAlias = tuple[float, float, float, float]
Span: TypeAlias = tuple[int, int]
"""The characters [start, end) of a text."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image on disk. `sha256` is the hex digest of the file's bytes, which is its identity."""

    path: Path
    sha256: str


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a prompt, as plain text. A record's images belong to its first user turn."""

    role: Role
    text: str


@dataclass(frozen=True, slots=True)
class ObjectInImage:
    """An annotated object: its class name, its box (x0, y0, x1, y1) in fractions of the image, and how it looks."""

    name: str
    box: Box | None = None
    attributes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Relation:
    """How one annotated object stands to another: ("cup", "left of", "fork")."""

    subject: str
    relation: str
    object: str


@dataclass(frozen=True, slots=True)
class Region:
    """A phrase about a part of the image."""

    text: str
    box: Box | None = None


@dataclass(frozen=True, slots=True)
class Annotations:
    """What is known to be in the images of a record. `facts` are true sentences about the whole."""

    objects: tuple[ObjectInImage, ...] = ()
    scene: str | None = None
    relations: tuple[Relation, ...] = ()
    regions: tuple[Region, ...] = ()
    facts: tuple[str, ...] = ()

    @property
    def names(self) -> frozenset[str]:
        """The distinct class names that are present."""
        return frozenset(o.name for o in self.objects)

    @property
    def counts(self) -> Mapping[str, int]:
        """How many of each class there are, in the order of the annotations."""
        return Counter(o.name for o in self.objects)


@dataclass(frozen=True, slots=True)
class Counterfactual:
    """The same images with something absent or replaced, and what is true of them instead of the record's reference."""

    images: tuple[ImageFile, ...]
    reference: str


@dataclass(frozen=True, slots=True)
class Record:
    """One thing to learn from: images, a prompt about them, and what is known about them."""

    id: str
    images: tuple[ImageFile, ...]
    prompt: tuple[Message, ...]
    reference: str | None = None
    annotations: Annotations | None = None
    source: str = ""
    counterfactual: Counterfactual | None = None

    def __repr__(self) -> str:
        names = ", ".join(self.annotations.counts) if self.annotations else ""
        known = {"reference": self.reference, "objects": names}
        return _shown(self, {"prompt": self.prompt[-1].text if self.prompt else "", **known})

    def _repr_html_(self) -> str:
        names = ", ".join(self.annotations.counts) if self.annotations else ""
        return _as_table(self, {"prompt": _turns(self.prompt), "reference": self.reference, "objects": names})


@dataclass(frozen=True, slots=True)
class Provenance:
    """How a pair came to be; enough to make it again."""

    construction: str
    variant: str
    parameters: Mapping[str, Any]
    seed: int
    model: str
    judge: str = ""
    attempts: int = 1
    chosen_source: str = ""
    rejected_source: str = ""
    scores: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Spans:
    """Where the two sides of a pair differ: ranges of the chosen and of the rejected text, in order.

    They correspond: one stands in the place of the other, and is empty where something was only put in or taken out.
    """

    chosen: tuple[Span, ...]
    rejected: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class FurtherAnswer:
    """One more answer that the chosen one is preferred to. `images` are its own, where they differ from the pair's.

    With the chosen answer's text it says of its images that this answer is not true of them: they are an edited or a
    retrieved picture. `weight` is that of its log-ratio, `spans` say where it and the chosen answer differ.
    """

    text: str
    source: str = ""
    score: float | None = None
    images: tuple[ImageFile, ...] | None = None
    weight: float | None = None
    spans: Spans | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    """A preferred and a rejected answer to the same prompt about the same images.

    `spans` is None where nobody has looked. The sides of an `open_ended` pair are beginnings of answers: that they
    end where they do is not to be learnt.

    Most comparisons are just that. A wider one has `others`, further answers that are worse than the chosen one;
    `rejected_images`, where the rejected answer is about other images; `weights` of the chosen and the rejected
    answer's log-ratio; or a `context`, text that both answers begin with and that is not to be learnt.
    """

    id: str
    record_id: str
    images: tuple[ImageFile, ...]
    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    provenance: Provenance
    spans: Spans | None = None
    open_ended: bool = False
    context: str = ""
    rejected_images: tuple[ImageFile, ...] | None = None
    weights: tuple[float, float] | None = None
    others: tuple[FurtherAnswer, ...] = ()

    def __repr__(self) -> str:
        prompt = self.prompt[-1].text if self.prompt else ""
        others = f"{len(self.others)} more" if self.others else ""
        return _shown(self, {"prompt": prompt, "chosen": self.chosen, "rejected": self.rejected, "others": others})

    def _repr_html_(self) -> str:
        sources = self.provenance.chosen_source, self.provenance.rejected_source
        chosen, rejected = (f"{text} ({source})" for text, source in zip(self._sides, sources, strict=True))
        others = {f"others {place}": other.text for place, other in enumerate(self.others, start=1)}
        return _as_table(self, {"prompt": _turns(self.prompt), "chosen": chosen, "rejected": rejected, **others})

    @property
    def _sides(self) -> tuple[str, str]:
        return self.context + self.chosen, self.context + self.rejected


@dataclass(frozen=True, slots=True)
class Rejection:
    """Something that could not be used: which one, why (`reason` is a stable slug), and what to do."""

    id: str
    reason: str
    remedy: str
    detail: str = ""


def _shown(value: Record | Pair, facts: Mapping[str, str | None]) -> str:
    """A record or pair in a line: its id, and the beginnings of its texts."""
    told = ", ".join(f"{name} {textwrap.shorten(text, 60)!r}" for name, text in facts.items() if text)
    return f"{type(value).__name__}({value.id}: {told})"


def _turns(prompt: tuple[Message, ...]) -> str:
    return "\n".join(f"{message.role}: {message.text}" for message in prompt)


def _as_table(value: Record | Pair, facts: Mapping[str, str | None]) -> str:
    """A record or pair for a notebook."""
    told = {"id": value.id, "images": ", ".join(str(image.path) for image in value.images), **facts}
    rows = "".join(f"<tr><th>{name}</th><td>{html.escape(text)}</td></tr>" for name, text in told.items() if text)
    return f"<table>{rows}</table>"
