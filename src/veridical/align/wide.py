"""What of wide pairs an objective reads: pairs that lack what it needs are left out, what it doesn't read is said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from veridical.align.types import Example
from veridical.objectives.base import Objective, parts_read
from veridical.pairs.checks import PairWarning
from veridical.records import Pair
from veridical.vlm.images.views import Clean

_Problem = tuple[str, str, str]  # reason, remedy, detail


def whole_text(context: str, text: str) -> str:
    """An answer with the context that it continues."""
    return f"{context} {text}" if context else text


class WideParts:
    """Counts, over the pairs of a run, what they have beyond two answers, and compares it with what is read."""

    def __init__(self, objective: Objective | None) -> None:
        self._name = objective.name if objective else ""
        self._parts = parts_read(objective) if objective else {}
        needs = objective.needs() if objective else ()
        self._weakens = any(view != Clean() for need in needs for view in need.views)
        self._checked = objective is not None
        self._counts: Counter[str] = Counter()

    def lacking(self, example: Example) -> _Problem | None:
        """Why the objective can't use a pair; None where it can."""
        if self._parts.get("others") and not example.others:
            remedy = "Take pairs with further answers, or another setting of the objective"
            return "no-others", remedy, f"{self._name} reads a further answer, and {example.id} has none"
        if self._parts.get("contrast") and example.contrast is None:
            remedy = "Take pairs that bring a second image (counterfactual, re-align, rejected_images), or give a view "
            remedy += "such as --objective.view noise:900"
            return "no-contrast", remedy, f"{self._name} compares two images, and {example.id} has one"
        if self._weakens and not example.images:
            remedy = "Take another objective, such as dpo, or leave pairs without images out"
            return "no-image", remedy, f"{self._name} looks at weakened images, and {example.id} has none"
        return None

    def count(self, pair: Pair, example: Example) -> None:
        """Count what a pair that is used has."""
        contrasts = any(other.text == pair.chosen and other.images is not None for other in pair.others)
        self._counts.update(
            {
                "others": bool(example.others),
                "weights": any(answer.weight != 1 for answer in example.answers()),
                "contrast": contrasts,
                "left-out": len(pair.others) - len(example.others) - contrasts > 0,
                "text-only": not example.images,
            }
        )

    def warnings(self, used: int) -> Iterator[PairWarning]:
        """What is read otherwise than its owner may think, of the pairs that are used."""
        if not self._checked:
            return
        for part, what, remedy in _UNREAD:
            if self._counts[part] and part not in self._parts:
                warnings = f"{self._counts[part]} of {used} pairs have {what}, which {self._name} doesn't read"
                yield PairWarning(f"unread-{part}", warnings, remedy)
        if self._counts["left-out"]:
            warnings = (
                f"in {self._counts['left-out']} of {used} pairs a further answer is empty, too long, holds a special "
            )
            yield PairWarning(
                "further-answers", f"{warnings}token, or is the chosen one", "It is left out, the pair is not"
            )
        if self._counts["text-only"]:
            warnings = f"{self._counts['text-only']} of {used} pairs have no image; {self._name} learns their texts"
            yield PairWarning("text-only", warnings, "Leave them out where only what images show should be learnt")


_UNREAD = (
    ("others", "further rejected answers", "Take dpo or dpo-nll, which average over them"),
    ("weights", "weights of their own", "Take dpo or dpo-nll, which read them"),
    ("contrast", "a second image that contradicts the chosen answer", "Objectives that compare images take it: "
     "re-align, svco, and mdpo with --objective.view own"),
)  # fmt: skip
