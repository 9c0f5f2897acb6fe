"""Writers that change which objects a text names and leave its style alone."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from veridical.judges.interface import Rewrite
from veridical.judges.lexicon import Lexicon
from veridical.world import captions, writer


@dataclass(frozen=True)
class GrammarWriter:
    """Rewrites captions of the picture world by changing their plan; other texts it leaves to other
    writers."""

    def __call__(self, request: Rewrite) -> str | None:
        """The caption with its plan changed, or None where it is of another grammar or nothing would be
        left."""
        swapped = _swapped(request.text, request.swap)
        if swapped is None:
            return None
        return writer.rewrite(swapped, remove=request.leave_out, add=request.put_in)


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
    """Leaves out the whole sentences that name an object which is to go; adds and swaps nothing."""

    lexicon: Lexicon

    def __call__(self, request: Rewrite) -> str | None:
        """The other sentences, or None where more is asked for or none would be left."""
        if request.swap or request.put_in:
            return None
        kept = [part for part in _sentences(request.text) if not self._names(part, request.leave_out)]
        return "".join(kept).strip() or None

    def _names(self, sentence: str, names: Collection[str]) -> bool:
        return not set(self.lexicon.names(sentence)).isdisjoint(names)


def _sentences(text: str) -> list[str]:
    """The sentences of a text with the space after each; joined they are the text."""
    return re.findall(r".+?(?:[.!?]+(?=\s|$)\s*|$)", text, re.DOTALL)
