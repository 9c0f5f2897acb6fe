"""From a study to steps: what is built, trained and measured, each thing once however many cells need it.

Names of folders end in a hash of what was done and with what, and say nothing of the arm that it is for. So a study
whose file was edited uses again what stayed the same, two arms that differ in their objective alone share their pairs,
and studies in one folder share every run that is the same in both, whatever they call it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from veridical import runs
from veridical.config import flags, to_plain
from veridical.errors import UserError
from veridical.recipes.steps import INLINE, named, resolved, settings_type, with_common
from veridical.registry import label as label_of
from veridical.steps.estimate import Work, align_work, build_work, eval_work, step_work
from veridical.steps.step import BASE, Step, Steps, digest_of
from veridical.study.definition import Arm, Study
from veridical.study.pair_sets import DrawnSet, write_set
from veridical.study.settings import PAIRS, ArmRecipe, parsed, recipe

if TYPE_CHECKING:
    from veridical.protocols.config import EvalConfig


@dataclass(frozen=True)
class Cell:
    """An arm with a seed: one run."""

    arm: Arm
    seed: int

    @property
    def name(self) -> str:
        """What its model is called in results."""
        return f"{self.arm.name}.s{self.seed}"


@dataclass(frozen=True)
class Way:
    """How a cell's model is measured: by which of a plan's evaluations, what it is called in its results, and by which
    method of decoding, if any."""

    key: str
    name: str
    decoding: Any = None


@dataclass(frozen=True, kw_only=True)
class Plan(Steps):
    """All steps in an order that works, the cells, and where each cell's results are."""

    cells: tuple[Cell, ...]
    trained: Mapping[str, str]
    """The step that trains a cell, by the cell's name; where nothing is trained, what is measured."""
    measured: Mapping[str, str]
    """The step whose results are a cell's numbers: an evaluation, its pairs, or a judge's."""
    ways: Mapping[str, Way]
    """How a cell's model is measured; cells that are no model's have none."""
    sets: Mapping[str, str]
    """The step that makes a cell's pairs."""
    evals: Mapping[str, EvalConfig]
    """By key, an evaluation of all cells that are measured alike, which says what pictures and questions there are."""


def plan(study: Study, out: Path) -> Plan:
    """The steps of a study whose folder is `out`. Raises UserError for settings that can't be."""
    return planned(study, {arm.name: recipe(arm, study.size) for arm in study.arms}, out)


def planned(study: Study, recipes: Mapping[str, ArmRecipe], out: Path) -> Plan:
    """The steps of a study whose arms are run by these recipes, by the arm's name."""
    steps: dict[str, Step] = {}
    cells = tuple(Cell(arm, seed) for seed in study.seeds for arm in study.arms)
    builds: dict[str, tuple[str, ...]] = {}
    sets: dict[str, str] = {}
    trained: dict[str, str] = {}
    measured: dict[str, str] = {}
    ways: dict[str, Way] = {}
    evals: dict[str, EvalConfig] = {}
    # Seed by seed, so that a study that is stopped early has whole seeds to tell of.
    for seed in study.seeds:
        own = [cell for cell in cells if cell.seed == seed]
        builds |= {cell.name: _builds(cell, recipes[cell.arm.name], study, out, steps) for cell in own}
        for cell in own:
            made = recipes[cell.arm.name]
            if made.loop == "mixed":
                # Its rounds take from the build itself the pairs of their own records, whatever the size of other sets.
                sets[cell.name] = builds[cell.name][0]
            elif made.takes_pairs:
                sets[cell.name] = _set(cell, made, builds, recipes, own, study, out, steps)
        for cell in own:
            made = recipes[cell.arm.name]
            done = _trained(cell, made, builds[cell.name], sets.get(cell.name), study, out, steps)
            if made.measured != "model":
                measured[cell.name] = trained[cell.name] = str(done)
                continue
            measured[cell.name] = _eval(cell, made, done, out, steps)
            trained[cell.name] = done or measured[cell.name]
            ways[cell.name] = _way(cell, made, done, out, steps, evals)
    return Plan(
        out=out,
        steps=tuple(steps.values()),
        here={PAIRS: write_set},
        by_content=True,
        cells=cells,
        trained=trained,
        measured=measured,
        ways=ways,
        sets=sets,
        evals=evals,
    )


def _trained(
    cell: Cell,
    made: ArmRecipe,
    builds: Sequence[str],
    pairs: str | None,
    study: Study,
    out: Path,
    steps: dict[str, Step],
) -> str | None:
    """The step that makes what is measured of a cell; None where that is the model as it is."""
    if made.measured == "pairs":
        return pairs
    if made.steps is not None:
        return chain(cell, made, pairs, _pair_seed(cell, study), out, steps)
    if made.loop == "offline":
        return _align(cell, made, str(pairs), out, steps)
    return _loop(cell, made, builds[0] if made.loop == "mixed" else None, out, steps)


