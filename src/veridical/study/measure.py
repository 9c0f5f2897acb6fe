"""A study's numbers: each cell on all pictures and in each resample of them, the same pictures drawn for all.

From these arrays follow every difference, interval and verdict; see `protocols.inference`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from veridical import files
from veridical.errors import UserError
from veridical.protocols.equal_recall import COMPARED, CutCurve, Cuts, at_recall, cut_curve
from veridical.protocols.inference import Effect, Parts, Pool, effect, parts, pool
from veridical.protocols.metrics import Tally, of_ratios
from veridical.protocols.results import caption_task
from veridical.protocols.statistics import FloatArray, resample
from veridical.steps.stamps import read_stamp
from veridical.study.definition import GAP
from veridical.study.own_numbers import Numbers, counted_steps

if TYPE_CHECKING:
    from veridical.protocols.eval_task import Task
    from veridical.protocols.evaluation import Recounted
    from veridical.study.plan import Plan

RESAMPLES = 2000
UNDEFINED: FloatArray = np.full(1, np.nan)
NO_BASE = "no model"
"""The base of what is no model: pairs, and judges."""
MOST_PAIRS = 200
"""Pairs of arms whose spread over trainings is pooled."""
SAME = 50
"""Resamples in which models that are the same have the same numbers."""
LARGEST_JACKKNIFE = 2000
"""Pictures up to which each is left out in turn."""


@dataclass(frozen=True)
class Curves:
    """One model's captions cut ever shorter, on all pictures and in each resample, and without each in turn."""

    drawn: CutCurve
    without: CutCurve | None

    def recall(self, without: bool = False) -> FloatArray:
        """The recall of whole captions."""
        curve = self.without if without and self.without else self.drawn
        return curve.recall[:, -1]


@dataclass(frozen=True)
class MeasuredStudy:
    """What was measured of the models of a study that are there.

    `numbers` are by metric and model, [1 + resamples] with the number on all pictures first; `without` likewise,
    [pictures]. `shown` are labels, by metric.
    """

    numbers: Mapping[str, Mapping[str, FloatArray]]
    without: Mapping[str, Mapping[str, FloatArray]]
    curves: Mapping[str, Curves]
    base_of: Mapping[str, str]
    """The base of each cell's model, by name."""
    pictures: Mapping[str, int]
    """By metric, how many pictures or groups of questions were resampled."""
    shown: Mapping[str, str]
    protocols: Mapping[str, str]
    """The protocol's name, by metric."""
    items: Mapping[str, FloatArray]
    """By model, whether each caption invents; for what tells models apart picture by picture."""
    missing: Mapping[str, str] = field(default_factory=dict)
    """Cells without numbers, with the step that failed."""


def measure(plan: Plan, seed: int = 0) -> MeasuredStudy:
    """Count all answers that there are. Raises UserError where no cell has been measured yet."""
    answers, base_of, missing = _answers(plan)
    found = [_recounted(plan, key, answers, base_of) for key in plan.evals]
    parts = [_arrays(one, seed) for one in found if one is not None]
    others = counted_steps(plan, [cell for cell in plan.cells if cell.name not in (*plan.ways, *missing)])
    parts += [_of_own(by_cell, seed) for by_cell in others]
    base_of |= {name: NO_BASE for by_cell in others for name in by_cell}
    if not parts:
        raise UserError(f"{plan.out}: no cell has been measured yet; run the study first.")
    return _joined(parts, base_of, missing)


def _answers(plan: Plan) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """Under what each model's answers are kept, each cell's base, and the cells that have none."""
    answers: dict[str, str] = {}
    base_of: dict[str, str] = {}
    missing: dict[str, str] = {}
    for cell in plan.cells:
        step = plan.step(plan.measured[cell.name])
        stamp = read_stamp(plan.out, step)
        if stamp is None or stamp.state != "done":
            missing[cell.name] = stamp.said if stamp else "not run yet"
            continue
        if cell.name not in plan.ways:
            continue
        measured: Mapping[str, Any] = files.read_json(step.out / "results.json")["measured"]
        way = plan.ways[cell.name]
        base = f"base of {measured['base']['model']}, {way.key}"
        answers |= {cell.name: measured[way.name]["answers"], base: measured["base"]["answers"]}
        base_of[cell.name] = base
    if len(set(base_of.values())) == 1:
        only = next(iter(base_of.values()))
        answers = {"base" if name == only else name: kept for name, kept in answers.items()}
        base_of = dict.fromkeys(base_of, "base")
    return answers, base_of, missing


