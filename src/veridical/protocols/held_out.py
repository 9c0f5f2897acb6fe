"""Which images a model may be measured on: never those that it was trained on.

An adapter's run folder names its pairs, pairs know the SHA-256 of their images, and a build that kept a share of its
records back says which in `held_out.json`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from veridical.config import read_yaml
from veridical.errors import UserError
from veridical.files import read_state
from veridical.formats.sources import is_world
from veridical.protocols.models import Measured

if TYPE_CHECKING:
    from veridical.protocols.config import EvalConfig

HELD_OUT = "held_out.json"


@dataclass(frozen=True)
class Apart:
    """What keeps measurement apart from training: images that were trained on, and what a build kept back.

    `records` is the source that a build kept images back from, "" where none did.
    """

    trained_on: frozenset[str] = frozenset()
    records: str = ""
    images: frozenset[str] = frozenset()
    build: str = ""


NOTHING_TRAINED = Apart()


def describe_apart(kept: Apart, config: EvalConfig, source: str) -> dict[str, Any]:
    """What results.json says about how measurement is kept apart from training."""
    if config.trained == "keep":
        how = "images that were trained on may be among them (--trained keep)"
    elif kept.records and source == kept.records and config.records is None:
        how = f"kept back from training by {kept.build}"
    elif kept.trained_on:
        how = f"none of the {len(kept.trained_on)} images that were trained on is among them"
    else:
        how = "no model here says which images it was trained on"
    return {"how": how, "trained_on": len(kept.trained_on)}


def apart(models: Sequence[Measured]) -> Apart:
    """What the adapters among the models were trained on, and which images their builds kept back.

    Of several builds that kept images back of one source, those count that all kept back.
    """
    builds = dict.fromkeys(build for model in models for build in _builds_of(model))
    trained = frozenset(image for build in builds for image in _images_of(build))
    kept = {build: state for build in builds if (state := _kept_back(build))}
    sources = {str(state["records"]) for state in kept.values()}
    if len(sources) != 1 or is_world(source := sources.pop()):
        return Apart(trained)
    images = frozenset.intersection(*(frozenset(map(str, state["images"])) for state in kept.values()))
    return Apart(trained, source, images - trained, ", ".join(map(str, kept)))


def _builds_of(model: Measured) -> Iterator[Path]:
    """The build folders whose pairs a model was trained on, as far as its run folder tells."""
    place = model.adapter or Path(model.model).expanduser()
    for run in (place, place.parent):
        if (run / "config.yaml").is_file():
            yield from _named_pairs(run)
            # A `veridical loop`: every round has pairs of its own.
            yield from (folder for folder in sorted(run.glob("round-*/*")) if (folder / "pairs").is_dir())
            return


def _named_pairs(run: Path) -> Iterator[Path]:
    try:
        named: Any = read_yaml(run / "config.yaml").get("pairs") or ()
    except UserError:
        return  # A model's own config.yaml may hold anything.
    for name in [named] if isinstance(named, str) else named:
        for folder in (Path(str(name)).expanduser(), run.parent / Path(str(name)).name):
            if (folder / "pairs").is_dir():
                yield folder.resolve()
                break


def _images_of(build: Path) -> Iterator[str]:
    """The SHA-256 of every image in a build's pairs."""
    import pyarrow.parquet  # type: ignore[import-untyped]

    for shard in sorted((build / "pairs").glob("[!.]*.parquet")):
        try:
            column = pyarrow.parquet.read_table(shard, columns=["image_sha256"]).column(0)
        except (pyarrow.ArrowException, OSError, KeyError) as error:
            raise UserError(
                f"{shard}: can't be read ({error}), so it is not known which images the model was trained on; build "
                "these pairs again, or say --trained keep"
            ) from None
        for images in column.to_pylist():
            yield from images or ()


def _kept_back(build: Path) -> dict[str, Any]:
    """What a build kept back; that of several constructions is next to their folders."""
    for folder in (build, build.parent):
        if (folder / HELD_OUT).is_file():
            state = read_state(folder / HELD_OUT, {"records": str, "images": list})
            return state if state.get("images") else {}
    return {}
