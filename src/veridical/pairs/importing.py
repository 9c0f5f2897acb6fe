"""`veridical data import`: reads a published preference set, or another trainer's file, into a folder of pairs."""

from __future__ import annotations

import importlib.metadata
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from veridical import runs
from veridical.bounds import Positive, Seed
from veridical.errors import UserError, describe, printable
from veridical.files import read_state, write_json, write_whole
from veridical.formats.hub import fetch
from veridical.hub import is_hub_name
from veridical.records import ImageFile, Pair, Record, Rejection

if TYPE_CHECKING:
    from veridical.formats.published.catalogue import Reading
    from veridical.formats.published.convert import Find
    from veridical.formats.published.types import Comparison, Example, Format, ReadOptions

COMMAND = "data import"
_IMPORTED = {"pairs_out": int, "records_in": int, "records_used": int, "rejected": dict, "import": dict}
SHARD = 512
SUMMARISED = 2000
"""Pairs that the summary is about at most, evenly spread, so that memory doesn't grow with their number."""


@dataclass(frozen=True)
class ImportConfig:
    """Which file to import, from which format, and where to."""

    source: Annotated[tuple[str, ...], tyro.conf.Positional]
    """The file or folder to import, or hf://OWNER/NAME[:SPLIT] on the Hub; before it, if you like, the name of its
    format (`veridical list formats`), which is recognised otherwise."""
    out: Path
    """Folder for the pairs, or for the records where the format holds no preferences."""
    image_root: tuple[Path, ...] = ()
    """Folders that the set's image paths start from. The set's own folder if left out."""
    aspect: str = "mean"
    """Which rating decides where a set has several (VLFeedback): mean, or a name as the set writes it."""
    prompt: str = "Describe this image."
    """What is asked where the set has images and references, but no question."""
    limit: Positive | None = None
    """Rows to read at most."""
    seed: Seed = 0
    """Draws what a set leaves open (HA-DPO's questions and variants, MMPR's shares)."""


def run(config: ImportConfig) -> Path:
    """Import the set and return the folder. Raises UserError for a file in no known format, or without a usable row."""
    import_published(config)
    _say(config.out)
    return config.out


def import_published(config: ImportConfig) -> dict[str, Any]:
    """Import the set into `config.out`, continuing where the same import was stopped; returns its manifest."""
    from veridical.formats.published.catalogue import read_published
    from veridical.formats.published.images import ImageFinder
    from veridical.formats.published.types import ReadOptions
    from veridical.pairs import run_folder

    name, path = _named(config.source)
    _refuse_inside(config.out, path)
    place = str(path)
    options = ReadOptions(config.aspect, config.seed)
    files: tuple[Path, ...] = (path,)
    beside: tuple[Path, ...] = (path.parent if path.is_file() else path,)
    if is_hub_name(path):
        fetched = fetch(path)
        files = fetched.files if fetched.split else (fetched.folder,)
        beside = (fetched.folder, *dict.fromkeys(file.parent for file in fetched.files))
    reading, items = read_published(files[0], name, options)
    if len(files) > 1:
        items = chain(items, _further(files[1:], reading, options))
    if run_folder.is_finished(config.out):
        runs.check(config.out, COMMAND, config)
        return read_state(config.out / run_folder.MANIFEST, _IMPORTED)
    identity = _identity(config, place, reading.format.name)
    find = ImageFinder(config.image_root or beside, config.out / run_folder.WORK / "unpacked")
    if config.limit is not None:
        items = _first_rows(items, reading, config.limit)
    made = _import_pairs if reading.format.kind == "pairs" else _import_records
    kept = bool(run_folder.finished_shards(config.out))
    with runs.opened(config.out, COMMAND, config, kept=lambda: kept) as settled:
        settled.settle({"source_bytes": sum(_size(file) for file in files), "format": reading.format.name})
        run_folder.forget_damaged(config.out)
        return made(config, items, reading, find, identity)


def _named(source: Sequence[str]) -> tuple[str | None, Path]:
    if len(source) not in (1, 2):
        raise UserError("give the file or folder to import, and before it, if you like, its format's name.")
    place = Path(source[-1])
    return (source[0] if len(source) == 2 else None), place if is_hub_name(place) else place.expanduser()


def _refuse_inside(out: Path, source: Path) -> None:
    """Raise UserError where what is written would be read again, as a part of the folder that is imported."""
    inside, folder = out.expanduser().resolve(), source.expanduser().resolve()
    if not folder.is_dir() or not inside.is_relative_to(folder):
        return
    if not any(part.startswith(".") for part in inside.relative_to(folder).parts):
        raise UserError(f"{out}: lies in {source}, whose files are read; give --out a folder elsewhere.")


def _size(file: Path) -> int:
    return file.stat().st_size


def _further(
    files: Sequence[Path], reading: Reading, options: ReadOptions
) -> Iterator[Comparison | Example | Rejection]:
    """The rows of further files of a set, counted with those of the first."""
    from veridical.formats.published.catalogue import read_published

    for file in files:
        own, items = read_published(file, reading.format.name, options)
        before = reading.rows, reading.no_comparison
        for item in items:
            reading.rows, reading.no_comparison = before[0] + own.rows, before[1] + own.no_comparison
            yield item
        reading.rows, reading.no_comparison = before[0] + own.rows, before[1] + own.no_comparison
        reading.unknown_fields.update(own.unknown_fields)


