"""Data from somebody else: rows of records, images, sets of pairs, pairs on disk."""

from __future__ import annotations

import json
import os
import random
import shutil
import warnings
from collections import Counter
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
from benchmarks.fuzz import mutations
from benchmarks.fuzz.campaign import LostError, Target
from PIL import Image

from veridical.formats.sources import read_records
from veridical.pairs.dataset import read_pairs, to_trl, write_build
from veridical.pairs.export import export
from veridical.pairs.importing import ImportConfig, import_published
from veridical.pairs.opening import pairs_folder
from veridical.records import ImageFile, Message, Pair, Provenance, Record
from veridical.vlm.images.files import ImageError, check_image, open_image

ROWS = 20
RECORD = {
    "id": "one", "file_name": "0.png", "text": "There is a cup and a fork on the table.", "scene": "kitchen",
    "prompt": [{"role": "user", "content": "Describe this image."}], "source": "mine",
    "objects": [{"name": "cup", "box": [0.1, 0.1, 0.5, 0.5], "attributes": ["red"]}, "fork"],
    "relations": [["cup", "left of", "fork"]], "regions": [{"text": "a red cup", "box": [0, 0, 0.5, 0.5]}],
    "facts": ["The cup is full."], "counterfactual_image": "1.png", "counterfactual_text": "There is a cup.",
}  # fmt: skip
SETS: Mapping[str, dict[str, Any]] = {
    "bpo": {"image": "0.png", "prompt": "What is it?", "completions": [{"response": "A cup.", "score": 1},
            {"response": "A fork.", "score": 0}], "id": 1},
    "rlhf_v": {"ds_name": "r", "idx": 0, "image": "0.png", "origin_dataset": "o", "origin_split": "{}",
               "text": json.dumps({"question": "What?", "chosen": "A cup.", "rejected": "A fork."})},
    "trl": {"images": ["0.png"], "prompt": [{"role": "user", "content": "What?"}],
            "chosen": [{"role": "assistant", "content": "A cup."}],
            "rejected": [{"role": "assistant", "content": "A fork."}]},
    "llava": {"id": "a", "image": "0.png", "conversations": [{"from": "human", "value": "<image>\nWhat?"},
              {"from": "gpt", "value": "A cup."}]},
    "rlaif_v": {"image": "0.png", "question": "What?", "chosen": "A cup.", "rejected": "A fork.", "idx": 1},
}  # fmt: skip
"""A row of published sets of different shapes."""


def pictures(folder: Path, count: int = 4) -> list[ImageFile]:
    """Some small images, with a link out of the folder, a pipe and a sparse giant beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for number in range(count):
        path = folder / f"{number}.png"
        Image.effect_noise((32, 24), 40 + number).convert("RGB").save(path)
        found.append(ImageFile(path, ""))
    if not (folder / "pipe.png").exists():
        os.mkfifo(folder / "pipe.png")
        (folder / "giant.png").touch()
        os.truncate(folder / "giant.png", 2**42)
        (folder / "link.png").symlink_to("/etc/hostname")
    return found


def _good_records(folder: Path) -> Path:
    pictures(folder)
    return folder


def read_mutated_records(good: Path, draw: random.Random, work: Path) -> Mapping[str, int]:
    """A file, or a folder's metadata, of which most rows are mutated: each row is a record or a rejection."""
    rows = [{**RECORD, "id": str(number), "file_name": f"{number % 4}.png"} for number in range(ROWS)]
    rows = [mutations.row(one, draw) if draw.random() < 0.8 else one for one in rows]
    source = work / "in"
    source.mkdir()
    for path in good.glob("[0-9].png"):
        os.link(path, source / path.name)
    for name in ("pipe.png", "giant.png", "link.png"):
        os.link(good / name, source / name, follow_symlinks=False)
    kind = draw.random()
    path = source / ("metadata.jsonl" if draw.random() < 0.3 else "rows.jsonl")
    if kind < 0.15 and (table := _table(rows)) is not None:
        path = source / "rows.parquet"
        pyarrow.parquet.write_table(table, path)
    elif kind < 0.3:
        path = source / "rows.csv"
        path.write_bytes(_csv(rows))
    else:
        path.write_bytes(mutations.lines(rows))
    damaged = draw.random() < 0.15
    if damaged:
        path.write_bytes(mutations.content(path.read_bytes(), draw))
    asked = source if path.name == "metadata.jsonl" else path
    found = list(read_records(str(asked), work / "work"))
    named = [one for one in found if isinstance(one, Record)]
    if not damaged and len(found) < ROWS:
        raise LostError(f"{ROWS} rows, {len(named)} records and {len(found) - len(named)} rejections ({path.name})")
    return {"used": len(named), "rejected": len(found) - len(named)}


