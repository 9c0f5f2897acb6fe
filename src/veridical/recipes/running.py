"""`veridical recipe run NAME`: the steps of a paper's method, one after another, on your model and your images.

OUT/settings/NAME.yaml   the resolved settings of each step, to be run alone: `veridical build OUT/settings/pairs.yaml`
OUT/NAME                 each step's run folder
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from veridical.bounds import Positive, Seed
from veridical.config import fields_of, flags, read_yaml
from veridical.errors import UserError
from veridical.files import write_text
from veridical.recipes.recipe import Recipe, RecipeStep, merged, recipe
from veridical.recipes.steps import INLINE, resolved, settings_type, with_common
from veridical.runs import INCIDENTAL

SMALL: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "build": {"limit": 12},
        "align": {
            "epochs": 1, "batch_size": 4, "micro_batch": 4, "learning_rate": 1e-3, "train": "adapter", "workers": 0,
            "held_out": 0.0, "lora": {"rank": 4, "alpha": 8, "dropout": 0.0},
        },
        "loop": {"rounds": 2},
        "rl": {
            "limit": 8, "groups": 4, "micro_groups": 4, "max_new_tokens": 32, "learning_rate": 1e-3,
            "lora": {"rank": 4, "alpha": 8, "dropout": 0.0},
        },
    }
)  # fmt: skip
"""What is otherwise where a recipe is only tried, before its own `small`."""
_FILES = (".txt", ".json", ".jsonl", ".csv", ".parquet")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Run a recipe: build, align and whatever else the paper does, with its settings."""

    name: str
    """One of those that `veridical recipe list` names, or a YAML file like them."""
    out: Path = field(metadata=INCIDENTAL)
    """Folder for everything; the same command continues what is there."""
    records: str = "world"
    """What pairs are made of: a folder of images, a file of records, or world (the built-in pictures)."""
    model: str = "bundled"
    """The model to align: a folder, a name on the Hugging Face hub, or bundled."""
    pairs: Path | None = None
    """Pairs that are there already, such as the published ones; then the first step, which would build them, is left
    out."""
    limit: Positive | None = None
    """Use that many records in every build."""
    small: bool = False
    """Only try the recipe: few records, one epoch, a small adapter, offline judges."""
    set: tuple[str, ...] = ()
    """Changed settings, as STEP.SETTING=VALUE, such as aligned.objective.beta=0.2."""
    seed: Seed = 0
    """Seeds everything that is drawn."""
    device: str = "auto"
    """Where the model runs: auto, cpu, cuda, ...."""
    dry: bool = False
    """Write the settings of every step and run nothing."""


@dataclass(frozen=True)
class Prepared:
    """A step ready to run: its name, its command, and the file of its settings."""

    name: str
    command: str
    settings: Path


def run(config: RunConfig) -> Path:
    """Run the steps and return the folder. Raises UserError for settings that can't be, before any step runs."""
    from veridical.steps.estimate import Work
    from veridical.steps.execute import execute
    from veridical.steps.lock import locked
    from veridical.steps.step import Step, Steps

    chosen = recipe(config.name)
    steps = prepare(chosen, config)
    print(f"{chosen.title} ({chosen.source})", flush=True)
    if chosen.base and config.model != chosen.base:
        print(f"The paper's model is {chosen.base}; this is {config.model}.", flush=True)
    if config.dry:
        print(f"settings: {config.out / 'settings'}")
        return config.out
    for one in steps:
        _require_files(one)
    before: tuple[str, ...] = ()
    todo = []
    for one in steps:
        settings = read_yaml(one.settings)
        work = Work(one.command, 1.0, known=False)
        todo.append(Step(one.name, one.command, Path(settings["out"]), settings, before, work=work))
        before = (one.name,)
    with locked(config.out) as lock:
        execute(Steps(out=config.out, steps=tuple(todo)), 1, lock, keep_going=False)
    for one in steps:
        print(f"{one.name}: {config.out / one.name}")
    if chosen.notes:
        print(f"\n{chosen.notes}")
    return config.out