def _recounted(plan: Plan, key: str, answers: Mapping[str, str], base_of: Mapping[str, str]) -> Recounted | None:
    from dataclasses import replace

    from veridical.protocols.evaluation import recount

    config = plan.evals[key]
    cells = [name for name, way in plan.ways.items() if way.key == key and name in answers]
    if not cells:
        return None
    base, *models = config.models
    done = tuple(one for one in models if one.partition("=")[0] in cells)
    names = [*dict.fromkeys(base_of[name] for name in cells), *cells]
    methods = {name: plan.ways[name].decoding for name in cells if plan.ways[name].decoding is not None}
    return recount(replace(config, models=(base, *done)), {name: answers[name] for name in names}, methods)


def _of_own(by_cell: Mapping[str, Numbers], seed: int) -> MeasuredStudy:
    """What was counted of cells of one training seed, that are no models: their pairs, or a judge."""
    numbers: dict[str, dict[str, FloatArray]] = {}
    shown: dict[str, str] = {}
    groups = list(dict.fromkeys(group for one in by_cell.values() for group in one.groups))
    weights = _weights(len(groups), seed)
    for name, one in by_cell.items():
        for metric, drawn in _of(of_ratios(groups, one.ratios(groups)), weights).items():
            numbers.setdefault(metric, {})[name] = drawn
        shown |= one.shown
    counts = dict.fromkeys(numbers, len(groups))
    return MeasuredStudy(numbers, {}, {}, {}, counts, shown, dict.fromkeys(numbers, "pairs/1"), {})


def _arrays(found: Recounted, seed: int) -> MeasuredStudy:
    numbers: dict[str, dict[str, FloatArray]] = {}
    without: dict[str, dict[str, FloatArray]] = {}
    pictures: dict[str, int] = {}
    protocols: dict[str, str] = {}
    for key, task in found.tasks.items():
        tallies = _on_the_same({name: one[key].tally for name, one in found.counted.items()})
        count = len(next(iter(tallies.values())).groups)
        weights = _weights(count, seed)
        apart = _left_out(count)
        for name, tally in tallies.items():
            for metric, drawn in _of(tally, weights).items():
                numbers.setdefault(task.prefix + metric, {})[name] = drawn
                pictures[task.prefix + metric] = count
                protocols[task.prefix + metric] = task.name
            if apart is not None:
                for metric, drawn in _of(tally, apart).items():
                    without.setdefault(task.prefix + metric, {})[name] = drawn
    main = caption_task(found.counted)
    cuts = {name: kept for name, one in found.counted.items() if main in one and (kept := one[main].cuts) is not None}
    curves, items = _curves(cuts, seed)
    labels = {metric: label for task in found.tasks.values() for metric, label in _labels(task)}
    if curves:
        pictures[GAP] = len(next(iter(items.values())))
        labels[GAP] = f"{labels.get('chair_s', 'captions that invent').removesuffix(' %')} at equal recall"
        protocols[GAP] = found.tasks[main].name
    return MeasuredStudy(numbers, without, curves, {}, pictures, labels, protocols, items)


def _labels(task: Task) -> Iterator[tuple[str, str]]:
    """What a task's metrics are called; one that stands indented below another is called after it too."""
    above = ""
    for shown in task.shown:
        indented = shown.label.startswith(" ") and above
        yield (
            task.prefix + shown.metric,
            f"{above.removesuffix(' %')}: {shown.label.strip()}" if indented else shown.label,
        )
        above = above if indented else shown.label