def _table(rows: list[Any]) -> Any:
    """Rows as parquet, as far as Arrow can hold them; else None."""
    try:
        return pyarrow.Table.from_pylist([one if isinstance(one, dict) else {} for one in rows])
    except Exception:
        return None


def _csv(rows: list[Any]) -> bytes:
    names = ("id", "file_name", "text", "prompt")
    cells = [",".join(f'"{_shown(one.get(name, ""))}"' for name in names) for one in rows if isinstance(one, dict)]
    cells += ["only,two"] * (ROWS - len(cells))
    return "\n".join([",".join(names), *cells]).encode(errors="surrogatepass") + b"\n"


def _shown(cell: Any) -> str:
    try:
        return str(cell)[:99999]
    except RecursionError:
        return "[" * 5000


def _good_images(folder: Path) -> list[bytes]:
    folder.mkdir(parents=True, exist_ok=True)
    noise = Image.effect_noise((40, 24), 60)
    found = []
    for kind, mode in (("PNG", "RGB"), ("PNG", "RGBA"), ("PNG", "P"), ("PNG", "I;16"), ("JPEG", "RGB"),
                       ("JPEG", "CMYK"),
                       ("WEBP", "RGB"), ("GIF", "P"), ("BMP", "RGB"), ("TIFF", "RGB"), ("TIFF", "F"), ("PPM", "RGB"),
                       ("TGA", "RGB"), ("ICO", "RGBA")):  # fmt: skip
        buffer = BytesIO()
        noise.convert(mode if mode != "I;16" else "I").convert(mode).save(buffer, kind)
        found.append(buffer.getvalue())
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = BytesIO()
    noise.convert("RGB").save(buffer, "JPEG", exif=exif)
    return [*found, buffer.getvalue()]


def open_mutated_images(good: list[bytes], draw: random.Random, work: Path) -> Mapping[str, int]:
    """Damaged images open as 8-bit RGB, or say what is wrong with them."""
    found: Counter[str] = Counter()
    for number in range(20):
        path = work / f"{number}.png"
        path.write_bytes(mutations.content(draw.choice(good), draw))
        try:
            check_image(path)
            if open_image(path).mode != "RGB":
                raise LostError("an image that isn't RGB")
            found["used"] += 1
        except ImageError:
            found["rejected"] += 1
    return found


def import_mutated_sets(good: Path, draw: random.Random, work: Path) -> Mapping[str, int]:
    """A published set's rows, mutated: each is used, rejected, or has no comparison."""
    name = draw.choice(sorted(SETS))
    rows = [mutations.row(SETS[name], draw) if draw.random() < 0.8 else SETS[name] for _ in range(ROWS)]
    path = work / ("rows.jsonl" if draw.random() < 0.7 else "rows.json")
    whole = mutations.as_json(rows).encode(errors="surrogatepass")
    path.write_bytes(mutations.lines(rows) if path.suffix == ".jsonl" else whole)
    damaged = draw.random() < 0.1
    if damaged:
        path.write_bytes(mutations.content(path.read_bytes(), draw))
    form = name.replace("_", "-") if draw.random() < 0.9 else None
    manifest = import_published(ImportConfig((*([form] if form else []), str(path)), work / "out", (good,)))
    read, rejected = manifest["import"], sum(manifest["rejected"].values())
    if not damaged and form and manifest["records_used"] + rejected + read["rows_without_comparison"] < read["rows"]:
        raise LostError(f"{read['rows']} rows, {manifest['records_used']} used, {rejected} rejected")
    return {"used": manifest["records_used"], "rejected": rejected + read["rows_without_comparison"]}


