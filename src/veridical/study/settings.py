"""What an arm's settings mean for the commands: the settings of build, align and eval that a run of it has."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from veridical.config import dotted, flags, parse
from veridical.errors import UserError
from veridical.recipes.recipe import RecipeStep, steps_of
from veridical.recipes.steps import named
from veridical.study.definition import Arm
from veridical.study.looking import with_protocols

if TYPE_CHECKING:
    from veridical.align.config import AlignConfig
    from veridical.pairs.config import BuildConfig
    from veridical.protocols.config import EvalConfig

RECORDS = "world:sft"
"""What the bundled model was last trained on: a control on other positives would be a cure of its own."""
WORLD_LIMIT = 500
MEASURED = "world:in-theme+anti-bias"
WORLD_SCENES = 150
HELD_OUT_SEED = 0
"""The same images are kept for measuring whatever the seed of a run, so that runs are paired by image."""
LOOPS = ("online", "mixed", "iterative")
ALL = "all"
PAIRS = "pairs"
"""What a step calls the arm's set of pairs: $pairs."""
Measured = Literal["model", "pairs", "judge"]
SET_HERE: Mapping[str, tuple[str, ...]] = {
    "build": ("out", "construction", "constructions", "size_matched", "records", "limit", "model", "seed", "settings"),
    "align": ("out", "pairs", "model", "objective", "seed", "reference_cache"),
    "eval": ("out", "models", "cache", "noise"),
}
"""Settings of the commands that a study gives itself, or that have a name of their own in it."""


@dataclass(frozen=True)
class ArmRecipe:
    """The settings of an arm's run, without seeds and folders."""

    builds: tuple[BuildConfig, ...]
    """One for each kind of rejected answers."""
    align: AlignConfig
    eval: EvalConfig
    size: int | None
    whole: bool
    """Whether its set is all that its builds give, whatever the other sets are."""
    label_noise: float
    chosen: str
    loop: str
    rounds: int
    steps: tuple[RecipeStep, ...] | None
    """What is done instead of training on the pairs, in a recipe's form, where the arm states it; none at all leaves
    the model as it is."""
    measured: Measured
    common: Mapping[str, Mapping[str, Any]]
    """What such steps have in common where they say nothing else: all of them ("") and those of a command."""

    @property
    def takes_pairs(self) -> bool:
        """Whether there is a set of pairs that something is done with."""
        if self.steps is None or self.measured == "pairs":
            return self.loop == "offline" or self.measured == "pairs"
        return any(name == PAIRS for step in self.steps for name in named(step.settings))


def recipe(arm: Arm, size: int | None) -> ArmRecipe:
    """The settings of an arm. Raises UserError that names the arm and the setting for what can't be."""
    given = arm.settings
    where = f"arm {arm.name}"
    model, records = str(given.get("model", "bundled")), str(given.get("records", RECORDS))
    names = given.get("construction", "bpo-image")
    several = list(names) if isinstance(names, list | tuple) else [names]
    objective = {"name": given.get("objective", "dpo-nll"), **_group(arm, "objective")}
    limit = _whole(given.get("limit"), f"{where}: limit")
    wanted = given.get("size", size)
    made = ArmRecipe(
        builds=tuple(_build(arm, str(name), model, records, len(several) > 1) for name in several),
        align=_align(arm, model),
        eval=_eval(arm, model, records),
        size=None if wanted == ALL else _whole(wanted, f"{where}: size"),
        whole=wanted == ALL,
        label_noise=_share(given.get("label_noise", 0.0), f"{where}: label_noise"),
        chosen=_among(str(given.get("chosen", "reference")), ("reference", "own-caption"), f"{where}: chosen"),
        loop=_among(str(given.get("loop", "offline")), ("offline", *LOOPS), f"{where}: loop"),
        rounds=_whole(given.get("rounds", 3), f"{where}: rounds") or 3,
        steps=None if given.get("steps") is None else steps_of(given["steps"], f"{where}: steps"),
        measured=cast(
            "Measured", _among(str(given.get("measured", "model")), ("model", "pairs", "judge"), f"{where}: measured")
        ),
        common={
            "": {"model": model, "records": records, **({} if limit is None else {"limit": limit})},
            "build": _given(arm, "build"),
            "align": {**_given(arm, "align"), "objective": objective},
        },
    )
    if made.measured == "judge" and (not made.steps or made.steps[-1].command != "judge eval"):
        raise UserError(f"{where}: measured judge needs steps of which the last is `judge eval`.")
    if made.steps is not None and made.loop != "offline":
        raise UserError(f"{where}: steps and loop {made.loop} both say how to train; leave one out.")
    return made