def _on_the_same(tallies: Mapping[str, Tally]) -> dict[str, Tally]:
    """The tallies on the groups that all of them have."""
    first = next(iter(tallies.values()))
    shared = set.intersection(*(set(one.groups) for one in tallies.values()))
    groups = [group for group in first.groups if group in shared]
    return {name: one if list(one.groups) == groups else one.among(groups) for name, one in tallies.items()}


def _weights(count: int, seed: int) -> FloatArray:
    """All pictures once, then the resamples, [1 + resamples, pictures]."""
    return np.concatenate([np.ones((1, count)), resample(count, seed, RESAMPLES)])


def _left_out(count: int) -> FloatArray | None:
    return 1 - np.eye(count) if 1 < count <= LARGEST_JACKKNIFE else None


def _of(tally: Tally, weights: FloatArray) -> dict[str, FloatArray]:
    columns = np.stack(list(tally.sums.values()), axis=1)
    sums = weights @ columns
    return tally.formula({name: sums[:, place] for place, name in enumerate(tally.sums)})


def _curves(cuts: Mapping[str, Cuts], seed: int) -> tuple[dict[str, Curves], dict[str, FloatArray]]:
    if not cuts:
        return {}, {}
    first = next(iter(cuts.values()))
    shared = set.intersection(*(set(one.ids) for one in cuts.values()))
    ids = [key for key in first.ids if key in shared]
    kept = {name: one if list(one.ids) == ids else one.among(set(ids)) for name, one in cuts.items()}
    weights, apart = _weights(len(ids), seed), _left_out(len(ids))
    curves = {
        name: Curves(cut_curve(one, weights), None if apart is None else cut_curve(one, apart))
        for name, one in kept.items()
    }
    return curves, {name: one.counts["inventing"][:, -1] for name, one in kept.items()}


def _joined(parts: Sequence[MeasuredStudy], base_of: Mapping[str, str], missing: Mapping[str, str]) -> MeasuredStudy:
    """Several ways of measuring in one; a model stands once under each of its metrics."""
    numbers: dict[str, dict[str, FloatArray]] = {}
    without: dict[str, dict[str, FloatArray]] = {}
    merged = MeasuredStudy(numbers, without, {}, base_of, {}, {}, {}, {}, missing)
    for part in parts:
        for metric, by_name in part.numbers.items():
            numbers.setdefault(metric, {}).update(by_name)
        for metric, by_name in part.without.items():
            without.setdefault(metric, {}).update(by_name)
        for whole, own in (
            (merged.curves, part.curves), (merged.pictures, part.pictures), (merged.shown, part.shown),
            (merged.protocols, part.protocols), (merged.items, part.items),
        ):  # fmt: skip
            cast("dict[str, Any]", whole).update(own)
    return merged


def is_measured(found: MeasuredStudy, metric: str) -> bool:
    """Whether there are numbers of a metric."""
    return bool(found.curves) if metric == GAP else metric in found.numbers


Drawn = Callable[[bool], FloatArray]
"""A number in each resample; with True, without each picture in turn."""


def difference(found: MeasuredStudy, model: str, rival: str, metric: str) -> Drawn:
    """Model minus rival: of `GAP`, captions that invent where both recall as much, the longer captions cut short."""
    if not (_has(found, model, metric) and _has(found, rival, metric)):
        return lambda _: UNDEFINED
    if metric == GAP:
        return lambda without: _gap(found.curves[model], found.curves[rival], without)["chair_s"]
    return lambda without: (
        (found.without if without else found.numbers)[metric][model]
        - (found.without if without else found.numbers)[metric][rival]
    )


def _has(found: MeasuredStudy, model: str, metric: str) -> bool:
    """Whether a model, or what is none, was measured by a metric."""
    return model in (found.curves if metric == GAP else found.numbers.get(metric, {}))


def number(found: MeasuredStudy, model: str, metric: str) -> Drawn:
    """A model's number; of `GAP`, its difference from the base at equal recall."""
    if metric == GAP:
        return difference(found, model, found.base_of.get(model, "base"), GAP)
    if not _has(found, model, metric):
        return lambda _: UNDEFINED
    return lambda without: (found.without if without else found.numbers)[metric][model]