def _identity(config: ImportConfig, path: str, name: str) -> dict[str, Any]:
    """What the manifest says of how the pairs came to be."""
    return {
        "construction": name,
        "records": path,
        "aspect": config.aspect,
        "seed": config.seed,
        "limit": config.limit,
        "model": "",
        "model_fingerprint": "",
        "image_root": [str(root) for root in config.image_root],
    }


def _first_rows(
    items: Iterator[Comparison | Example | Rejection], reading: Reading, limit: int
) -> Iterator[Comparison | Example | Rejection]:
    for item in items:
        if reading.rows > limit:
            reading.rows = limit
            return
        yield item


def _import_pairs(
    config: ImportConfig,
    items: Iterator[Comparison | Example | Rejection],
    reading: Reading,
    find: Find,
    identity: Mapping[str, Any],
) -> dict[str, Any]:
    from veridical.pairs import run_folder
    from veridical.pairs.card import card
    from veridical.pairs.dataset import stream_pairs
    from veridical.pairs.summary import summarise

    done = run_folder.finished_shards(config.out)
    seen: Counter[str] = Counter()
    number = 0
    while batch := list(islice(items, SHARD)):
        names = [unrepeated(item.id, seen) if not isinstance(item, Rejection) else "" for item in batch]
        if number not in done:
            named = zip(batch, names, strict=True)
            outcomes = [_stored(outcome(item, find, reading.format, name), config.out) for item, name in named]
            run_folder.finish_shard(config.out, number, outcomes)
        number += 1
    manifest = run_folder.manifest_of(config.out, identity, {"veridical": importlib.metadata.version("veridical")})
    manifest["import"] = _counts(reading, seen)
    if manifest["pairs_out"]:
        every = -(-manifest["pairs_out"] // SUMMARISED)
        summary = summarise(list(islice(stream_pairs(config.out), 0, None, every)), (), None)
        write_json(config.out / "summary.json", {name: manifest[name] for name in _SUMMED} | summary)
        write_whole(config.out / "README.md", card(manifest, summary).encode())
    run_folder.close_folder(config.out, manifest)
    return manifest


_SHOWN = 6
_SUMMED = ("records_in", "records_used", "rejected", "pairs_out")


def _counts(reading: Reading, seen: Counter[str]) -> dict[str, Any]:
    return {
        "format": reading.format.name,
        "rows": reading.rows,
        "rows_without_comparison": reading.no_comparison,
        "rows_without_image": reading.no_image,
        "repeated_ids": sum(count - 1 for count in seen.values()),
        "files": dict(reading.files),
        "unknown_fields": {printable(str(name)): count for name, count in sorted(reading.unknown_fields.items())},
    }


def unrepeated(name: str, seen: Counter[str]) -> str:
    """An id that none before has: its own, else with "#2", "#3", ... after it. Many sets call rows by their image."""
    seen[name] += 1
    return name if seen[name] == 1 else unrepeated(f"{name}#{seen[name]}", seen)


def outcome(item: Comparison | Example | Rejection, find: Find, form: Format, name: str) -> list[Pair] | Rejection:
    """A row's pair, or why it gives none; a fault rejects that row alone. `name` is the row's id here."""
    from veridical.formats.published.convert import to_pair
    from veridical.formats.published.images import check_image_headers
    from veridical.formats.published.types import Comparison
    from veridical.formats.rows import UnusableError
    from veridical.pairs.dataset import check_fields

    if not isinstance(item, Comparison):
        return item if isinstance(item, Rejection) else Rejection(item.id, "no-comparison", "import it as records")
    try:
        pair = to_pair(item, find, form, name if item.made is not None else f"{form.name}/{name}")
        check_fields(pair)
        check_image_headers(pair)
    except UnusableError as error:
        return Rejection(name, error.reason, error.remedy, _placed(error.detail, item, name))
    except UnicodeEncodeError:
        return Rejection(
            name, "not-unicode", "write the whole character", _placed("a text holds half of a character", item, name)
        )
    except Exception as error:
        return Rejection(name, "unusable-row", "repair or delete the row", _placed(describe(error), item, name))
    return [pair]


def _placed(detail: str, item: Comparison | Example, name: str) -> str:
    """What is wrong with a row, and where it stands, unless its name says that."""
    return detail if item.place in name else f"{detail} ({item.place})"


def _stored(outcome: list[Pair] | Rejection, out: Path) -> list[Pair] | Rejection:
    """A row's pair with its images in the run folder. A full disk ends the import; a bad image does not."""
    from veridical.formats.rows import UnusableError
    from veridical.pairs.dataset import store
    from veridical.vlm.images.files import ImageError

    if isinstance(outcome, Rejection):
        return outcome
    try:
        return store(outcome, out)
    except (UnusableError, ImageError) as error:
        return Rejection(outcome[0].record_id, error.reason, error.remedy, error.detail)
    except OSError:
        raise  # the disk
    except Exception as error:  # decoders raise whatever comes of bytes that they didn't expect
        return Rejection(outcome[0].record_id, "unusable-image", "replace the image", describe(error))


def _import_records(
    config: ImportConfig,
    items: Iterator[Comparison | Example | Rejection],
    reading: Reading,
    find: Find,
    identity: Mapping[str, Any],
) -> dict[str, Any]:
    """Write records as a folder that `--records` takes: `metadata.jsonl` with the images beside it."""
    from veridical.files import write_json_lines
    from veridical.formats.published.convert import to_record
    from veridical.formats.published.types import Comparison
    from veridical.formats.rows import UnusableError
    from veridical.pairs import run_folder
    from veridical.pairs.failures import printable_rejection
    from veridical.pairs.images import store_image

    stored: dict[str, ImageFile] = {}
    rejects: list[Rejection] = []
    seen: Counter[str] = Counter()

    def rows() -> Iterator[dict[str, Any]]:
        for item in items:
            if isinstance(item, Rejection | Comparison):
                rejects.append(
                    item if isinstance(item, Rejection) else Rejection(item.id, "is-a-comparison", "import it as pairs")
                )
                continue
            try:
                name = unrepeated(item.id, seen)
                record = to_record(item, find, reading.format.name, config.prompt, name)
                for image in record.images:
                    if image.sha256 not in stored:
                        stored[image.sha256] = store_image(image, config.out / "images")
                row = _record_row(record, stored, config.out)
                json.dumps(row, ensure_ascii=False).encode()  # half of a character can't be written
            except UnusableError as error:
                rejects.append(Rejection(item.id, error.reason, error.remedy, _placed(error.detail, item, item.id)))
            except OSError:
                raise  # the disk
            except Exception as error:
                detail = _placed(describe(error), item, item.id)
                rejects.append(Rejection(item.id, "unusable-row", "repair or delete the row", detail))
            else:
                yield row

    write_json_lines(config.out / "metadata.jsonl", rows())
    write_json_lines(config.out / "rejects.jsonl", map(asdict, map(printable_rejection, rejects)))
    reasons: dict[str, int] = {}
    for reject in rejects:
        reasons[reject.reason] = reasons.get(reject.reason, 0) + 1
    used = _lines(config.out / "metadata.jsonl")
    manifest = {
        "records_in": used + len(rejects),
        "records_used": used,
        "rejected": dict(sorted(reasons.items())),
        "pairs_out": 0,
        "identity": dict(identity),
        "import": _counts(reading, seen),
    }
    run_folder.close_folder(config.out, manifest)
    return manifest


def _lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for _ in file)


