"""Every number among the settings has bounds, which hold on the command line, in YAML and in Python."""

from __future__ import annotations

import dataclasses
import importlib
import math
import re
import subprocess
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from annotated_types import Ge, Gt, Le, Lt

from veridical.align.config import AlignConfig
from veridical.bounds import bounds_of, check, members, vars_of
from veridical.cli import COMMANDS
from veridical.constructions.registry import CONSTRUCTIONS, settings_type
from veridical.decoding.registry import DECODINGS
from veridical.errors import UserError
from veridical.judges.registry import JUDGES
from veridical.objectives.registry import OBJECTIVES
from veridical.pairs.config import BuildConfig, checked
from veridical.protocols.benchmark_task import ModelSide
from veridical.protocols.benchmarks.registry import BENCHMARKS
from veridical.rl.algorithms import ALGORITHMS, algorithm_type
from veridical.vlm.generation.params import SamplingParams
from veridical.vlm.images.views import Noise, View
from veridical.vlm.model.image_limits import ImageLimits


def every_settings_class() -> Iterator[type[Any]]:
    waiting = [getattr(importlib.import_module(command.module), command.config) for command in COMMANDS.values()]
    waiting += [settings_type(name) for name in CONSTRUCTIONS] + [BENCHMARKS.get(name).Settings for name in BENCHMARKS]
    waiting += [registry.get(name) for registry in (OBJECTIVES, DECODINGS, JUDGES) for name in registry]
    waiting += [algorithm_type(name) for name in ALGORITHMS]
    waiting += [ModelSide, SamplingParams, ImageLimits, *typing.get_args(View)]
    seen = set()
    while waiting:
        one = waiting.pop()
        if one in seen:
            continue
        seen.add(one)
        yield one
        hints = typing.get_type_hints(one, include_extras=True)
        for field in dataclasses.fields(one):
            waiting += [part for part in (*members(hints[field.name]), field.default_factory) if is_settings(part)]


def is_settings(part: object) -> bool:
    return isinstance(part, type) and dataclasses.is_dataclass(part)


CLASSES = sorted(every_settings_class(), key=lambda one: f"{one.__module__}.{one.__qualname__}")
NUMBERS = [(one, name) for one in CLASSES for name in bounds_of(one)]


def test_there_are_as_many_as_we_think():
    assert len(CLASSES) > 120
    assert len(NUMBERS) > 390


@pytest.mark.parametrize(("settings", "name"), NUMBERS, ids=lambda one: getattr(one, "__name__", one))
def test_every_number_has_bounds_that_refuse_what_is_out_of_them(settings, name):
    bounds = bounds_of(settings)[name]
    assert any(isinstance(bound, Ge | Gt) for bound in bounds), f"{settings}.{name} has no lower bound"
    [field] = [field for field in dataclasses.fields(settings) if field.name == name]
    whole = float not in members(typing.get_type_hints(settings, include_extras=True)[name])
    assert whole or any(isinstance(bound, Le | Lt) for bound in bounds), f"{settings}.{name} may be infinite"
    outside = [math.nan, math.inf, -math.inf, *([1.5] if whole else [])]
    for bound in bounds:
        [limit] = vars_of(bound).values()
        if math.isfinite(limit):
            step = {Ge: -1, Gt: 0, Le: 1, Lt: 0}[type(bound)]
            outside.append(limit + step)
    assert outside
    for value in outside:
        made = object.__new__(settings)  # as if made by somebody who checks nothing
        for other in dataclasses.fields(settings):
            object.__setattr__(made, other.name, None)
        object.__setattr__(made, name, (value,) if "tuple" in str(field.type) else value)
        with pytest.raises(UserError, match=rf"^{name} is {value}; it must be (at|above|below|a finite|a whole)"):
            check(made)


def test_defaults_are_within_their_bounds():
    for one in CLASSES:
        fields = dataclasses.fields(one)
        if all(f.default is not dataclasses.MISSING or f.default_factory is not dataclasses.MISSING for f in fields):
            check(one())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("build --out x --settings.candidates 0", "settings.candidates is 0; it must be at least 1."),
        ("build --out x --construction bdhs --settings.tries 0", "settings.tries is 0; it must be at least 1."),
        ("align --pairs p --out x --lora.rank 0", "lora.rank is 0; it must be at least 1."),
        ("align --pairs p --out x --lora.dropout 2", "lora.dropout is 2.0; it must be at least 0 and below 1."),
        ("align --pairs p --out x --workers -1", "workers is -1; it must be at least 0."),
        ("align --pairs p --out x --micro-batch 0", "micro_batch is 0; it must be at least 1."),
        ("align --pairs p --out x --weight-decay -1", "weight_decay is -1.0; it must be at least 0."),
        ("align --pairs p --out x --objective.beta nan", "objective.beta is nan; it must be "),
        ("eval --out x --batch 0", "batch is 0; it must be at least 1."),
        ("eval --out x --questions 0", "questions is 0; it must be at least 1."),
        ("eval --out x --noise.steps 1 1000", "noise.steps is 1000; it must be at least 0 and at most 999."),
        ("world --out x --count -3 --seed -1", "count is -3; it must be at least 1; seed is -1; it must be at least 0"),
    ],
)
def test_the_command_line_says_so_before_any_work(arguments, message, tmp_path):
    command = [sys.executable, "-m", "veridical", *arguments.split()]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert message in ended.stderr
    assert ended.stderr.startswith("veridical: ")
    assert ended.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (np.int64(1000), "step is 1000; it must be at least 0 and at most 999."),
        (500.0, "step is 500.0; it must be a whole number, 500."),
        (2.5, "step is 2.5; it must be a whole number."),
    ],
)
def test_numbers_of_other_kinds_are_held_to_the_same_bounds(steps, message):
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        Noise(steps)
    assert Noise(np.int64(500)).step == 500


@pytest.mark.parametrize("number", [math.nan, math.inf, -1.0])
def test_objectives_and_views_refuse_what_is_no_number_when_they_are_made(number):
    for name in OBJECTIVES:
        objective = OBJECTIVES.get(name)
        for setting in bounds_of(objective):
            if number < 0 and (objective.__name__, setting) == ("Mdpo", "anchor_margin"):
                continue  # any number that is one
            with pytest.raises(UserError, match=rf"objective\.{setting} is {number}; it must be"):
                objective(**{setting: number})
    for view in typing.get_args(View):
        for setting in bounds_of(view):
            with pytest.raises(UserError, match=f"{setting} is {number}; it must be"):
                view(**{setting: number})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lora": {"rank": 0}}, "lora.rank is 0; it must be at least 1."),
        ({"objective": {"name": "vdpo", "guidance": 0.5}}, "objective.guidance is 0.5; it must be at least 1."),
        ({"objective": {"beta": math.nan}}, "objective.beta is nan; it must be above 0 and a finite number."),
    ],
)
def test_yaml_and_python_say_the_same(settings, message, tmp_path):
    (tmp_path / "a.yaml").write_text(yaml.safe_dump({"out": "x", "pairs": "p", **settings}))
    command = [sys.executable, "-m", "veridical", "align", "a.yaml"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.stderr == f"veridical: {message}\n"
    with pytest.raises(UserError, match=r"^epochs is 0; it must be at least 1; warmup is 1; it must be "):
        AlignConfig(pairs=Path("p"), out=Path("x"), epochs=0, warmup=1)
    with pytest.raises(UserError, match="skip is -1; it must be at least 0"):
        checked(BuildConfig(tmp_path / "x", skip=-1))
