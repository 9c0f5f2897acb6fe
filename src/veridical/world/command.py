"""`veridical world`: write a part of the picture world as a folder of pictures, such as a user would bring."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from veridical.bounds import Positive, Seed
from veridical.world.records import world_records, write_folder


@dataclass(frozen=True)
class WorldConfig:
    """Which pictures to write, and where."""

    out: Path
    """Folder for the PNG files and metadata.jsonl."""
    split: str = "pairs"
    """pairs, sft (what the bundled model was last trained on), dev, in-theme (partners as often as in pictures) or
    anti-bias (partners left out)."""
    count: Positive = 200
    """How many pictures."""
    seed: Seed = 0
    """Another seed gives other pictures of the same kind."""


def run(config: WorldConfig) -> Path:
    """Write the folder and return it."""
    records = world_records(config.split, config.count, config.seed, config.out)
    write_folder(records, config.out)
    Console().print(f"{len(records)} pictures and metadata.jsonl in {config.out}")
    return config.out
