"""`veridical recipe run NAME`: the steps of a paper's method, one after another, on your model and your images.

OUT/settings/NAME.yaml   the resolved settings of each step, to be run alone: `veridical build OUT/settings/pairs.yaml`
OUT/NAME                 each step's run folder
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from veridical.bounds import Positive, Seed
from veridical.config import dotted, fields_of, flags
from veridical.errors import UserError
from veridical.files import write_text
from veridical.recipes.recipe import Recipe, RecipeStep, merged, recipe
from veridical.runs import INCIDENTAL

SMALL: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "build": {"limit": 12},
        "align": {
            "epochs": 1, "batch_size": 4, "micro_batch": 4, "learning_rate": 1e-3, "train": "adapter", "workers": 0,
            "held_out": 0.0, "lora": {"rank": 4, "alpha": 8, "dropout": 0.0},
        },
        "loop": {"rounds": 2},
    }
)  # fmt: skip
"""What is otherwise where a recipe is only tried, before its own `small`."""
COMMANDS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "data paint": ("pairs.painting", "PaintConfig"),
        "data answers": ("pairs.answers", "AnswersConfig"),
        "build": ("pairs.produce", "BuildConfig"),
        "align": ("align.command", "AlignConfig"),
        "loop": ("loops.command", "LoopConfig"),
        "rl": ("rl.command", "RlConfig"),
    }
)
"""What a step can run: where its settings are."""
_INLINE = {"loop": ("build", "align")}
"""Settings that are files of settings of other commands: a recipe holds them in place."""


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
    from veridical.run.lock import locked
    from veridical.run.steps import Step, execute

    chosen = recipe(config.name)
    steps = prepare(chosen, config)
    print(f"{chosen.title} ({chosen.source})", flush=True)
    if chosen.base and config.model != chosen.base:
        print(f"The paper's model is {chosen.base}; this is {config.model}.", flush=True)
    if config.dry:
        print(f"settings: {config.out / 'settings'}")
        return config.out
    before: tuple[str, ...] = ()
    todo = []
    for one in steps:
        todo.append(Step(one.name, (one.command, str(one.settings)), before))
        before = (one.name,)
    with locked(config.out) as lock:
        execute(todo, config.out / "logs", lock)
    for one in steps:
        print(f"{one.name}: {config.out / one.name}")
    if chosen.notes:
        print(f"\n{chosen.notes}")
    return config.out


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
        done.append(_written(step, _resolved(settings, folders), config))
    return done


def _smaller(command: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    found = merged(settings, SMALL.get(command, {}))
    for name in _INLINE.get(command, ()):
        found[name] = merged(found.get(name, {}), SMALL[name])
    return found


def _resolved(value: Any, folders: Mapping[str, Path]) -> Any:
    """Settings with `$NAME` at the beginning of a text as the folder of the step of that name."""
    if isinstance(value, Mapping):
        return {key: _resolved(item, folders) for key, item in value.items()}
    if isinstance(value, list):
        return [_resolved(item, folders) for item in value]
    if isinstance(value, str) and value.startswith("$"):
        name, slash, rest = value[1:].partition("/")
        if name not in folders:
            raise UserError(f"{value}: the recipe has no step {name!r}; it has {', '.join(folders)}.")
        return f"{folders[name]}{slash}{rest}"
    return value


def _written(step: RecipeStep, settings: Mapping[str, Any], config: RunConfig) -> Prepared:
    path = config.out / "settings" / f"{step.name}.yaml"
    filled = dict(settings)
    for name in _INLINE.get(step.command, ()):
        inner = config.out / "settings" / f"{step.name}-{name}.yaml"
        _save(inner, name, _given(name, filled.get(name, {}), config, ("records", "model", "device", "limit")))
        filled[name] = str(inner)
    filled = _given(step.command, filled, config, ("records", "model", "seed", "device", "limit"))
    filled.setdefault("out", str(config.out / step.name))
    _save(path, step.command, filled)
    return Prepared(step.name, step.command, path)


def _given(command: str, settings: Mapping[str, Any], config: RunConfig, names: Sequence[str]) -> dict[str, Any]:
    """The settings with what the command line gives every step, as far as the command has such settings and the recipe
    doesn't say otherwise; the number of records is the command line's."""
    known = {name for name, _ in fields_of(_config_type(command, settings))}
    given = {name: getattr(config, name) for name in names if name in known and name != "limit"}
    found = {**given, **settings}
    if config.limit is not None and "limit" in known and "limit" in names:
        found["limit"] = config.limit
    return found


def _save(path: Path, command: str, settings: Mapping[str, Any]) -> None:
    """Write a step's settings. Raises UserError where the command has no such setting."""
    flags(settings, _config_type(command, settings), path)
    write_text(path, yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True))


def _config_type(command: str, settings: Mapping[str, Any]) -> type:
    if command not in COMMANDS:
        raise UserError(f"a recipe's step runs {command!r}; there are {', '.join(COMMANDS)}.")
    name, config = COMMANDS[command]
    module = importlib.import_module(f"veridical.{name}")
    if hasattr(module, "config_type"):
        found: type = module.config_type(dotted(settings))
        return found
    only: type = getattr(module, config)
    return only


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
