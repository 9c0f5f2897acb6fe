"""A recipe's step as settings of its command: which commands there are, `$NAME` as folders, what all have in common.

A study's arm may state its steps in the same form.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from veridical.config import dotted, fields_of
from veridical.errors import UserError

COMMANDS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "data paint": ("pairs.painting", "PaintConfig"),
        "data answers": ("pairs.answers", "AnswersConfig"),
        "build": ("pairs.produce", "BuildConfig"),
        "align": ("align.command", "AlignConfig"),
        "loop": ("loops.command", "LoopConfig"),
        "rl": ("rl.command", "RlConfig"),
        "judge train reward": ("judge_training.reward", "RewardConfig"),
        "judge train verifier": ("judge_training.verifier", "VerifierConfig"),
        "judge eval": ("judge_eval.command", "JudgeEvalConfig"),
    }
)
"""What a step can run: where its settings are."""
INLINE: Mapping[str, tuple[str, ...]] = MappingProxyType({"loop": ("build", "align")})
"""Settings that are files of settings of other commands: a recipe holds them in place."""


def settings_type(command: str, settings: Mapping[str, Any]) -> type:
    """The class of a command's settings. Raises UserError for a command that no step can run."""
    if command not in COMMANDS:
        raise UserError(f"a recipe's step runs {command!r}; there are {', '.join(COMMANDS)}.")
    name, config = COMMANDS[command]
    module = importlib.import_module(f"veridical.{name}")
    if hasattr(module, "config_type"):
        kind: type = module.config_type(dotted(settings))
        return kind
    only: type = getattr(module, config)
    return only


def with_common(command: str, settings: Mapping[str, Any], common: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with what all steps have in common, as far as the command knows it and they don't say otherwise."""
    known = {name for name, _ in fields_of(settings_type(command, settings))}
    return {**{name: value for name, value in common.items() if name in known}, **settings}


def named(value: Any) -> Iterator[str]:
    """The steps that settings name by `$NAME`."""
    if isinstance(value, Mapping):
        for item in value.values():
            yield from named(item)
    elif isinstance(value, list):
        for item in value:
            yield from named(item)
    elif isinstance(value, str) and value.startswith("$"):
        yield value[1:].partition("/")[0]


def resolved(value: Any, folders: Mapping[str, Path]) -> Any:
    """Settings with `$NAME` at the beginning of a text as the folder of the step of that name."""
    if isinstance(value, Mapping):
        return {key: resolved(item, folders) for key, item in value.items()}
    if isinstance(value, list):
        return [resolved(item, folders) for item in value]
    if isinstance(value, str) and value.startswith("$"):
        name, slash, rest = value[1:].partition("/")
        if name not in folders:
            raise UserError(
                f"{value}: there is no step {name!r} before this one; there are {', '.join(folders) or 'none'}."
            )
        return f"{folders[name]}{slash}{rest}"
    return value
