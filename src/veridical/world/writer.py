"""The grammar-based writer: does in the picture world what a large language model does elsewhere."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from veridical.world.captions import SECOND, Plan, Sentence, parse, render


def rewrite(caption: str, *, remove: Collection[str] = (), add: Sequence[str] = ()) -> str | None:
    """The caption with some classes left out and others added, worded as it was everywhere else.

    Returns None where the caption is not of the world's grammar, or where nothing would be left to say.
    """
    plan = parse(caption)
    if plan is None:
        return None
    changed = _with(_without(plan, remove), add)
    return render(changed) if changed.names else None


def _without(plan: Plan, names: Collection[str]) -> Plan:
    kept = [replace(s, items=tuple(item for item in s.items if item[0] not in names)) for s in plan.sentences]
    first, rest = kept[0], kept[1:]
    if not first.items and rest and rest[0].items:
        # The opening sentence carries the location, so it takes over what the second one still says.
        first, rest = replace(first, items=rest[0].items), rest[1:]
    closing = tuple(s for s, before in zip(kept[1:], plan.sentences[1:], strict=True) if s in rest and _says(s, before))
    return Plan(plan.theme, (first, *closing))


def _says(sentence: Sentence, before: Sentence) -> bool:
    """Whether a sentence still has what it was for: its objects, or a comment that never had any."""
    return bool(sentence.items) or not before.items


def _with(plan: Plan, names: Sequence[str]) -> Plan:
    if not names:
        return plan
    items = tuple((name, 1) for name in names)
    sentences = list(plan.sentences)
    last = max((i for i, s in enumerate(sentences) if s.items), default=0)
    if last == 0 and len(sentences[0].items) + len(items) > 3:
        sentences.insert(1, Sentence(SECOND[0], items))
    else:
        sentences[last] = replace(sentences[last], items=sentences[last].items + items)
    return Plan(plan.theme, tuple(sentences))
