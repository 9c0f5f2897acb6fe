"""What constructions on weakened images share: which view it is, and which answer stands on the chosen side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from typing import Any, Literal, TypeAlias

from veridical.constructions import text_filters
from veridical.constructions.protocol import Answer, Request, Sample
from veridical.records import Record, Rejection
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


def chosen_side(
    record: Record, without_reference: WithoutReference, max_words: int, max_new_tokens: int, keep_unfinished: bool
) -> Generator[Request, Any, tuple[str, str] | Rejection]:
    """The chosen text and where it comes from: the record's reference or, where it has none and that is wanted, the
    model's own greedy caption of the clean image."""
    if record.reference is not None or without_reference == "reject":
        remedy = "give it a caption, or set without_reference to own-caption"
        reference = text_filters.fit_reference(record, max_words, remedy)
        return reference if isinstance(reference, Rejection) else (reference, "reference")
    context = Context(record.images, record.prompt, key=(record.id,))
    chosen: Answer
    [chosen] = yield Sample(context, keys=((record.id,),), sampling=SamplingParams(max_new_tokens, 0.0))
    wrong = text_filters.fault(chosen, max_words, keep_unfinished)
    return text_filters.reject(record.id, "chosen", Counter([wrong])) if wrong else (chosen.text, OWN_CAPTION)
