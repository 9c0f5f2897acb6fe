"""What a recipe is: the commands that reproduce a paper's method, with the paper's settings, in a YAML file.

A recipe has steps by name, each a `veridical` command with its settings. `$NAME` in a setting stands for the folder of
an earlier step. `small` says what is otherwise where it is only tried: on the bundled model, with few records.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from veridical.config import read_yaml
from veridical.errors import UserError

_KEYS = ("title", "source", "base", "pairs", "notes", "steps", "small")
_WHOLE = ("judge", "writer", "objective")
"""Settings of a method: another method has others, so these are replaced as a whole."""


@dataclass(frozen=True)
class RecipeStep:
    """A command and its settings."""

    name: str
    command: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Recipe:
    """A paper's method."""

    name: str
    title: str
    source: str
    steps: tuple[RecipeStep, ...]
    base: str = ""
    """The model of the paper."""
    pairs: str = ""
    """The published pairs, if there are any."""
    notes: str = ""
    small: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def names() -> list[str]:
    """The recipes that come with veridical."""
    return sorted(one.name.removesuffix(".yaml") for one in _folder().iterdir() if one.name.endswith(".yaml"))


def text_of(name: str) -> str:
    """A recipe's YAML, as written in its file. Raises UserError for an unknown name."""
    if name.endswith((".yaml", ".yml")):
        read_yaml(Path(name))
        return Path(name).read_text(encoding="utf-8")
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names())}, or a YAML file of yours."
        raise UserError(f"no recipe {name!r}; {hint}")
    text: str = (_folder() / f"{name}.yaml").read_text(encoding="utf-8")
    return text


def recipe(name: str) -> Recipe:
    """The recipe of a name, or in a YAML file. Raises UserError for what is none."""
    content = read_yaml(Path(name)) if name.endswith((".yaml", ".yml")) else yaml.safe_load(text_of(name))
    if not isinstance(content, dict):
        raise UserError(f"{name}: a recipe is a mapping with title, source and steps.")
    if unknown := [key for key in content if key not in _KEYS]:
        raise UserError(f"{name}: a recipe has no {unknown[0]!r}; it has {', '.join(_KEYS)}.")
    if not content.get("steps"):
        raise UserError(f"{name}: has no steps; give some by name, such as `pairs: {{build: {{...}}}}`.")
    return Recipe(
        name=Path(name).stem,
        title=str(content.get("title", name)),
        source=str(content.get("source", "")),
        steps=steps_of(content["steps"], name),
        base=str(content.get("base", "")),
        pairs=str(content.get("pairs", "")),
        notes=str(content.get("notes", "")).strip(),
        small=content.get("small") or {},
    )


def merged(settings: Mapping[str, Any], changes: Mapping[str, Any], whole: tuple[str, ...] = _WHOLE) -> dict[str, Any]:
    """Settings with changes: groups are merged, those in `whole` and everything else replaced; None takes away."""
    found = dict(settings)
    for key, value in changes.items():
        old = found.get(key)
        if value is None:
            found.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(old, Mapping) and key not in whole:
            found[key] = merged(old, value, whole)
        else:
            found[key] = value
    return found


def steps_of(given: Any, where: str) -> tuple[RecipeStep, ...]:
    """Steps by name, each a command with its settings. Raises UserError that names `where` for anything else."""
    if not isinstance(given, Mapping):
        raise UserError(f"{where}: give steps by name, such as `pairs: {{build: {{...}}}}`.")
    return tuple(_step(where, *item) for item in given.items())


def _step(recipe_name: str, name: str, content: Any) -> RecipeStep:
    if not isinstance(content, dict) or len(content) != 1:
        raise UserError(f"{recipe_name}: step {name!r} is one command with its settings, such as `build: {{...}}`.")
    [(command, settings)] = content.items()
    return RecipeStep(str(name), str(command), settings or {})


def _folder() -> Any:
    return resources.files("veridical.recipes").joinpath("published")
