"""`veridical recipe show NAME`: a recipe's YAML, to be read, or saved, changed and run."""

from __future__ import annotations

from dataclasses import dataclass

from veridical.recipes.recipe import text_of


@dataclass(frozen=True)
class ShowConfig:
    """Print a recipe, to be saved and changed: `recipe show bpo > mine.yaml`, then `recipe run mine.yaml`."""

    name: str
    """One of those that `veridical recipe list` names, or a YAML file."""


def run(config: ShowConfig) -> None:
    """Print the recipe's file."""
    print(text_of(config.name).rstrip())
