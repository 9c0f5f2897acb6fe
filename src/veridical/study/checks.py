"""What is looked at before the first run of a study: what records have, what methods need of them, and the budget."""

from __future__ import annotations

import dataclasses
import functools
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from veridical.errors import UserError
from veridical.formats.sources import is_world
from veridical.progress import clock
from veridical.steps.estimate import seconds_left
from veridical.study.definition import GAP, Study
from veridical.study.looking import seen
from veridical.study.own_numbers import SHOWN
from veridical.world.sft import RECORDS

if TYPE_CHECKING:
    from veridical.pairs.config import BuildConfig
    from veridical.steps.step import Step
    from veridical.study.plan import Plan

NEED_REFERENCE = ("povid", "bpo-inject")
"""Constructions that change a reference and have no use for a model's own caption."""
CONFIDENT = ("spa",)
"""Constructions whose pairs state a confidence."""


def check(study: Study, plan: Plan, processes: int) -> list[str]:
    """Look at everything that would otherwise fail late; returns what must be said before the work.

    Raises UserError for what the user can mend.
    """
    _check_axes(study)
    check_builds(plan)
    for step in plan.steps:
        if step.kind == "align":
            _check_objective(step.settings.objective, _constructions(plan, step), step.title)
            _check_model(step.settings.model, step.settings.allow_remote_code)
    _check_metrics(study, plan)
    notes = []
    if len(study.seeds) == 1:
        notes.append("one seed only: no verdict will say anything about other trainings of the same kind.")
    return notes + _check_budget(study, plan, processes)


def check_builds(plan: Plan) -> None:
    """Look at what the builds of a plan ask of their records. Raises UserError for what they can't give."""
    for step in plan.steps:
        if step.kind == "build":
            _check_build(step.settings)


def _check_axes(study: Study) -> None:
    for question in study.questions:
        values: Sequence[Any] = study.values.get(question.axis, ())
        numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
        if question.kind == "trend" and not (numeric and len(values) > 1):
            raise UserError(f"question {question.ask!r}: a trend needs an axis of numbers; {question.axis} is none.")
        if question.kind == "between" and len(question.levels) < 3:
            raise UserError(
                f"question {question.ask!r}: in between of {len(question.levels)} levels lies nothing; give 3."
            )


def _constructions(plan: Plan, step: Step) -> list[str]:
    """The constructions whose pairs a step is trained on: those of its builds, or of its sets of pairs."""
    before = [plan.step(name) for name in step.after]
    builds = [plan.step(name) for one in before if one.kind == "pairs" for name in one.after]
    return [one.settings.construction for one in (*before, *builds) if one.kind == "build"]


def _check_build(config: BuildConfig) -> None:
    """What a construction needs of records, as far as the first ones tell."""
    from veridical.constructions.registry import judge_needs
    from veridical.judges.interface import Compare, Detect, Presence, Rate, Verify

    source = "world:pairs" if config.records == "world" else config.records
    wanted = config.skip + (config.limit or 0)
    there = RECORDS.get(source, wanted)
    if wanted > there:
        raise UserError(
            f"{config.construction}: asks for {wanted} records of {source} (limit and skip together), which holds "
            f"{there}; lower limit, or take world:pairs, which has any number."
        )
    known = seen(source) if not is_world(source) else None
    if config.construction == "counterfactual" and (
        source != "world:counterfactual" if known is None else not known.counterfactual
    ):
        raise UserError(
            f"counterfactual: {source} has no changed images; use world:counterfactual, or records with "
            "`counterfactual_image` and `counterfactual_text`."
        )
    corrupts = getattr(config.settings, "direction", "") == "corrupt"
    if config.construction in NEED_REFERENCE or corrupts:
        if config.ignore_references:
            raise UserError(f"{config.construction}: changes a record's caption, so chosen can't be own-caption.")
        if known is not None and not known.captions:
            raise UserError(f"{config.construction}: {source} has no captions to change; add `text` to its records.")
    by_annotations = judge_needs(config.construction, config.settings) & {Detect, Rate, Compare, Verify, Presence}
    if by_annotations and config.judge.name in ("oracle", "mistaken") and known is not None and not known.annotated:
        raise UserError(
            f"{config.construction}: its judge goes by annotated objects, and {source} has none; add `objects` to its "
            "records, or name another judge (build.judge.name)."
        )


def _check_objective(objective: Any, constructions: Sequence[str], step: str) -> None:
    from veridical.objectives.base import scores_read

    for score in scores_read(objective):
        if lacking := [name for name in constructions if name not in CONFIDENT]:
            raise UserError(
                f"{step}: objective {objective.name} reads the pairs' {score}, which {', '.join(lacking)} doesn't "
                f"state; use {', '.join(CONFIDENT)}, or an objective without it."
            )


@functools.cache
def _check_model(model: str, allow_remote_code: bool) -> None:
    from veridical.vlm.model.loading import check_files

    check_files(model, allow_remote_code)


def _check_metrics(study: Study, plan: Plan) -> None:
    """That questions ask for numbers that are measured; where pictures are known only later, that is left to then."""
    from veridical.protocols.asked import read_tasks
    from veridical.protocols.registry import AFTER_ALL

    models = any(cell.name in plan.ways for cell in plan.cells)
    wanted = {question.metric for question in study.questions} | ({study.metric} if models else set())
    shown = set() if all(cell.name in plan.ways for cell in plan.cells) else set(SHOWN)
    for config in plan.evals.values():
        if late := [name for name in config.protocols if name in AFTER_ALL]:
            raise UserError(
                f"eval.protocols: {', '.join(late)} asks about what all models say, so it can't compare runs that are "
                "measured one by one; leave it out, and use `veridical eval` for it."
            )
        if config.records is None and config.held_out is None:
            return
        # Elsewhere, since a dry run leaves nothing behind.
        with tempfile.TemporaryDirectory() as elsewhere:
            tasks = read_tasks(dataclasses.replace(config, out=Path(elsewhere))).tasks
        shown |= {task.prefix + one.metric for task in tasks.values() for one in task.shown}
        if any(task.key.startswith("chair") for task in tasks.values()):
            shown.add(GAP)
    if missing := sorted(wanted - shown):
        raise UserError(f"metric {missing[0]!r} is not measured here; there are {', '.join(sorted(shown))}.")


def _check_budget(study: Study, plan: Plan, processes: int) -> list[str]:
    seconds = estimate(plan, processes)
    if study.budget_hours is None:
        return []
    if seconds is None:
        return [
            f"how long it takes with this model is not known yet; the budget of {study.budget_hours:g} h isn't checked."
        ]
    if seconds > study.budget_hours * 3600:
        raise UserError(
            f"about {clock(seconds)} of work, and budget_hours is {study.budget_hours:g}; use fewer levels or seeds, "
            "design one-at-a-time, a lower limit, more --processes, or raise the budget."
        )
    return []


def estimate(plan: Plan, processes: int, done: frozenset[str] = frozenset()) -> float | None:
    """Seconds that the steps take that aren't done; None where the model's speed is not known."""
    if not all(step.work.known for step in plan.steps if step.name not in done):
        return None
    return seconds_left(plan.steps, done, {}, processes, {})


def summary(plan: Plan) -> Mapping[str, int]:
    """How many steps of each kind a plan has."""
    found: dict[str, int] = {}
    for step in plan.steps:
        found[step.kind] = found.get(step.kind, 0) + 1
    return found