def _good_pairs(folder: Path) -> Path:
    images = pictures(folder / "pictures")
    made = Provenance("bdhs", "guided", {"rho": 0.5}, 0, "m")
    pairs = [
        Pair(f"p{n}", f"r{n}", (ImageFile(images[n % 4].path, str(n)),), (Message("user", "What?"),), f"A cup {n}.",
             f"A fork {n}.", made)
        for n in range(6)
    ]  # fmt: skip
    run = write_build(folder / "run", pairs)
    for name in ("pipe.png", "giant.png"):
        os.link(folder / "pictures" / name, run / "images" / name)
    (run / "images" / "link.png").symlink_to("/etc/hostname")
    return run


def use_mutated_pairs(good: Path, draw: random.Random, work: Path) -> Mapping[str, int]:
    """A folder of pairs whose rows, bytes or manifest were changed: read, exported, imported, or refused."""
    run = work / "run"
    shutil.copytree(good, run, copy_function=os.link, ignore=lambda *_: ["link.png", "pipe.png", "giant.png"])
    for name in ("pipe.png", "giant.png"):
        os.link(good / "images" / name, run / "images" / name)
    (run / "images" / "link.png").symlink_to("/etc/hostname")
    shard, manifest = run / "pairs" / "00000.parquet", run / "manifest.json"
    kind = draw.random()
    if kind < 0.6:
        rows = pyarrow.parquet.read_table(shard).to_pylist()
        changed = draw.sample(range(len(rows)), 2)
        rows = [mutations.row(one, draw, 2) if number in changed else one for number, one in enumerate(rows)]
        schema = pyarrow.parquet.read_schema(shard) if draw.random() < 0.5 else None
        try:
            json.dumps(rows, default=str)  # Arrow takes gigabytes for what is nested too deep for this
            table = pyarrow.Table.from_pylist(rows, schema=schema)
        except Exception:  # Arrow can't hold what the mutation made: a table of texts then
            table = pyarrow.table({str(name): ["x"] * len(rows) for name in rows[0] if str(name).isidentifier()})
        _replace(shard, table)
        manifest.unlink()
    elif kind < 0.85:
        _rewrite(shard, mutations.content(shard.read_bytes(), draw))
        if draw.random() < 0.5:
            manifest.unlink()
    else:
        content = mutations.row(json.loads(manifest.read_text()), draw)
        _rewrite(manifest, mutations.as_json(content).encode(errors="surrogatepass"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        used = draw.choice((_read, _trl, _export, _export_lines, _open))(run, work)
    return {"used": used, "refused": 2 if not used else 0}


def _replace(shard: Path, table: Any) -> None:
    shard.unlink()
    try:
        pyarrow.parquet.write_table(table, shard)
    except pyarrow.ArrowException:  # parquet can't hold what the mutation made
        pyarrow.parquet.write_table(pyarrow.table({"id": ["x"]}), shard)


def _rewrite(path: Path, content: bytes) -> None:
    path.unlink()  # the good file is linked to here
    path.write_bytes(content)


def _read(run: Path, work: Path) -> int:
    return len(read_pairs(run))


def _trl(run: Path, work: Path) -> int:
    return len(to_trl(run, embed=True))


def _export(run: Path, work: Path) -> int:
    return export(run, work / "x.parquet").rows


def _export_lines(run: Path, work: Path) -> int:
    return export(run, work / "x.jsonl", "llama-factory").rows


def _open(run: Path, work: Path) -> int:
    """As `align` opens what it is given: as a run folder, or imported."""
    return len(read_pairs(pairs_folder(run, work / "imported")))


TARGETS = (
    Target("records", 120, _good_records, read_mutated_records),
    Target("images", 90, _good_images, open_mutated_images),
    Target("sets", 60, _good_records, import_mutated_sets),
    Target("pairs", 400, _good_pairs, use_mutated_pairs),
)
