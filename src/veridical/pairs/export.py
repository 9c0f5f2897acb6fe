"""`veridical data export`: writes pairs as another trainer's file, or as one parquet file that holds everything; with
`--push`, to the Hugging Face Hub.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from veridical.errors import UserError
from veridical.files import read_state, remove_partial, remove_partial_of, whole, write_json, write_whole
from veridical.pairs.exported import Exported
from veridical.pairs.rows import warn_unverified
from veridical.pairs.wide import wide_features
from veridical.records import ImageFile, Pair
from veridical.vlm.images.files import read_image_file

if TYPE_CHECKING:
    from veridical.formats.published.own import Cells
    from veridical.formats.published.types import Format

_LIST = "dataset_info.json"
GROUP = 64
"""Pairs in memory at a time, and in a row group of a parquet file."""


@dataclass(frozen=True)
class ExportConfig:
    """Which pairs, and where to."""

    run: Annotated[Path, tyro.conf.Positional]
    """Run folder of a build or an import, or a file of pairs, or hf://OWNER/NAME on the Hub."""
    to: Path | None = None
    """The file to write. NAME.parquet is in TRL's shape and holds the images, unless --images is beside; NAME.json or
    NAME.jsonl has its images beside it, in a folder `images`. Only with --push it may be left out."""
    format: str = ""
    """Whose format a .json or .jsonl file has: veridical (all that is known of a pair), trl, llama-factory, ms-swift or
    povid (LLaVA's conversations). veridical if left out."""
    images: Literal["inside", "beside"] = "inside"
    """Where a parquet file's images are: in it, or in a folder `images` beside it."""
    image_root: tuple[Path, ...] = ()
    """Folders that the image paths of a file of pairs start from."""
    push: str = ""
    """OWNER/NAME of a data set on the Hugging Face Hub, which is made unless it exists; the pairs and a card with
    counts and provenance go there, as parquet or, with --format, as JSON lines."""
    private: bool = False
    """With --push: make a new data set private."""
    license: str = ""
    """With --push: the data set's licence in the Hub's words, such as cc-by-4.0; images keep their own."""

    def __post_init__(self) -> None:
        if self.to is None and not self.push:
            raise UserError("give --to, the file to write, or --push, a data set on the Hub.")
        if not self.push and (self.private or self.license):
            raise UserError("private and license go with --push.")


def run(config: ExportConfig) -> Path:
    """Write the file, or push it, or both; returns the file's path, or the folder of the pairs.

    Raises UserError for a folder without pairs, an unknown format, and what the Hub refuses.
    """
    from veridical.pairs.opening import is_run_folder, pairs_folder

    with tempfile.TemporaryDirectory(prefix="veridical-export-") as work:
        given = config.run.expanduser()
        folder = (
            given if given.is_dir() and is_run_folder(given) else pairs_folder(given, Path(work), config.image_root)
        )
        if config.push:
            from veridical.pairs.pushing import push

            write = partial(export, folder)
            told = push(folder, config.push, write, config.format, private=config.private, licence=config.license)
            _say(told, f"in {config.push} on the Hub; use them as hf://{config.push}")
        if config.to is None:
            return config.run
        done = export(folder, config.to, config.format, beside=config.images == "beside")
        _say(done, f"in {done.path}")
        return done.path


def _say(done: Exported, where: str) -> None:
    print(f"{done.rows} pairs {where}")
    for what, count in sorted(done.lost.items()):
        print(f"  not in this format: {what} of {count} pairs")


def export(run: Path, to: Path, form: str = "", *, beside: bool = False) -> Exported:
    """Write the pairs of a run folder to `to`, a few at a time. With `beside`, a parquet file's images are in a folder
    beside it, as a text file's always are. Raises UserError for an unknown format or suffix."""
    warn_unverified(run)
    remove_partial_of(to)
    remove_partial_of(to.with_name(_LIST))
    remove_partial(to.parent / "images")
    from veridical.formats.published.registry import FORMATS
    from veridical.pairs.dataset import stream_pairs

    if to.suffix == ".parquet":
        if form not in ("", "veridical", "trl"):
            raise UserError(f"{to}: {form} is written as .json or .jsonl; parquet is in TRL's shape.")
        return _write_parquet(stream_pairs(run), to, _beside(to.parent) if beside else _embedded)
    if to.suffix not in (".json", ".jsonl"):
        raise UserError(f"{to}: pairs are exported to a .parquet, .jsonl or .json file.")
    target = FORMATS.get(form or "veridical", "format")
    if target.write is None:
        writers = [name for name in FORMATS.names() if FORMATS.get(name).write is not None]
        raise UserError(f"pairs can't be written as {form}; they can as {', '.join(writers)}.")
    return _write_text(stream_pairs(run), to, target)


