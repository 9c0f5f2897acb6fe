"""What constructions on weakened images share: which view it is, and which answer stands on the chosen side."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Literal, Protocol, TypeAlias

from veridical.abilities import Ability
from veridical.constructions import text_filters
from veridical.constructions.protocol import Answer, Request, Sample
from veridical.records import Record
from veridical.vlm.generation.params import SamplingParams
from veridical.vlm.images import views
from veridical.vlm.inputs.context import Context

WithoutReference: TypeAlias = Literal["own-caption", "reject"]
OWN_CAPTION = "own greedy caption, as the record's is missing or empty"


def view_for(given: str | None, record: Record, paper: str, world: str) -> str:
    """The view that settings name; left out, the paper's, or for records of the picture world its own."""
    if given is not None:
        return given
    return world if record.source.startswith("world") else paper


def check_view(given: str | None) -> None:
    """Raise UserError for settings that name no view."""
    if given is not None:
        views.parse(given)


def view_needs(name: str) -> frozenset[Ability]:
    """What showing a view needs of a generator."""
    return views.needs(views.parse(name))


class ChosenSettings(Protocol):
    """What the settings of a construction say of its chosen side."""

    @property
    def without_reference(self) -> WithoutReference:
        """What stands there where a record has no reference."""

    @property
    def max_words(self) -> int:
        """Words beyond which a text is rejected."""

    @property
    def max_new_tokens(self) -> int:
        """Longest own caption in tokens."""


def chosen_side(
    record: Record, settings: ChosenSettings, keep_unfinished: bool = False
) -> Generator[Request, Any, tuple[str, str]]:
    """The chosen text and where it comes from: the record's reference or, where it has none and that is wanted, the
    model's own greedy caption of the clean image. Raises Rejected where there is none that is fit."""
    if record.reference is not None or settings.without_reference == "reject":
        remedy = "give it a caption, or set without_reference to own-caption"
        return text_filters.fit_reference(record, settings.max_words, remedy), "reference"
    context = Context(record.images, record.prompt, key=(record.id,))
    sampling = SamplingParams(settings.max_new_tokens, 0.0)
    caption: Answer
    [caption] = yield Sample(context, keys=((record.id,),), sampling=sampling)
    text_filters.require_fit("chosen", caption, settings.max_words, keep_unfinished)
    return caption.text, OWN_CAPTION
