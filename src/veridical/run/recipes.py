"""Recipes: which construction makes the pairs, with which settings, and how they are trained on."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from veridical.errors import UserError

if TYPE_CHECKING:
    from veridical.align.config import AlignConfig
    from veridical.pairs.config import BuildConfig

DEFAULT = "bdhs"


@dataclass(frozen=True)
class RunRecipe:
    """A construction, the settings of it, of the objective and of `align`; what is left out keeps its default."""

    construction: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    objective: Mapping[str, Any] = field(default_factory=dict)
    align: Mapping[str, Any] = field(default_factory=dict)


RECIPES: Mapping[str, RunRecipe] = MappingProxyType(
    {
        # Invented objects are replaced by true ones that the caption missed; omission pairs work against shortening,
        # repetition pairs against saying things twice, questions for yes/no answers. Chosen on the world's split `dev`.
        "demo": RunRecipe(
            "balanced-correction",
            {
                "correction": "replace",
                "omission_share": 0.8,
                "omit_from": "all",
                "repetition_share": 1.0,
                "question_share": 1.0,
            },
            {"name": "dpo", "beta": 0.3, "nll_weight": 3.0},
            {"learning_rate": 1e-3, "micro_batch": 16, "held_out": 0.0},
        ),
        "demo-bpo": RunRecipe(
            "bpo-image",
            {"view": "noise:450", "temperature": 0.7},
            {"name": "dpo", "beta": 0.3, "nll_weight": 3.0},
            {"learning_rate": 1e-3, "micro_batch": 16, "held_out": 0.0},
        ),
    }
)
"""Recipes beside those that every construction is, under its own name and with its own defaults."""


def recipe_of(name: str) -> RunRecipe:
    """The recipe called `name`. Raises UserError for an unknown one."""
    from veridical.constructions.registry import CONSTRUCTIONS

    if name in RECIPES:
        return RECIPES[name]
    if name in CONSTRUCTIONS:
        return RunRecipe(name)
    known = sorted({*CONSTRUCTIONS, *RECIPES})
    near = difflib.get_close_matches(name, known, n=1)
    raise UserError(f"--recipe {name} is unknown; {f'did you mean {near[0]!r}?' if near else ', '.join(known)}")


def build_config(recipe: RunRecipe, choices: Mapping[str, str] = MappingProxyType({}), **common: Any) -> BuildConfig:
    """The settings of `veridical build` by a recipe.

    `choices` decide, as on its command line, which judges there are settings of; `common` are further settings.
    """
    from veridical.constructions.registry import settings_type
    from veridical.pairs.config import config_type

    settings = settings_type(recipe.construction)(**recipe.settings)
    return config_type({**choices, "construction": recipe.construction})(settings=settings, **common)


def align_config(recipe: RunRecipe, choices: Mapping[str, str] = MappingProxyType({}), **common: Any) -> AlignConfig:
    """The settings of `veridical align` by a recipe, with the objective that `choices` name, if they name one."""
    from veridical.align.config import config_type
    from veridical.objectives.registry import objective_type

    given = {**recipe.align, **common}
    own = dict(recipe.objective)
    name = own.pop("name", None)
    chosen = choices.get("objective.name", name)
    if chosen is None:
        return config_type(choices)(**given)
    objective = objective_type(chosen)(**(own if chosen == name else {}))
    return config_type({**choices, "objective.name": chosen})(**{"objective": objective, **given})