def _record_row(record: Record, stored: Mapping[str, ImageFile], out: Path) -> dict[str, Any]:
    from veridical.pairs.dataset import path_within

    images = [path_within(stored[image.sha256], out) for image in record.images]
    row: dict[str, Any] = {"id": record.id, "images": images}
    row["prompt"] = [{"role": message.role, "content": message.text} for message in record.prompt]
    if record.reference:
        row["text"] = record.reference
    if record.annotations:
        about = json.loads(json.dumps(asdict(record.annotations)))
        row |= {name: value for name, value in about.items() if value}
    return row


def _say(out: Path) -> None:
    """Print what came in, what came out, and what was left out and why."""
    from veridical.pairs.run_folder import MANIFEST

    manifest = read_state(out / MANIFEST, _IMPORTED)
    read = manifest["import"]
    reasons = ", ".join(f"{count} {reason}" for reason, count in manifest["rejected"].items())
    left = manifest["records_in"] - manifest["records_used"]
    print(f"{read['rows']} rows of {read['format']}: {manifest['records_used']} used, {left} rejected", end="")
    print(f" ({reasons}; see {out / 'rejects.jsonl'})" if reasons else "", end="")
    print(f", {read['rows_without_comparison']} without a preference" if read["rows_without_comparison"] else "")
    if read["unknown_fields"]:
        names = ", ".join(f"{name} ({count})" for name, count in read["unknown_fields"].items())
        print(f"fields that the format doesn't define, not read: {names}")
    if len(files := read.get("files", {})) > 1:
        shown = ", ".join(f"{name} ({count})" for name, count in list(files.items())[:_SHOWN])
        print(f"out of {len(files)} files: {shown}{', ...' if len(files) > _SHOWN else ''}")
    if missing := read.get("rows_without_image"):
        print(f"{missing} rows name no image: they are about text alone")
    if repeated := read.get("repeated_ids"):
        print(f"{repeated} rows have the id of another one; they are called ID#2, ID#3, ...")
    if manifest["pairs_out"]:
        print(f"{manifest['pairs_out']} pairs in {out}; train on them: veridical align --pairs {out} --out ...")
    elif manifest["records_used"]:
        print(f"{manifest['records_used']} records in {out}; make pairs of them: veridical build --records {out} ...")
    else:
        raise UserError(f"{out}: none of {read['rows']} rows could be used ({reasons}); see rejects.jsonl.")
