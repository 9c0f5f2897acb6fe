"""The grammar-based writer: does in the picture world what a large language model does elsewhere."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from numpy.random import Generator

from veridical.world.captions import FIRST, SECOND, THIRD, CaptionPlan, PlannedSentence, parse, render


def rewrite(caption: str, *, remove: Collection[str] = (), add: Sequence[str] = ()) -> str | None:
    """The caption with some classes left out and others added, worded as it was everywhere else.

    Returns None where the caption is not of the world's grammar, or where nothing would be left to say.
    """
    plan = parse(caption)
    if plan is None:
        return None
    changed = _with(_without(plan, remove), add)
    return render(changed) if changed.names else None


def _without(plan: CaptionPlan, names: Collection[str]) -> CaptionPlan:
    kept = [replace(s, items=tuple(item for item in s.items if item[0] not in names)) for s in plan.sentences]
    first, rest = kept[0], kept[1:]
    if not first.items and rest and rest[0].items:
        # The opening sentence carries the location, so it takes over what the second one still says.
        first, rest = replace(first, items=rest[0].items), rest[1:]
    closing = tuple(s for s, before in zip(kept[1:], plan.sentences[1:], strict=True) if s in rest and _says(s, before))
    return CaptionPlan(plan.theme, (first, *closing))


def _says(sentence: PlannedSentence, before: PlannedSentence) -> bool:
    """Whether a sentence still has what it was for: its objects, or a comment that never had any."""
    return bool(sentence.items) or not before.items


def _with(plan: CaptionPlan, names: Sequence[str]) -> CaptionPlan:
    if not names:
        return plan
    items = tuple((name, 1) for name in names)
    sentences = list(plan.sentences)
    last = max((i for i, s in enumerate(sentences) if s.items), default=0)
    if last == 0 and len(sentences[0].items) + len(items) > 3:
        sentences.insert(1, PlannedSentence(SECOND[0], items))
    else:
        sentences[last] = replace(sentences[last], items=sentences[last].items + items)
    return CaptionPlan(plan.theme, tuple(sentences))


def exchange(caption: str, items: Mapping[tuple[str, int], tuple[str, int] | None], theme: str | None) -> str | None:
    """The caption with other items (class, how many) in the place of some, None to leave one out; and moved to `theme`.

    Returns None where the caption is not of the world's grammar, or where nothing would be left to say.
    """
    plan = parse(caption)
    if plan is None:
        return None
    gone = {item[0] for item, new in items.items() if new is None}
    kept = _without(plan, gone)
    sentences = tuple(replace(s, items=tuple(items.get(i) or i for i in s.items)) for s in kept.sentences)
    return render(CaptionPlan(theme or plan.theme, sentences)) if kept.names else None


def add_partners(
    caption: str, partner: Mapping[str, str], there: Collection[str], count: int, rng: Generator
) -> str | None:
    """The caption with the usual partners of `count` of its objects named right after them.

    Only partners that are neither there nor named. Returns None where there are fewer, or another grammar.
    """
    plan = parse(caption)
    if plan is None:
        return None
    free = [n for n in plan.names if partner.get(n, n) not in there and partner.get(n, n) not in plan.names]
    if len(free) < count:
        return None
    chosen = {free[i] for i in rng.choice(len(free), count, replace=False)}
    sentences = []
    for sentence in plan.sentences:
        pairs = [(item, (partner[item[0]], 1)) if item[0] in chosen else (item,) for item in sentence.items]
        sentences.append(replace(sentence, items=tuple(item for pair in pairs for item in pair)))
    return render(CaptionPlan(plan.theme, tuple(sentences)))


def miscount(caption: str, count: int, rng: Generator) -> str | None:
    """The caption with a wrong number, two or three, for `count` of its objects, which are taken to be counted right.

    Returns None where it names fewer, or is of another grammar.
    """
    plan = parse(caption)
    if plan is None or len(plan.names) < count:
        return None
    chosen = {plan.names[i] for i in rng.choice(len(plan.names), count, replace=False)}
    sentences = []
    for sentence in plan.sentences:
        items = [
            (n, int(rng.choice([m for m in (2, 3) if m != k]))) if n in chosen else (n, k) for n, k in sentence.items
        ]
        sentences.append(replace(sentence, items=tuple(items)))
    return render(CaptionPlan(plan.theme, tuple(sentences)))


def restyle(captions: Sequence[str], variant: int) -> tuple[str, ...] | None:
    """All captions in the wording that `variant` picks; None where one is of another grammar.

    What a caption says stays, and so does its number of sentences.
    """
    plans = [parse(caption) for caption in captions]
    if any(plan is None for plan in plans):
        return None
    forms = (FIRST, SECOND, THIRD)
    wording = [variant % len(FIRST), variant // len(FIRST) % len(SECOND), variant % len(THIRD)]
    return tuple(
        render(_worded(plan, [form[i] for form, i in zip(forms, wording, strict=True)])) for plan in plans if plan
    )


def _worded(plan: CaptionPlan, templates: Sequence[str]) -> CaptionPlan:
    """The plan in the given first, second and closing template."""
    first, *rest = plan.sentences
    worded = [replace(first, template=templates[0])]
    worded += [replace(s, template=templates[1] if s.items else templates[2]) for s in rest]
    return CaptionPlan(plan.theme, tuple(worded))