def _build(arm: Arm, construction: str, model: str, records: str, several: bool) -> BuildConfig:
    from veridical.formats.sources import is_world
    from veridical.pairs.config import checked, config_type

    own = _group(arm, "construction")
    if several:
        # Settings that hold for one of them only are given as construction.NAME.setting.
        own = {key: value for key, value in own.items() if not isinstance(value, Mapping)} | dict(
            own.get(construction, {})
        )
    limit = _whole(arm.settings.get("limit", WORLD_LIMIT if is_world(records) else None), f"arm {arm.name}: limit")
    settings: dict[str, Any] = {
        **_given(arm, "build"),
        "out": "unset",
        "construction": construction,
        "records": records,
        "model": model,
        **({} if limit is None else {"limit": limit}),
        **({"settings": own} if own else {}),
        **({} if is_world(records) else {"held_out_seed": HELD_OUT_SEED}),
    }
    built: BuildConfig = _parsed(config_type, settings, f"arm {arm.name}: build")
    try:
        return checked(built)
    except UserError as error:
        raise UserError(f"arm {arm.name}: {error}") from None


def _align(arm: Arm, model: str) -> AlignConfig:
    from veridical.align.config import config_type

    objective = {"name": arm.settings.get("objective", "dpo-nll"), **_group(arm, "objective")}
    settings = {**_given(arm, "align"), "out": "unset", "pairs": "unset", "model": model, "objective": objective}
    config: AlignConfig = _parsed(config_type, settings, f"arm {arm.name}: align")
    return config


def _eval(arm: Arm, model: str, records: str) -> EvalConfig:
    from veridical.formats.sources import is_world
    from veridical.protocols.config import config_type

    world = {"records": MEASURED, "limit": WORLD_SCENES} if is_world(records) else {}
    settings = {**world, **_given(arm, "eval"), "out": "unset", "models": [model]}
    config: EvalConfig = _parsed(config_type, settings, f"arm {arm.name}: eval")
    return with_protocols(config, records, f"arm {arm.name}")


def _given(arm: Arm, group: str) -> dict[str, Any]:
    """What an arm says of a command's own settings. Raises UserError for those that a study gives itself."""
    settings = _group(arm, group)
    for name in SET_HERE[group]:
        if name in settings:
            raise UserError(f"arm {arm.name}: {group}.{name} is set by the study; take it out, or use its short name.")
    return settings


def _group(arm: Arm, group: str) -> dict[str, Any]:
    """The settings under `group.`, nested as YAML holds them."""
    nested: dict[str, Any] = {}
    for name, value in arm.settings.items():
        first, _, rest = name.partition(".")
        if first != group or not rest:
            continue
        place = nested
        *parents, leaf = rest.split(".")
        for parent in parents:
            place = place.setdefault(parent, {})
        place[leaf] = value
    return nested


def _parsed(config_type: Any, settings: Mapping[str, Any], where: str) -> Any:
    """Settings of a command as its own parser reads them, so that a value means what it means there."""
    return _cached(config_type, json.dumps(settings, sort_keys=True, default=str), where)


@functools.lru_cache(maxsize=1024)
def _cached(config_type: Any, text: str, where: str) -> Any:
    settings = json.loads(text)
    try:
        kind = config_type(dotted(settings))
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    return parsed(kind, settings, where)


def parsed(kind: Any, settings: Mapping[str, Any], where: str) -> Any:
    """Settings as a command's parser reads them. Raises UserError that names `where`."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            return parse(kind, flags(settings, kind, Path(where)), where)
    except SystemExit:
        told = " ".join(re.sub(r"[\u2500-\u257f]", " ", said.getvalue()).split())
        raise UserError(f"{where}: {told.split('For full helptext')[0].strip()}") from None
    except UserError as error:
        message = str(error)
        raise UserError(message if message.startswith("arm ") else f"{where}: {message}") from None


def plain(config: Any, **changed: Any) -> Any:
    """The settings with some changed, where they have them."""
    known = {field.name for field in dataclasses.fields(config)}
    return dataclasses.replace(config, **{name: value for name, value in changed.items() if name in known})


def _whole(value: Any, where: str) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UserError(f"{where}: {value!r} is no whole number above 0.")
    return value


def _share(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 0.5:
        raise UserError(f"{where}: {value!r} is no share from 0 to 0.5.")
    return float(value)


def _among(value: str, known: Sequence[str], where: str) -> str:
    if value not in known:
        raise UserError(f"{where}: no {value!r}; there are {', '.join(known)}.")
    return value
