"""What results.json of a study holds: answers, a table of arms, every two arms compared, and what failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from veridical import __version__
from veridical.protocols.inference import Pool, adjusted, spread
from veridical.steps.stamps import read_stamp
from veridical.study.answers import StudyAnswer, answers, pseudo_values
from veridical.study.definition import GAP, Study
from veridical.study.measure import Drawn, MeasuredStudy, difference, number, over_seeds, seed_pool
from veridical.study.pair_sets import available
from veridical.study.plan import Plan

BASE = "base"
MOST_METRICS = 12
FIRST = (
    GAP, "chair_s", "recall", "chair_i", "words", "objects", "repetition", "pope_adversarial_accuracy",
    "pope_adversarial_yes_ratio",
)  # fmt: skip
"""Metrics that stand first in the table, where they were measured."""
LOWER = ("chair_s", "chair_i", "repetition", "repeated_ngrams", GAP)
HIGHER = ("recall", "accuracy", "acc", "acc_plus")


def collect(study: Study, plan: Plan, found: MeasuredStudy) -> dict[str, Any]:
    """Everything about a study's numbers, as JSON values."""
    metrics = _metrics(found, [study.metric, *(question.metric for question in study.questions)])
    arms = {arm.name: [seed for seed in study.seeds if f"{arm.name}.s{seed}" in found.base_of] for arm in study.arms}
    measured = {name: seeds for name, seeds in arms.items() if seeds}
    return {
        "veridical": __version__,
        "title": study.title,
        "study": dict(study.source),
        "seeds": list(study.seeds),
        "seeds_of": study.seeds_of,
        "correction": study.correction,
        "metrics": {
            metric: {
                "label": found.shown.get(metric, metric).strip(),
                "protocol": found.protocols.get(metric, ""),
                "pictures": found.pictures.get(metric, 0),
                "better": better_of(metric),
            }
            for metric in metrics
        },
        "axes": {axis: list(levels) for axis, levels in study.axes.items()},
        "values": {axis: list(values) for axis, values in study.values.items()},
        "answers": [_answer(answer) for answer in answers(study, found)],
        "base": {metric: _number(found, "base", metric) for metric in metrics if metric != GAP}
        if _one_base(found)
        else {},
        "arms": {
            arm.name: {
                "levels": dict(arm.levels),
                "settings": dict(arm.settings),
                "seeds": arms[arm.name],
                "pairs": _pairs(plan, arm.name, arms[arm.name]),
                "numbers": {metric: _over(found, arm.name, arms, metric) for metric in metrics}
                if arms[arm.name]
                else {},
                "cells": {str(seed): _cell(plan, f"{arm.name}.s{seed}", found, metrics) for seed in study.seeds},
                "spread": _spread(found, arm.name, arms[arm.name]),
            }
            for arm in study.arms
        },
        "pairs": _every_two(found, measured, metrics),
        "curves": _base_curve(found),
        "missing": dict(found.missing),
        "failed": _failed(plan),
    }


def better_of(metric: str) -> str:
    """Which way a metric is better; "" where neither."""
    if metric in LOWER:
        return "lower"
    return "higher" if metric in HIGHER or metric.endswith(("_accuracy", "_acc", "_recall")) else ""


def _one_base(found: MeasuredStudy) -> bool:
    return set(found.base_of.values()) == {"base"}


def _metrics(found: MeasuredStudy, asked: Sequence[str]) -> list[str]:
    """What the study asks about, then what stands first, then what else was measured and there is room for."""
    wanted = dict.fromkeys((*asked, *FIRST, *found.shown))
    return [metric for metric in wanted if metric in found.pictures][:MOST_METRICS]


def _answer(one: StudyAnswer) -> dict[str, Any]:
    return {
        **{key: value for key, value in asdict(one).items() if key != "comparisons"},
        "comparisons": [asdict(comparison) for comparison in one.comparisons],
    }


def _number(found: MeasuredStudy, model: str, metric: str) -> dict[str, Any] | None:
    effect = over_seeds(found, [[(1.0, number(found, model, metric))]], metric)
    return None if effect is None else asdict(effect)


def _over(found: MeasuredStudy, arm: str, arms: Mapping[str, Sequence[int]], metric: str) -> dict[str, Any] | None:
    terms = [[(1.0, number(found, f"{arm}.s{seed}", metric))] for seed in arms[arm]]
    spread = seed_pool(found, list(arms), arms[arm], metric, base=True)
    effect = over_seeds(found, terms, metric, spread, ends=metric != GAP)
    return None if effect is None else asdict(effect)


