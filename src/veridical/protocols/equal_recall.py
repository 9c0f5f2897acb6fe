"""The truncation baseline: what would the base invent if it only said as little?

A model that says less invents less. So a model's CHAIR is also compared with that of the base's own captions, cut after
their first 0, 1, 2, 3, ... different objects. Between two neighbouring cuts the base is taken on the straight line,
that is, some of its captions are cut one object later than others: sums are interpolated, then divided. Where a model
recalls at least as much as the base, the rival is the uncut base.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Literal

import numpy as np

from veridical.protocols.chair import ChairItem, ChairMention
from veridical.protocols.inference import tail
from veridical.protocols.metrics import share
from veridical.protocols.statistics import FloatArray, interval

COLUMNS = ("inventing", "invented", "mentions", "found", "objects", "words")
"""What is counted of a cut caption: whether it invents, invented and all mentions, different true and all objects,
words."""
COMPARED = ("chair_s", "chair_i", "objects", "words")
"""What is compared at equal recall."""


@dataclass(frozen=True)
class Cuts:
    """What is left of each caption at each cut: `counts` has an array [captions, cuts] for each of `COLUMNS`, the last
    cut being the whole caption; `truth` is the number of things to recall in each picture, [captions]."""

    ids: tuple[str, ...]
    counts: Mapping[str, FloatArray]
    truth: FloatArray

    def among(self, ids: Collection[str]) -> Cuts:
        """Those of some pictures, in their order."""
        rows = [row for row, key in enumerate(self.ids) if key in ids]
        kept = {name: column[rows] for name, column in self.counts.items()}
        return Cuts(tuple(self.ids[row] for row in rows), kept, self.truth[rows])

    def invented(self) -> dict[str, float]:
        """How much each whole caption invents."""
        return dict(zip(self.ids, self.counts["invented"][:, -1].tolist(), strict=True))


def cuts(items: Sequence[ChairItem]) -> Cuts:
    """Captions cut after their first 0, 1, 2, ... different objects."""
    truth = np.array([len(item.truth) for item in items], np.float64)
    return Cuts(tuple(item.id for item in items), cut_counts(items), truth)


def stacked(ids: Sequence[str], rows: Sequence[Sequence[Sequence[float]]], truth: Sequence[float]) -> Cuts:
    """Cuts out of the `COLUMNS` of each caption's own cuts, from nothing to the whole."""
    longest = max(map(len, rows), default=1)
    counts = np.zeros((len(COLUMNS), len(rows), longest))
    for place, row in enumerate(rows):
        counts[:, place, : len(row)] = np.asarray(row, np.float64).T
        counts[:, place, len(row) :] = np.asarray(row[-1], np.float64)[:, None]
    return Cuts(tuple(ids), dict(zip(COLUMNS, counts, strict=True)), np.asarray(truth, np.float64))


@dataclass(frozen=True)
class CutCurve:
    """Sums over the base's captions by cut; cut k keeps k objects.

    `sums` has an array [resamples, cuts] for each of `COLUMNS`, the last cut being the whole caption for every picture;
    `captions` and `truth`, [resamples] each, are the number of captions and of the objects in their pictures.
    """

    sums: Mapping[str, FloatArray]
    captions: FloatArray
    truth: FloatArray

    @property
    def chair_s(self) -> FloatArray:
        """CHAIRs at each cut, percent, [resamples, cuts]."""
        return share(self.sums["inventing"], np.broadcast_to(self.captions[:, None], self.sums["inventing"].shape))

    @property
    def recall(self) -> FloatArray:
        """Recall at each cut, percent, [resamples, cuts]; 0 where no picture holds anything."""
        return 100.0 * self.sums["found"] / np.maximum(self.truth, 1.0)[:, None]

    def whole(self) -> dict[str, FloatArray]:
        """The `COMPARED` metrics of uncut captions, [resamples] each."""
        return _metrics({name: column[:, -1] for name, column in self.sums.items()}, self.captions)


@dataclass(frozen=True)
class AtRecall:
    """One metric of a model and of the base cut to the model's recall; `low` and `high` are the 95 % interval of
    `difference`, paired by picture. All None where the metric is not defined for one of them."""

    base_cut: float | None
    aligned: float | None
    difference: float | None
    low: float | None
    high: float | None
    p: float | None = field(default=None, kw_only=True)
    """Two-sided, as goes with the interval."""


