"""`veridical build`: makes preference pairs out of records, by one construction or by several over the same records."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from veridical.pairs import command, multi
from veridical.pairs.config import BuildConfig, checked, config_type, parts
from veridical.records import Record

if TYPE_CHECKING:
    from veridical.vlm.model.loading import Vlm

__all__ = ["BuildConfig", "config_type", "produce", "run"]


def run(config: BuildConfig) -> Path:
    """Make the pairs, print what came out, and return the run folder.

    A finished build with the same settings is only shown again; an unfinished one is continued. Raises UserError for
    settings that can't be, for a folder that holds another build, and where no pair came out.
    """
    return multi.run(config) if config.constructions else command.run(config)


def produce(config: BuildConfig, model: Vlm | None = None, records: Sequence[Record] | None = None) -> dict[str, Path]:
    """Do what `run` does without its tables; returns the folder of pairs that was asked for, by construction.

    With `size_matched` that is the part of the same size as the others', with `length_matched` the part whose sides are
    equally long, where there is one.

    Args:
        config: the settings.
        model: used instead of the one that they name.
        records: used instead of those that they name.

    Raises:
        UserError: as `run` does.
    """
    if not config.constructions:
        command.make(checked(config), model, records)
        if config.length_matched:
            command.match_lengths(config.out)
        return {config.construction: _part(config, config.out)}
    multi.make(config, model, records)
    if config.size_matched:
        return {build.construction: config.out / multi.MATCHED / build.construction for build in parts(config)}
    return {build.construction: _part(config, build.out) for build in parts(config)}


def _part(config: BuildConfig, folder: Path) -> Path:
    part = folder / command.LENGTH_MATCHED
    return part if config.length_matched and part.exists() else folder