def _write_text(pairs: Iterator[Pair], to: Path, form: Format) -> Exported:
    assert form.write is not None
    rows, lost = 0, Counter[str]()
    with whole(to) as partial, partial.open("w", encoding="utf-8") as file:
        for pair in pairs:
            lost.update(wide_features(pair) - form.carries)
            for one in _rows_of(pair, form):
                row = form.write(one, [_copied(image, to.parent) for image in _images(one, form)])
                file.write(_before(to, rows) + json.dumps(row, ensure_ascii=False))
                rows += 1
        file.write(_end(to, rows))
    if form.name == "llama-factory":
        _describe(to)
    return Exported(to, rows, lost)


def _before(to: Path, rows: int) -> str:
    """What precedes a row: in a JSON array a bracket or a comma, in JSON lines the end of the line before."""
    if to.suffix == ".json":
        return ",\n" if rows else "[\n"
    return "\n" if rows else ""


def _end(to: Path, rows: int) -> str:
    if to.suffix == ".json":
        return "\n]\n" if rows else "[]\n"
    return "\n" if rows else ""


def _rows_of(pair: Pair, form: Format) -> list[Pair]:
    """The pair, and where the format has no further answers, a pair of its own for each."""
    if "others" in form.carries or not pair.others:
        return [pair]
    further = [
        replace(
            pair, id=f"{pair.id}/{number}", rejected=one.text, rejected_images=one.images, spans=one.spans, others=(),
            provenance=replace(pair.provenance, rejected_source=one.source),
            weights=None if one.weight is None else ((pair.weights or (1.0, 1.0))[0], one.weight),
        )
        for number, one in enumerate(pair.others, start=2)
        # The chosen text on another image is a pair only where that image can be said.
        if one.text != pair.chosen or "rejected_images" in form.carries
    ]  # fmt: skip
    return [replace(pair, others=()), *further]


def _images(pair: Pair, form: Format) -> list[ImageFile]:
    own = pair.rejected_images or () if "rejected_images" in form.carries else ()
    others = (image for one in pair.others for image in one.images or ()) if "others" in form.carries else ()
    return [*pair.images, *own, *others]


def _copied(image: ImageFile, folder: Path) -> str:
    """Copy an image beside the file under its content's hash, once; returns its name there."""
    name = f"images/{image.sha256}{image.path.suffix}"
    target = folder / name
    if not target.exists():
        write_whole(target, read_image_file(image), lasting=False)
    return name


def _describe(to: Path) -> None:
    """Add the file to LLaMA-Factory's list of data sets beside it, as a set of pairs."""
    path = to.with_name(_LIST)
    known = read_state(path, remedy="mend it or move it away") if path.exists() else {}
    columns = {"messages": "conversations", "chosen": "chosen", "rejected": "rejected", "images": "images"}
    about = {
        "file_name": to.name,
        "formatting": "sharegpt",
        "ranking": True,
        "columns": {**columns, "system": "system"},
    }
    write_json(path, {**known, to.stem: about})


def _write_parquet(pairs: Iterator[Pair], to: Path, cells: Cells) -> Exported:
    """Write row groups of some pairs each, so that memory doesn't grow with their number."""
    import pyarrow.parquet  # type: ignore[import-untyped]

    from veridical.formats.published.own import pair_row
    from veridical.pairs.dataset import pyarrow_table

    rows = 0
    with whole(to) as partial, pyarrow.parquet.ParquetWriter(partial, pyarrow_table([]).schema) as writer:
        while batch := list(islice(pairs, GROUP)):
            writer.write_table(pyarrow_table([pair_row(pair, cells) for pair in batch]))
            rows += len(batch)
    return Exported(to, rows, Counter())


def _beside(folder: Path) -> Cells:
    """Copies images beside the file and writes their paths from there."""

    def cells(images: Sequence[ImageFile] | None) -> list[Any] | None:
        return None if images is None else [{"bytes": None, "path": _copied(image, folder)} for image in images]

    return cells


def _embedded(images: Sequence[ImageFile] | None) -> list[Any] | None:
    if images is None:
        return None
    return [{"bytes": read_image_file(image), "path": image.path.name} for image in images]
