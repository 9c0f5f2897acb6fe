"""Writers that change which objects a text names and leave its style alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from veridical.judges.faults import article
from veridical.judges.interface import Fault, Rewrite
from veridical.judges.lexicon import Lexicon
from veridical.judges.sentences import sentences
from veridical.world import captions, writer


@dataclass(frozen=True)
class GrammarWriter:
    """Rewrites captions of the picture world by changing their plan; other texts it leaves to other writers."""

    def __call__(self, request: Rewrite) -> str | None:
        """The caption with its plan changed, or None where it is of another grammar or nothing would be left."""
        mended = _mended(request.text, request.faults)
        swapped = None if mended is None else _swapped(mended, request.swap)
        if swapped is None:
            return None
        return writer.rewrite(swapped, remove=request.leave_out, add=request.put_in)


def _mended(text: str, faults: Sequence[Fault]) -> str | None:
    """The caption with its faults put right, the verbs agreeing; None where a fault is none of the grammar's."""
    colours = [fault for fault in faults if fault.kind == "attribute"]
    items: dict[tuple[str, int], tuple[str, int] | None] = {}
    theme = None
    for fault in faults:
        said = text[fault.start : fault.end]
        if fault.kind == "count" and (wrong := captions.read_phrase(said)):
            items[wrong] = captions.read_phrase(fault.correction)
        elif fault.kind == "relation" and (place := captions.theme_of(fault.correction)):
            theme = place
        elif fault.kind == "object" and (named := _class(said)):
            items |= {(named, count): None for count in range(1, len(captions.NUMBERS))}
        elif fault not in colours:
            return None
    return writer.exchange(mend(text, colours), items, theme) if faults else text


def _class(noun: str) -> str | None:
    """The class of a noun of the grammar, singular or plural."""
    read = captions.read_phrase(f"{article(noun)} {noun}") or captions.read_phrase(f"two {noun}")
    return read[0] if read else None


def mend(text: str, faults: Sequence[Fault]) -> str:
    """The text with the correction of each fault in its place; faults without one are left as they are."""
    for fault in sorted(faults, key=lambda fault: fault.start, reverse=True):
        if fault.correction:
            text = text[: fault.start] + fault.correction + text[fault.end :]
    return text


def _swapped(text: str, swap: Mapping[str, str]) -> str | None:
    """The caption with some classes in the place of others: one of each, where its predecessor first
    stood."""
    plan = captions.parse(text)
    if plan is None:
        return None
    seen: set[str] = set()
    sentences = []
    for sentence in plan.sentences:
        items = []
        for name, count in sentence.items:
            if name not in swap:
                items.append((name, count))
            elif name not in seen:
                items.append((swap[name], 1))
                seen.add(name)
        if items or not sentence.items:
            sentences.append(replace(sentence, items=tuple(items)))
    return captions.render(replace(plan, sentences=tuple(sentences)))


@dataclass(frozen=True)
class SentenceWriter:
    """Corrects in place what has a correction, and leaves out the whole sentences that name what is to go or hold a
    fault without one; adds and swaps nothing.
    """

    lexicon: Lexicon

    def __call__(self, request: Rewrite) -> str | None:
        """The other sentences, or None where more is asked for or none would be left."""
        if request.swap or request.put_in:
            return None
        kept, start = [], 0
        for part in sentences(request.text):
            inside = [f for f in request.faults if start <= f.start < start + len(part)]
            moved = [replace(f, start=f.start - start, end=f.end - start) for f in inside]
            start += len(part)
            if all(fault.correction for fault in moved) and not self._names(part, request.leave_out):
                kept.append(mend(part, moved))
        return "".join(kept).strip() or None

    def _names(self, sentence: str, names: Collection[str]) -> bool:
        return not set(self.lexicon.names(sentence)).isdisjoint(names)
