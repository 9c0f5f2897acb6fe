"""Describe in words what is known about a record's images, for a judge that reads."""

from __future__ import annotations

from collections.abc import Iterator

from veridical.records import Annotations, Box, Message, Record


def known(record: Record) -> str:
    """Annotations and reference as lines of text; "none given" where there are none."""
    lines = list(_lines(record.annotations)) if record.annotations else []
    if record.reference:
        lines.append(f"A correct description: {record.reference}")
    return "\n".join(lines) or "none given"


def is_known(record: Record) -> bool:
    """Whether anything is known."""
    return record.annotations is not None or record.reference is not None


def question_of(prompt: tuple[Message, ...]) -> str:
    """A prompt as text, with the roles where it has more than one turn."""
    if len(prompt) == 1:
        return prompt[0].text
    return "\n".join(f"{turn.role}: {turn.text}" for turn in prompt)


def _lines(known: Annotations) -> Iterator[str]:
    if any(o.box for o in known.objects) or any(region.box for region in known.regions):
        yield "(Boxes are [left, top, right, bottom], as fractions of the picture's width and height.)"
    if known.scene:
        yield f"Scene: {known.scene}"
    for name, count in known.counts.items():
        these = [o for o in known.objects if o.name == name]
        places = "".join(f" {_box(o.box)}" for o in these if o.box)
        looks = ", ".join(dict.fromkeys(look for o in these for look in o.attributes))
        yield f"Object: {name} x {count}{f' ({looks})' if looks else ''}{f' at{places}' if places else ''}"
    for relation in known.relations:
        yield f"Relation: {relation.subject} {relation.relation} {relation.object}"
    for region in known.regions:
        yield f"Region{f' {_box(region.box)}' if region.box else ''}: {region.text}"
    for fact in known.facts:
        yield f"Fact: {fact}"


def _box(box: Box) -> str:
    return "[" + ", ".join(f"{edge:.2f}" for edge in box) + "]"