def _require_files(step: Prepared) -> None:
    """Raise UserError for a file of one's own that a recipe goes by and that is not there, before any step runs."""
    settings = yaml.safe_load(step.settings.read_text(encoding="utf-8"))
    named = {"prompts": settings.get("prompts"), "auxiliary.data": (settings.get("auxiliary") or {}).get("data")}
    for name, value in named.items():
        # A step's folder is made by an earlier step.
        if isinstance(value, str) and value.endswith(_FILES) and not Path(value).expanduser().is_file():
            raise UserError(f"{value}: no such file; give yours by --set {step.name}.{name}=FILE.")


def prepare(chosen: Recipe, config: RunConfig) -> list[Prepared]:
    """Write the settings of the steps that are to run to OUT/settings. Raises UserError for settings that can't be."""
    changes = _changes(config.set, chosen)
    steps = list(chosen.steps)
    folders = {step.name: config.out / step.name for step in steps}
    if config.pairs is not None:
        if steps[0].command not in ("build", "data paint"):
            raise UserError(f"--pairs: {chosen.name} begins with `{steps[0].command}`, which builds no pairs.")
        while steps[0].command != "build":
            steps.pop(0)
        folders[steps.pop(0).name] = config.pairs.resolve()
    done = []
    for step in steps:
        settings = dict(step.settings)
        if config.small:
            settings = _smaller(step.command, settings)
            settings = merged(settings, chosen.small.get(step.name, {}))
        # A single setting of a method is changed, its others stay.
        settings = merged(settings, changes.get(step.name, {}), whole=())
        done.append(_written(step, resolved(settings, folders), config))
    return done


def _smaller(command: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    found = merged(settings, SMALL.get(command, {}))
    for name in INLINE.get(command, ()):
        found[name] = merged(found.get(name, {}), SMALL[name])
    return found


def _written(step: RecipeStep, settings: Mapping[str, Any], config: RunConfig) -> Prepared:
    path = config.out / "settings" / f"{step.name}.yaml"
    filled = dict(settings)
    common = {"records": config.records, "model": config.model, "device": config.device}
    for name in INLINE.get(step.command, ()):
        inner = config.out / "settings" / f"{step.name}-{name}.yaml"
        _save(inner, name, _limited(name, with_common(name, filled.get(name, {}), common), config.limit))
        filled[name] = str(inner)
    filled = with_common(step.command, filled, {**common, "seed": config.seed})
    filled = _limited(step.command, filled, config.limit)
    filled.setdefault("out", str(config.out / step.name))
    _save(path, step.command, filled)
    return Prepared(step.name, step.command, path)


def _limited(command: str, settings: Mapping[str, Any], limit: int | None) -> dict[str, Any]:
    """The settings with the command line's number of records."""
    known = {name for name, _ in fields_of(settings_type(command, settings))}
    return {**settings, **({"limit": limit} if limit is not None and "limit" in known else {})}


def _save(path: Path, command: str, settings: Mapping[str, Any]) -> None:
    """Write a step's settings. Raises UserError where the command has no such setting."""
    flags(settings, settings_type(command, settings), path)
    write_text(path, yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True))


def _changes(given: Sequence[str], chosen: Recipe) -> dict[str, dict[str, Any]]:
    """What `--set` says, by step."""
    found: dict[str, dict[str, Any]] = {}
    for text in given:
        place, equals, value = text.partition("=")
        step, *keys = place.replace("-", "_").split(".") if equals else [""]
        real = next((one.name for one in chosen.steps if one.name.replace("-", "_") == step), None)
        if real is None or not keys:
            known = ", ".join(one.name for one in chosen.steps)
            raise UserError(f"--set {text}: give STEP.SETTING=VALUE; the steps are {known}.")
        inner: Any = yaml.safe_load(value)
        for key in reversed(keys):
            inner = {key: inner}
        found[real] = merged(found.get(real, {}), inner)
    return found
