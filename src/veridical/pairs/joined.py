"""Joined sets on disk: a run folder of pairs like any other, whose manifest says what became of every set's pairs."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import tyro

from veridical.config import save_resolved, to_plain
from veridical.errors import UserError
from veridical.files import read_json, whole_folder, write_json, write_json_lines, write_whole
from veridical.pairs.joining import MixSettings, join
from veridical.pairs.opening import named, pairs_folder
from veridical.records import ImageFile

SHARD = 512
SUMMARISED = 2000
"""Pairs that the summary is about at most, evenly spread."""


@dataclass(frozen=True)
class JoinConfig:
    """Which sets of pairs to join, how, and where to."""

    sources: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Run folders of builds or imports, files of published sets, or hf://owner/name; NAME=PATH gives one a name."""
    out: Path
    """Folder for the joined pairs."""
    mix: MixSettings = field(default_factory=MixSettings)
    """How much of each set, and which of its pairs."""
    image_root: tuple[Path, ...] = ()
    """Folders that the image paths of published sets start from."""


def run(config: JoinConfig) -> Path:
    """Join the sets and return the folder. Raises UserError where it holds something, or no pair is left."""
    if config.out.exists() and any(config.out.iterdir()):
        raise UserError(f"{config.out}: isn't empty; give the joined pairs a new folder.")
    with tempfile.TemporaryDirectory() as work:
        sources = named(config.sources)
        sets = {name: pairs_folder(path, Path(work), config.image_root) for name, path in sources.items()}
        told = write_joined(sets, config.mix, config.out)
    for line in lines(told["join"]):
        print(line)
    print(f"{told['pairs_out']} pairs in {config.out}; train on them: veridical align --pairs {config.out} --out ...")
    return config.out


def write_joined(sets: Mapping[str, Path], settings: MixSettings, out: Path) -> dict[str, Any]:
    """Write the pairs of run folders that `settings` take to `out`, which appears whole; returns its manifest."""
    from veridical.pairs.card import card
    from veridical.pairs.dataset import all_images, stream_pairs, write_shard
    from veridical.pairs.summary import summarise

    pairs, counts = join([(name, partial(stream_pairs, path)) for name, path in sets.items()], settings)
    shards: list[dict[str, Any]] = []
    with whole_folder(out) as folder:
        while some := list(islice(pairs, SHARD)):
            name = f"{len(shards):05d}"
            _link({image for pair in some for image in all_images(pair)}, folder / "images")
            sha256 = write_shard(some, folder, name)
            shards.append({"file": f"pairs/{name}.parquet", "sha256": sha256, "pairs": len(some)})
        used = sum(one.used for one in counts)
        rejected = {
            "condition": sum(sum(one.left_out.values()) for one in counts),
            "copy": sum(one.copies for one in counts),
            "not-drawn": sum(one.not_drawn for one in counts),
        }
        manifest = {
            "records_in": sum(one.read for one in counts),
            "records_used": used,
            "rejected": {reason: count for reason, count in rejected.items() if count},
            "pairs_out": used,
            "identity": {
                "construction": "joined",
                "records": ", ".join(sets),
                "seed": settings.seed,
                "model": "",
                "model_fingerprint": "",
            },
            "join": {"settings": to_plain(settings), "sets": [asdict(one) for one in counts]},
            "shards": shards,
        }
        every = -(-used // SUMMARISED)
        summary = summarise(list(islice(stream_pairs(folder), 0, None, every)), (), None)
        counts_only = {name: manifest[name] for name in ("records_in", "records_used", "rejected", "pairs_out")}
        write_json(folder / "summary.json", counts_only | summary)
        write_whole(folder / "README.md", card(manifest, summary).encode())
        write_json_lines(folder / "rejects.jsonl", ())
        save_resolved(settings, folder / "config.yaml")
        write_json(folder / "manifest.json", manifest)
    return manifest


def joined_in(sets: Mapping[str, Path], settings: MixSettings, work: Path) -> Path:
    """The folder below `work` of these sets joined so; written unless it is there from an earlier start."""
    from veridical.pairs.rows import shards

    contents = {name: [_sha256(shard) for shard in shards(path)] for name, path in sets.items()}
    asked = json.dumps([contents, to_plain(settings)], sort_keys=True)
    out = work / f"joined-{hashlib.sha256(asked.encode()).hexdigest()[:12]}"
    if not (out / "manifest.json").exists():
        write_joined(sets, settings, out)
    return out


def joined_manifest(folder: Path) -> Mapping[str, Any] | None:
    """What the manifest of a folder says of how it was joined; None for any other folder."""
    path = folder / "manifest.json"
    told: Mapping[str, Any] | None = read_json(path).get("join") if path.exists() else None
    return told


def lines(told: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each set of `joined_manifest`: how many of its pairs are used, what became of the others."""
    for one in told["sets"]:
        left = {f"not {text}": count for text, count in one["left_out"].items()}
        left |= {"copies": one["copies"], "not drawn": one["not_drawn"]}
        why = ", ".join(f"{count} {what}" for what, count in left.items() if count)
        again = f"; {one['renamed']} under another id" if one["renamed"] else ""
        yield f"{one['name']}: {one['used']} of {one['read']} pairs{f' ({why})' if why else ''}{again}"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _link(images: Iterable[ImageFile], folder: Path) -> None:
    """Put stored images of other run folders here as further names of the same files, where the disk has such."""
    folder.mkdir(exist_ok=True)
    for image in images:
        if image.path.stem == image.sha256 and not (folder / image.path.name).exists():
            with suppress(OSError):
                os.link(image.path, folder / image.path.name)
