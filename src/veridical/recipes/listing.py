"""`veridical recipe list`: the published methods that one command runs."""

from __future__ import annotations

from dataclasses import dataclass

from veridical.recipes.recipe import names, recipe


@dataclass(frozen=True)
class RecipeListConfig:
    """List the recipes: each reproduces a paper's method with its published settings."""

    json: bool = False
    """Print JSON instead: each one's name, title, source, base, published pairs, commands and notes."""


def run(config: RecipeListConfig) -> None:
    """Print the list."""
    recipes = [recipe(name) for name in names()]
    if config.json:
        import json

        rows = [
            {"name": one.name, "title": one.title, "source": one.source, "base": one.base, "pairs": one.pairs,
             "commands": [step.command for step in one.steps], "notes": one.notes}
            for one in recipes
        ]  # fmt: skip
        print(json.dumps(rows, indent=2))
        return
    width = max(len(one.name) for one in recipes)
    for one in recipes:
        print(f"  {one.name:<{width}}  {one.title}")
