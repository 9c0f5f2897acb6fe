"""Can the chosen side be told without the image? Held-out accuracy of classifiers that see length, beginning or words.

What a trivial classifier can tell is what training may learn in place of seeing; where no shortcut works, it scores
50 %. Pairs of the same images stay together in one fold, so that no caption is tested on a picture seen in training.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from veridical.judges.tokens import words
from veridical.pairs.audit.finding import Finding
from veridical.records import Pair

FOLDS = 5
FEWEST = 40
"""Pairs below which a classifier tells nothing."""
SUSPICIOUS = 65.0
"""Percent right at the lower end of the interval from which a shortcut is warned of."""
_MOST = 5000
_Side = Callable[[str], dict[str, float]]


def check_shortcuts(pairs: Sequence[Pair], seed: int = 0) -> Iterator[Finding]:
    """How well length, first words and a bag of words alone tell which side is chosen."""
    texts = [pair for pair in pairs if pair.chosen and pair.rejected and len(words(pair.chosen)) > 1]
    if len(texts) < FEWEST:
        yield Finding("shortcuts", "note", f"{len(texts)} pairs of texts are too few to look for shortcuts")
        return
    chosen = random.Random(seed).sample(texts, _MOST) if len(texts) > _MOST else texts
    for kind, features, what, remedy in _KINDS:
        yield _finding(kind, what, remedy, *_held_out(chosen, features, seed))


def _length(text: str) -> dict[str, float]:
    return {"words": float(len(words(text)))}


def _first(text: str) -> dict[str, float]:
    return {" ".join(words(text.lower())[:2]): 1.0}


def _bag(text: str) -> dict[str, float]:
    return {word: float(count) for word, count in Counter(words(text.lower())).items()}


_KINDS: tuple[tuple[str, _Side, str, str], ...] = (
    ("length-tells", _length, "length", "match lengths (build --length-matched), or rewrite both sides in one style"),
    ("beginning-tells", _first, "the first two words", "rewrite both sides in one style"),
    ("words-tell", _bag, "a bag of words", "let the same model write both sides, or rewrite both in one style"),
)  # fmt: skip


def _held_out(pairs: Sequence[Pair], features: _Side, seed: int) -> tuple[float, int]:
    """How many pairs a linear classifier on the sides' difference orders rightly, on images that it hasn't seen.

    Where it sees no difference, it is right by half.
    """
    from sklearn.feature_extraction import DictVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold

    rows = [_difference(features(pair.chosen), features(pair.rejected)) for pair in pairs]
    groups = [pair.images[0].sha256 if pair.images else pair.record_id for pair in pairs]
    folds = min(FOLDS, len(set(groups)))
    if folds < 2:
        return 0, 0
    if not any(rows):
        return len(rows) / 2, len(rows)
    x = DictVectorizer().fit_transform(rows)
    signs = [random.Random(f"{seed}/{pair.id}").choice((-1.0, 1.0)) for pair in pairs]
    x = x.multiply([[sign] for sign in signs]).tocsr()
    y = [sign > 0 for sign in signs]
    right = 0.0
    for train, test in GroupKFold(folds).split(x, y, groups):
        if len({y[i] for i in train}) < 2:
            continue
        model = LogisticRegression(C=1.0, fit_intercept=False, max_iter=500).fit(x[train], [y[i] for i in train])
        leaning = zip(model.decision_function(x[test]), test, strict=True)
        right += sum(0.5 if lean == 0 else float((lean > 0) == y[i]) for lean, i in leaning)
    return right, len(pairs)


def _difference(one: dict[str, float], other: dict[str, float]) -> dict[str, float]:
    differences = {name: one.get(name, 0.0) - other.get(name, 0.0) for name in one.keys() | other.keys()}
    return {name: value for name, value in differences.items() if value}


def _finding(kind: str, what: str, remedy: str, right: float, count: int) -> Finding:
    from statsmodels.stats.proportion import proportion_confint

    if not count:
        return Finding(kind, "note", f"too few different images to test whether {what} tells the chosen side")
    low, high = (100 * float(end) for end in proportion_confint(right, count, method="wilson"))
    value = 100 * right / count
    numbers: dict[str, Any] = {"accuracy": value, "low": low, "high": high, "pairs": count}
    text = f"by {what} alone the chosen side is told in {value:.1f} % [{low:.1f}, {high:.1f}] of {count} held-out pairs"
    suspicious = low >= SUSPICIOUS
    return Finding(kind, "warning" if suspicious else "note", text, remedy if suspicious else "", numbers=numbers)
