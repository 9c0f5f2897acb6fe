"""Turn what a published set says into veridical's pairs and records."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

from veridical.formats.published.types import Answer, Comparison, Example, Format, ImageSource
from veridical.formats.rows import UnusableError
from veridical.records import FurtherAnswer, ImageFile, Message, Pair, Provenance, Record

Find = Callable[[ImageSource], ImageFile]


def to_pair(comparison: Comparison, find: Find, form: Format, name: str = "") -> Pair:
    """A comparison as a pair whose images are found. `name` is its id, if not its own. Raises UnusableError."""
    chosen, rejected, *others = comparison.answers
    for one in (rejected, *others):
        if one.text == chosen.text and one.images is None:
            raise UnusableError("same-answers", "both answers are the same", "delete the row")
    made = comparison.made
    if made is not None:
        own = {f.name: getattr(made, f.name) for f in fields(made)}
        return replace(_pair(comparison, find, form), **own | ({"id": name} if name else {}))
    return _pair(comparison, find, form, name or f"{form.name}/{comparison.id}")


def _pair(comparison: Comparison, find: Find, form: Format, name: str = "") -> Pair:
    chosen, rejected, *others = comparison.answers
    return Pair(
        id=name,
        record_id=comparison.record or comparison.id,
        images=tuple(map(find, comparison.images)),
        prompt=comparison.prompt,
        chosen=chosen.text,
        rejected=rejected.text,
        provenance=Provenance(
            construction=form.name,
            variant="imported",
            parameters=comparison.notes,
            seed=0,
            model="",
            judge=form.judge,
            chosen_source=chosen.source,
            rejected_source=rejected.source,
            scores={
                **{n: one.score for n, one in (("chosen", chosen), ("rejected", rejected)) if one.score is not None},
                **comparison.scores,
            },
        ),
        spans=comparison.spans,
        context=comparison.context,
        rejected_images=None if rejected.images is None else tuple(map(find, rejected.images)),
        weights=_weights(chosen, rejected),
        others=tuple(_further(one, find) for one in others),
    )


def _weights(chosen: Answer, rejected: Answer) -> tuple[float, float] | None:
    if chosen.weight is None and rejected.weight is None:
        return None
    return (1.0 if chosen.weight is None else chosen.weight, 1.0 if rejected.weight is None else rejected.weight)


def _further(answer: Answer, find: Find) -> FurtherAnswer:
    images = None if answer.images is None else tuple(map(find, answer.images))
    return FurtherAnswer(answer.text, answer.source, answer.score, images, answer.weight, answer.spans)


def to_record(example: Example, find: Find, source: str, default_prompt: str, name: str = "") -> Record:
    """An example as a record whose images are found. `name` is its id, if not its own. Raises UnusableError."""
    if not example.images:
        raise UnusableError("no-image", "names no image", "delete the row, or import it as text")
    return Record(
        id=name or example.id,
        images=tuple(map(find, example.images)),
        prompt=example.prompt or (Message("user", default_prompt),),
        reference=example.reference,
        annotations=example.annotations,
        source=source,
    )