@dataclass(frozen=True)
class EqualRecall(AtRecall):
    """CHAIRs of a model and of the base cut to the model's recall, in percent; negative is better.

    `against` says whether the rival is the "cut" or the "uncut" base; `others` has the other `COMPARED` metrics.
    """

    recall: float
    against: Literal["cut", "uncut"]
    others: Mapping[str, AtRecall] = field(default_factory=dict)


def cut(item: ChairItem, objects: int) -> ChairItem:
    """The caption up to where its `objects`-th different object is named; whole if it names no more."""
    firsts = _first_mentions(item)
    if len(firsts) <= objects:
        return item
    end = firsts[objects - 1].end if objects else 0
    caption = item.caption[:end]
    kept = tuple(mention for mention in item.mentions if mention.end <= end)
    return replace(item, caption=caption, mentions=kept, words=len(caption.split()))


def cut_counts(items: Sequence[ChairItem]) -> dict[str, FloatArray]:
    """What is left of each caption at each cut, [captions, cuts] for each of `COLUMNS`; the last cut is the whole
    caption, for every picture."""
    named = [len(_first_mentions(item)) for item in items]
    cuts = 1 + max(named, default=0)
    counts = np.zeros((len(COLUMNS), len(items), cuts))
    for row, (item, objects) in enumerate(zip(items, named, strict=True)):
        for k in range(objects + 1):
            counts[:, row, k] = _counted(cut(item, k))
        counts[:, row, objects + 1 :] = counts[:, row, objects, None]
    return dict(zip(COLUMNS, counts, strict=True))


def _counted(item: ChairItem) -> tuple[float, ...]:
    """`COLUMNS` of one caption."""
    invented = sum(mention.invented for mention in item.mentions)
    judged = sum(not mention.unknown for mention in item.mentions)
    names = {mention.name for mention in item.mentions}
    named = {mention.name for mention in item.mentions if not (mention.invented or mention.unknown)}
    return invented > 0, invented, judged, len(named), len(names), item.words


def cut_curve(items: Sequence[ChairItem] | Cuts, weights: FloatArray) -> CutCurve:
    """The base's curve in each resample.

    Args:
        items: the base's captions, one a picture.
        weights: [resamples, pictures], from `statistics.resample`, or one row of ones.
    """
    whole = items if isinstance(items, Cuts) else cuts(items)
    sums = {name: weights @ column for name, column in whole.counts.items()}
    return CutCurve(sums, weights.sum(axis=1), weights @ whole.truth)


def at_recall(curve: CutCurve, recall: FloatArray) -> dict[str, FloatArray]:
    """The `COMPARED` metrics of the base cut to `recall` [resamples]: between cuts, uncut above its own recall.

    Where several cuts have one recall the shortest counts: it invents least for the same recall.
    """
    rows = np.arange(len(recall))
    reached = curve.recall >= recall[:, None]
    above = np.where(reached.any(axis=1), np.argmax(reached, axis=1), curve.recall.shape[1] - 1)
    below = np.maximum(above - 1, 0)
    span = curve.recall[rows, above] - curve.recall[rows, below]
    part = np.divide(recall - curve.recall[rows, below], span, out=np.ones_like(span), where=span > 0)
    # Above the base's own recall there is nothing to go on with; at it, the whole captions are the rival.
    above, part = (np.where(recall >= curve.recall[:, -1], whole, it) for whole, it in ((-1, above), (1.0, part)))
    sums = {name: (1 - part) * column[rows, below] + part * column[rows, above] for name, column in curve.sums.items()}
    return _metrics(sums, curve.captions)


def _metrics(sums: Mapping[str, FloatArray], captions: FloatArray) -> dict[str, FloatArray]:
    return {
        "chair_s": share(sums["inventing"], captions),
        "chair_i": share(sums["invented"], sums["mentions"]),
        "objects": share(sums["objects"], captions, 1.0),
        "words": share(sums["words"], captions, 1.0),
    }