def chain(
    cell: Cell, made: ArmRecipe, pairs: str | None, pair_seed: int, out: Path, steps: dict[str, Step]
) -> str | None:
    """The steps that an arm states itself, in order; gives the last one's name, None where there is none.

    Raises UserError that names the arm and the step for settings that can't be.
    """
    names = {PAIRS: pairs} if pairs else {}
    for one in made.steps or ():
        where = f"arm {cell.arm.name}: steps.{one.name}"
        folders = {name: steps[step].out for name, step in names.items()}
        try:
            wanted = resolved(one.settings, folders)
            common = {**made.common[""], "seed": pair_seed if one.command == "build" else cell.seed}
            more = {
                inner: with_common(inner, {**made.common[inner], **wanted.pop(inner, {})}, common)
                for inner in INLINE.get(one.command, ())
            }
            filled = with_common(one.command, {**made.common.get(one.command, {}), **wanted}, common)
            kind = settings_type(one.command, filled)
            for inner, settings in more.items():
                flags(settings, settings_type(inner, settings), Path(where))
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
        label = f"{one.command.replace(' ', '-')}-{_short([filled, more], out)}"
        name, folder = f"{one.command} {label.rpartition('-')[2]}", out / "runs" / label
        files = {inner: str(out / "settings" / f"{name.replace(' ', '-')}.{inner}.yaml") for inner in more}
        config = parsed(kind, {**filled, **files, "out": str(folder)}, where)
        work = step_work(one.command, config, _expected_pairs(made))
        after = tuple(dict.fromkeys(names[used] for used in named(one.settings)))
        steps.setdefault(name, Step(name, one.command, folder, config, after, work=work, more=more, shown=cell.name))
        names[one.name] = name
    return names[made.steps[-1].name] if made.steps else None


def _builds(cell: Cell, made: ArmRecipe, study: Study, out: Path, steps: dict[str, Step]) -> tuple[str, ...]:
    """The builds that a cell's pairs come from, made as steps where no other cell needed them."""
    if not made.takes_pairs and made.loop != "mixed":
        return ()
    names = []
    for config in made.builds:
        seeded = dataclasses.replace(
            config,
            seed=_pair_seed(cell, study),
            ignore_references=made.chosen == "own-caption" or config.ignore_references,
        )
        label = f"{label_of(seeded.construction)}-{_short(runs.identity_of(seeded))}"
        name = f"build {label}"
        folder = out / "builds" / label
        steps.setdefault(
            name, Step(name, "build", folder, dataclasses.replace(seeded, out=folder), work=build_work(seeded))
        )
        names.append(name)
    return tuple(names)


def _pair_seed(cell: Cell, study: Study) -> int:
    return cell.seed if study.seeds_of == "pairs-and-training" else study.seeds[0]


def _set(
    cell: Cell,
    made: ArmRecipe,
    builds: Mapping[str, tuple[str, ...]],
    recipes: Mapping[str, ArmRecipe],
    cells: Sequence[Cell],
    study: Study,
    out: Path,
    steps: dict[str, Step],
) -> str:
    """The set of pairs that a cell is trained on; those of a seed are matched in size unless one is asked for."""
    if made.whole and made.measured == "model" and len(builds[cell.name]) == 1 and not made.label_noise:
        return builds[cell.name][0]
    rivals = dict.fromkeys(
        builds[other.name]
        for other in cells
        if other.seed == cell.seed
        and recipes[other.arm.name].size is None
        and not recipes[other.arm.name].whole
        and recipes[other.arm.name].takes_pairs
    )
    matched = study.size_matched and made.size is None and not made.whole
    own = tuple(steps[name].out for name in builds[cell.name])
    wanted = DrawnSet(
        builds=own,
        size=made.size,
        matched=matched,
        rivals=tuple(tuple(steps[name].out for name in rival) for rival in rivals) if matched else (own,),
        label_noise=made.label_noise,
        seed=cell.seed,
    )
    label = "+".join(label_of(steps[name].settings.construction) for name in builds[cell.name])
    label = f"{label}-{_short(wanted, out)}"
    name = f"pairs {label}"
    others = tuple(name for rival in rivals for name in rival) if matched else ()
    steps.setdefault(
        name, Step(name, "pairs", out / "pairs" / label, wanted, builds[cell.name], others, Work("pairs", 1.0))
    )
    return name