def _cell(plan: Plan, name: str, found: MeasuredStudy, metrics: Sequence[str]) -> dict[str, Any]:
    """A run's folders and its own numbers."""
    steps = {"trained": plan.trained[name], "measured": plan.measured[name], "pairs": plan.sets.get(name, "")}
    folders = {key: str(plan.step(step).out.relative_to(plan.out)) for key, step in steps.items() if step}
    if name not in found.base_of:
        return {"folders": folders, "missing": found.missing.get(name, "not run yet")}
    values = {metric: float(number(found, name, metric)(False)[0]) for metric in metrics}
    return {"folders": folders, "numbers": {key: None if value != value else value for key, value in values.items()}}


def _pairs(plan: Plan, arm: str, seeds: Sequence[int]) -> list[int]:
    """How many pairs each seed was trained on."""
    found = []
    for seed in seeds:
        step = plan.sets.get(f"{arm}.s{seed}")
        stamp = read_stamp(plan.out, plan.step(step)) if step else None
        if step and stamp is not None and stamp.state == "done":
            found.append(int(stamp.product["pairs"]) if stamp.product else available([plan.step(step).out]))
    return found


def _spread(found: MeasuredStudy, arm: str, seeds: Sequence[int]) -> dict[str, float] | None:
    """Of the difference from the base, how much varies with pictures, with trainings, and with both together."""
    import numpy as np

    metric = GAP if found.curves else next(iter(found.shown), "")
    values = [pseudo_values(found, f"{arm}.s{seed}", metric) for seed in seeds]
    known = [one for one in values if one is not None]
    if len(known) < 2 or len(known) < len(values) or np.isnan(known).any():
        return None
    parts = asdict(spread(np.stack(known)))
    whole = sum(parts.values())
    return {name: 100 * value / whole for name, value in parts.items()} if whole else None


def _every_two(found: MeasuredStudy, arms: Mapping[str, Sequence[int]], metrics: Sequence[str]) -> list[dict[str, Any]]:
    """Every two arms, and each with the base: second minus first, corrected by Benjamini-Hochberg for each metric."""
    names = ([BASE] if _one_base(found) else []) + list(arms)
    rows: list[dict[str, Any]] = []
    pools: dict[Any, Pool | None] = {}
    for place, first in enumerate(names):
        for second in names[place + 1 :]:
            seeds = [seed for seed in arms.get(second, ()) if first == BASE or seed in arms.get(first, ())]
            differences: dict[str, Any] = {}
            for metric in metrics if seeds else ():
                terms = [[(1.0, _between(found, first, second, seed, metric))] for seed in seeds]
                effect = over_seeds(
                    found, terms, metric, _pool(pools, found, list(arms), tuple(seeds), metric, first == BASE)
                )
                if effect is not None:
                    differences[metric] = asdict(effect)
            rows.append({"first": first, "second": second, "seeds": seeds, "differences": differences})
    for metric in metrics:
        having = [row["differences"][metric] for row in rows if metric in row["differences"]]
        for one, p in zip(having, adjusted([one["p"] for one in having], "bh"), strict=True):
            one["p_bh"] = p
    return rows


def _pool(
    known: dict[Any, Pool | None],
    found: MeasuredStudy,
    arms: Sequence[str],
    seeds: tuple[int, ...],
    metric: str,
    base: bool,
) -> Pool | None:
    """The spread of trainings, worked out once for each metric and seeds."""
    key = (seeds, metric, base)
    if key not in known:
        known[key] = seed_pool(found, arms, seeds, metric, base)
    return known[key]


def _between(found: MeasuredStudy, first: str, second: str, seed: int, metric: str) -> Drawn:
    return difference(found, f"{second}.s{seed}", BASE if first == BASE else f"{first}.s{seed}", metric)


def _base_curve(found: MeasuredStudy) -> list[dict[str, float]]:
    """The base's captions cut ever shorter: recall and captions that invent, for the plot."""
    if "base" not in found.curves:
        return []
    curve = found.curves["base"].drawn
    return [
        {"recall": float(recall), "chair_s": float(invents)}
        for recall, invents in zip(curve.recall[0], curve.chair_s[0], strict=True)
    ]


def _failed(plan: Plan) -> list[dict[str, str]]:
    found = []
    for step in plan.steps:
        stamp = read_stamp(plan.out, step)
        if stamp is not None and stamp.state != "done":
            found.append({"step": step.name, "state": stamp.state, "said": stamp.said, "log": stamp.log})
    return found