@dataclass(frozen=True)
class Sides:
    """The `COMPARED` metrics of a model, and of the base cut to the model's `recall`; all [resamples]."""

    model: Mapping[str, FloatArray]
    rival: Mapping[str, FloatArray]
    recall: FloatArray


def sides(base: Sequence[ChairItem] | Cuts, model: Sequence[ChairItem] | Cuts, weights: FloatArray) -> Sides:
    """Both sides of the comparison in each resample, which recomputes the base's curve and the model's recall.

    To average over training seeds, average these over models made with the same `weights`, then take the interval.

    Raises:
        ValueError: the two do not caption the same pictures in the same order.
    """
    base, model = (side if isinstance(side, Cuts) else cuts(side) for side in (base, model))
    if base.ids != model.ids:
        raise ValueError("base and model must caption the same pictures in the same order")
    own = cut_curve(model, weights)
    recall = own.recall[:, -1]
    return Sides(own.whole(), at_recall(cut_curve(base, weights), recall), recall)


def equal_recall(
    base: Sequence[ChairItem] | Cuts, model: Sequence[ChairItem] | Cuts, weights: FloatArray
) -> EqualRecall:
    """Compare `model` with `base` cut to the model's recall, with paired 95 % intervals."""
    base, model = (side if isinstance(side, Cuts) else cuts(side) for side in (base, model))
    once = np.ones((1, len(base.ids)))
    values, samples = sides(base, model, once), sides(base, model, weights)
    compared = {
        name: _at_recall(values.rival[name], values.model[name], samples.model[name] - samples.rival[name])
        for name in COMPARED
    }
    recall, whole = float(values.recall[0]), float(cut_curve(base, once).recall[0, -1])
    return _with_others(compared, recall, "uncut" if recall >= whole else "cut")


def pair_at_recall(
    first: Sequence[ChairItem] | Cuts, second: Sequence[ChairItem] | Cuts, weights: FloatArray
) -> EqualRecall:
    """Compare two models where both recall as much: in each resample, whichever recalls more is cut to the other.

    `base_cut` and `aligned` are the first's and the second's numbers there, `against` says whether the first was cut.
    """
    first, second = (side if isinstance(side, Cuts) else cuts(side) for side in (first, second))
    if first.ids != second.ids:
        raise ValueError("both models must caption the same pictures in the same order")
    once = np.ones((1, len(first.ids)))
    points = [cut_curve(side, once) for side in (first, second)]
    curves = [cut_curve(side, weights) for side in (first, second)]
    return pair_of_curves(points, curves)


def pair_of_curves(points: Sequence[CutCurve], curves: Sequence[CutCurve]) -> EqualRecall:
    """`pair_at_recall` from both models' curves on all pictures and in each resample."""
    recall = np.minimum(points[0].recall[:, -1], points[1].recall[:, -1])
    values = [at_recall(curve, recall) for curve in points]
    least = np.minimum(curves[0].recall[:, -1], curves[1].recall[:, -1])
    samples = [at_recall(curve, least) for curve in curves]
    compared = {
        name: _at_recall(values[0][name], values[1][name], samples[1][name] - samples[0][name]) for name in COMPARED
    }
    cut_first = points[0].recall[0, -1] > points[1].recall[0, -1]
    return _with_others(compared, float(recall[0]), "cut" if cut_first else "uncut")


def _with_others(compared: dict[str, AtRecall], recall: float, against: Literal["cut", "uncut"]) -> EqualRecall:
    """The comparison by captions that invent, with those by the other metrics in `others`."""
    return EqualRecall(**asdict(compared.pop("chair_s")), recall=recall, against=against, others=compared)


def _at_recall(rival: FloatArray, model: FloatArray, differences: FloatArray) -> AtRecall:
    theirs, ours = float(rival[0]), float(model[0])
    if np.isnan(theirs) or np.isnan(ours):
        return AtRecall(None, None, None, None, None)
    return AtRecall(theirs, ours, ours - theirs, *interval(differences), p=tail(differences))


def _first_mentions(item: ChairItem) -> list[ChairMention]:
    """Where each different object is named for the first time, in order."""
    firsts: dict[str, ChairMention] = {}
    for mention in item.mentions:
        firsts.setdefault(mention.name, mention)
    return list(firsts.values())