def _align(cell: Cell, made: ArmRecipe, pairs: str, out: Path, steps: dict[str, Step]) -> str:
    cache = made.align.reference_cache or out / "reference"
    config = dataclasses.replace(made.align, seed=cell.seed, pairs=steps[pairs].out, reference_cache=cache)
    label = f"{label_of(config.objective.name)}-{_short(runs.identity_of(config) | {'pairs': pairs})}"
    name, folder = f"align {label}", out / "runs" / label
    work = align_work(config, _expected_pairs(made))
    placed = dataclasses.replace(config, out=folder)
    steps.setdefault(name, Step(name, "align", folder, placed, (pairs,), work=work, shown=cell.name))
    return name


def _loop(cell: Cell, made: ArmRecipe, offline: str | None, out: Path, steps: dict[str, Step]) -> str:
    """Rounds of building and training; a round has its share of the records."""
    from veridical.loops.config import LoopConfig

    built = dataclasses.replace(made.builds[0], seed=cell.seed, limit=_a_round(made.builds[0].limit, made))
    aligned = dataclasses.replace(made.align, seed=cell.seed)
    more = {
        "build": _without(to_plain(built), ("out", "adapter", "skip", "constructions", "size_matched")),
        "align": _without(to_plain(aligned), ("out", "pairs", "start", "reference")),
    }
    label = f"{made.loop}-{_short({**more, 'rounds': made.rounds, 'offline': offline, 'seed': cell.seed})}"
    name, folder = f"loop {label}", out / "runs" / label
    files = {kind: out / "settings" / f"{name.replace(' ', '-')}.{kind}.yaml" for kind in more}
    config = LoopConfig(
        out=folder,
        build=files["build"],
        align=files["align"],
        kind=made.loop,  # type: ignore[arg-type]
        rounds=made.rounds,
        offline=steps[offline].out if offline else None,
        seed=cell.seed,
    )
    records = (built.limit or 0) * made.rounds
    work = build_work(dataclasses.replace(built, limit=records or None)) + align_work(aligned, records)
    after = (offline,) if offline else ()
    steps.setdefault(name, Step(name, "loop", folder, config, after, work=work, more=more, shown=cell.name))
    return name


def _a_round(limit: int | None, made: ArmRecipe) -> int | None:
    return None if limit is None else max(1, limit // made.rounds)


def _eval(cell: Cell, made: ArmRecipe, trained: str | None, out: Path, steps: dict[str, Step]) -> str:
    """Measure a cell's model against its base, whose answers are asked for once and shared."""
    config = _asking(made, out)
    if trained is None:
        return _base_eval(config, out, steps)
    held_out = () if config.records or config.held_out else (trained,)
    own = (f"{steps[trained].out.name}={steps[trained].out}",)
    label = f"{steps[trained].out.name}-{_short([config, trained], out)}"
    name, folder = f"eval {label}", out / "evals" / label
    first: tuple[str, ...] = ()
    if not held_out:
        first = (_base_eval(config, out, steps),)
    measured = dataclasses.replace(config, out=folder, models=(*config.models, *own))
    work = eval_work(config)
    steps.setdefault(name, Step(name, "eval", folder, measured, (trained,), first, work=work, shown=cell.name))
    return name


def _asking(made: ArmRecipe, out: Path) -> EvalConfig:
    """How a cell's model is measured, with the answers kept that other cells can use."""
    return dataclasses.replace(made.eval, cache=made.eval.cache or out / "requests")


def _base_eval(config: EvalConfig, out: Path, steps: dict[str, Step]) -> str:
    """Measure the base alone."""
    label = f"{BASE}-{_short(config, out)}"
    name, placed = f"eval {label}", dataclasses.replace(config, out=out / "evals" / label)
    steps.setdefault(name, Step(name, "eval", placed.out, placed, work=eval_work(config)))
    return name


def _way(
    cell: Cell,
    made: ArmRecipe,
    trained: str | None,
    out: Path,
    steps: Mapping[str, Step],
    evals: dict[str, EvalConfig],
) -> Way:
    """How a cell is measured; cells that differ in decoding alone are measured on the same pictures and questions."""
    from veridical.protocols.config import PlainDecoding

    decoding = made.eval.decoding
    config = dataclasses.replace(_asking(made, out), decoding=PlainDecoding())
    key = f"all-{_short(config, out)}"
    so_far = evals.get(key, dataclasses.replace(config, out=out / "evals" / key))
    own = (f"{cell.name}={steps[trained].out}",) if trained else ()
    evals[key] = dataclasses.replace(so_far, models=(*so_far.models, *own))
    name = steps[trained].out.name if trained else BASE
    plain = decoding.name == PlainDecoding.name
    return Way(key, name if plain else f"{name}+{decoding.name}", None if plain else decoding)


def _expected_pairs(made: ArmRecipe) -> int:
    return made.size or made.builds[0].limit or 1000


def _without(settings: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in names and value is not None}


def _short(content: Any, out: Path | None = None) -> str:
    """A short hash of settings; where the study's folder `out` lies makes no difference."""
    return digest_of(content, out)[:8]