def _gap(model: Curves, rival: Curves, without: bool) -> dict[str, FloatArray]:
    ours, theirs = (one.without if without and one.without is not None else one.drawn for one in (model, rival))
    recall = np.minimum(ours.recall[:, -1], theirs.recall[:, -1])
    mine, other = at_recall(ours, recall), at_recall(theirs, recall)
    return {name: mine[name] - other[name] for name in COMPARED}


def over_seeds(
    found: MeasuredStudy,
    by_seed: Sequence[Sequence[tuple[float, Drawn]]],
    metric: str,
    pooled: Pool | None = None,
    share: float = 1.0,
    ends: bool = False,
) -> Effect | None:
    """The effect of weighted numbers: for each seed, (weight, number) to be summed. None where one isn't defined.

    `pooled` is the spread of trainings over all arms, of which this effect has a `share`; `ends` as for `effect`.
    """
    samples = [_summed(terms, without=False) for terms in by_seed]
    single = (
        len(by_seed) == 1
        and (metric == GAP or metric in found.without)
        and found.pictures.get(metric, 0) <= LARGEST_JACKKNIFE
    )
    apart = _summed(by_seed[0], without=True) if single else None
    values, drawn = [float(one[0]) for one in samples], [one[1:] for one in samples]
    if np.isnan(values).any():
        return None
    return effect(values, drawn, found.pictures.get(metric, 0), apart, pooled, share, ends)


def _summed(terms: Sequence[tuple[float, Drawn]], without: bool) -> FloatArray:
    whole: FloatArray = sum((weight * drawn(without) for weight, drawn in terms), np.zeros(1))
    return whole


def seed_pool(
    found: MeasuredStudy, arms: Sequence[str], seeds: Sequence[int], metric: str, base: bool = False
) -> Pool | None:
    """How much a difference of two arms varies from training to training, over all arms; with `base`, an arm's own
    number. Only arms that all seeds have count, and one of several that are the same models."""
    having = [arm for arm in arms if all(_has(found, f"{arm}.s{seed}", metric) for seed in seeds)]
    whole = list({_models(found, arm, seeds): arm for arm in reversed(having)}.values())[::-1]
    if len(seeds) < 2 or len(whole) < (1 if base else 2):
        return None
    if base:
        several = [[number(found, f"{arm}.s{seed}", metric)(False) for seed in seeds] for arm in whole]
        return pool([_parts(one) for one in several], len(whole) * (len(seeds) - 1))
    pairs = [(one, other) for place, one in enumerate(whole) for other in whole[place + 1 :]]
    # Of very many, neighbours are enough.
    pairs = pairs if len(pairs) <= MOST_PAIRS else list(itertools.pairwise(whole))
    several = [
        [difference(found, f"{one}.s{seed}", f"{other}.s{seed}", metric)(False) for seed in seeds]
        for one, other in pairs
    ]
    return pool([_parts(one) for one in several], (len(whole) - 1) * (len(seeds) - 1))


def squared_weights(found: MeasuredStudy, weights: Sequence[tuple[float, str]], seeds: Sequence[int]) -> float:
    """The squares of a contrast's weights, (weight, arm), summed over models: how often it has one training's variance.

    Arms that are the same models count as one with their weights together.
    """
    by_model: dict[bytes, float] = {}
    for weight, arm in weights:
        model = _models(found, arm, seeds)
        by_model[model] = by_model.get(model, 0.0) + weight
    return sum(weight**2 for weight in by_model.values())


def _models(found: MeasuredStudy, arm: str, seeds: Sequence[int]) -> bytes:
    """What an arm's models measured in every training and the first resamples, by which the same ones are known.

    So are fine-tunings on the same captions the same models, whatever the captions were paired with.
    """
    cells = [f"{arm}.s{seed}" for seed in seeds]
    return b"".join(
        metric.encode() + by_model[cell][:SAME].tobytes()
        for metric, by_model in found.numbers.items()
        for cell in cells
        if cell in by_model
    )


def _parts(drawn: Sequence[FloatArray]) -> Parts:
    return parts([float(one[0]) for one in drawn], np.stack([one[1:] for one in drawn]))
