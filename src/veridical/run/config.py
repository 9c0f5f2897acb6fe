"""The settings of `veridical run`: its own, and those of the commands that it runs, defaulting to its recipe's."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from veridical.bounds import Positive, Seed
from veridical.config import to_plain
from veridical.protocols.config import config_type as eval_config_type
from veridical.run.recipes import DEFAULT, align_config, build_config, recipe_of

STEPS = ("build", "align", "eval")
GIVEN: Mapping[str, tuple[str, ...]] = {
    "build": (
        "out", "records", "model", "construction", "constructions", "size_matched", "limit", "seed", "device",
        "adapter", "allow_remote_code", "max_pixels", "max_image_tokens",
    ),
    "align": ("pairs", "out", "model", "seed", "device", "allow_remote_code", "max_pixels", "max_image_tokens"),
    "eval": ("out", "models", "device", "max_pixels", "max_image_tokens"),
}  # fmt: skip
"""The settings of each command that `run` gives itself."""
Hidden = Annotated[Any, tyro.conf.Fixed, tyro.conf.Suppress]


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Build pairs, align with them, measure before and after on images that were kept back, and write a report.

    Whatever `veridical build`, `align` and `eval` can be told, they can be told here too, as --build.X, --align.X and
    --eval.X, or in the groups of the settings file that --write-config writes; `-h` lists these settings as well.
    """

    records: str
    """A folder of images (with captions in metadata.jsonl, or without), a .jsonl, .csv or .parquet file of records, or
    world (the built-in pictures)."""
    model: str = "bundled"
    """The model to align: a folder, a name on the Hugging Face hub, or bundled."""
    out: Path = Path("veridical-run")
    """Folder for everything; the same command continues what is there."""
    recipe: str = DEFAULT
    """How pairs are made and trained on: the name of a construction, such as bdhs, bpo-image or ha-dpo
    (`veridical build --help` names all), or demo, which needs annotated objects."""
    control: bool = False
    """Also fine-tune on the chosen answers alone, to see what the comparison with rejected ones adds."""
    limit: Positive | None = None
    """Use that many records; all of them if left out."""
    seed: Seed = 0
    """Seeds everything that is drawn; which images are kept for measuring is the same for every seed."""
    device: str = "auto"
    """Where the model runs: auto, cpu, cuda, ...."""
    allow_remote_code: bool = False
    """Let the model bring its own Python code."""
    max_pixels: Positive | None = None
    """Most pixels that the processor scales an image to, for families that scale images or cut them into tiles."""
    max_image_tokens: Positive | None = None
    """Most tokens that an image takes, for the same families: a phone's photo is some 15,000 in a stock Qwen2.5-VL."""
    write_config: Path | None = None
    """Write the settings into this YAML file, to be edited and run with `veridical run FILE`, and do nothing else."""
    build: Hidden = None
    """Settings of `veridical build`."""
    align: Hidden = None
    """Settings of `veridical align`."""
    eval: Hidden = None
    """Settings of `veridical eval`; its records are the images that build keeps back, unless it is given others."""


def config_type(choices: Mapping[str, str]) -> type[RunConfig]:
    """RunConfig with the settings of the commands, as far as the choices so far say which there are.

    Asked for --help alone, it leaves these settings out. Raises UserError for an unknown recipe, judge, objective, ....
    """
    if "help" in choices:
        return RunConfig
    recipe = recipe_of(choices.get("recipe", DEFAULT))
    within = {step: _within(step, choices) for step in STEPS}
    groups = {
        "build": build_config(recipe, within["build"], out=Path()),
        "align": align_config(recipe, within["align"], pairs=Path(), out=Path()),
        "eval": eval_config_type(within["eval"])(out=Path()),
    }
    groups = {step: _without_given(step, one) for step, one in groups.items()}
    return dataclasses.make_dataclass(
        "RunConfig",
        [(step, type(one), field(default=one)) for step, one in groups.items()],
        bases=(RunConfig,),
        frozen=True,
        kw_only=True,
        namespace={"__doc__": RunConfig.__doc__},
    )


def filled(config: RunConfig) -> RunConfig:
    """The settings with the recipe's in the groups that were left out."""
    lacking = [step for step in STEPS if getattr(config, step) is None]
    if not lacking:
        return config
    defaults = config_type({"recipe": config.recipe})(records=config.records)
    return dataclasses.replace(config, **{step: getattr(defaults, step) for step in lacking})


def to_write(config: RunConfig) -> dict[str, Any]:
    """The settings as YAML holds them: without those that `run` gives the commands itself."""
    plain: dict[str, Any] = to_plain(filled(config))
    del plain["write_config"]
    return {
        name: {key: item for key, item in value.items() if key not in GIVEN[name]} if name in STEPS else value
        for name, value in plain.items()
    }


def _within(step: str, choices: Mapping[str, str]) -> dict[str, str]:
    """The choices that are a command's, without the prefix that says so."""
    prefix = f"{step}."
    return {key.removeprefix(prefix): value for key, value in choices.items() if key.startswith(prefix)}


def _without_given(step: str, settings: Any) -> Any:
    """The same settings, of a class in which those that `run` gives are no options."""
    kind = type(settings)
    hints = typing.get_type_hints(kind)
    known = {setting.name: setting for setting in dataclasses.fields(kind)}
    given: list[Any] = [
        (
            name,
            Annotated[hints[name], tyro.conf.Fixed, tyro.conf.Suppress],
            field(default=getattr(settings, name), metadata=known[name].metadata),
        )
        for name in GIVEN[step]
    ]
    made = dataclasses.make_dataclass(
        kind.__name__, given, bases=(kind,), frozen=True, kw_only=True, namespace={"__doc__": kind.__doc__}
    )
    return made(**{setting.name: getattr(settings, setting.name) for setting in dataclasses.fields(kind)})
