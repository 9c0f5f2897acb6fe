"""The pairs that a run is trained on: of one build or of several, cut to the size that all sets of a seed have.

A data set that is larger wins by being larger (arXiv 2407.02477, section 5.1), so sets are compared at equal size: each
gives as many pairs as the smallest one has, those of records that all could use first.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from veridical import files
from veridical.errors import UserError
from veridical.records import Pair, Spans

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class DrawnSet:
    """Which pairs: of which builds, in equal parts; how many, or as many as the `rivals` all have."""

    builds: tuple[Path, ...]
    size: int | None
    matched: bool
    rivals: tuple[tuple[Path, ...], ...]
    """The builds of every set that this one is matched with, its own too."""
    label_noise: float
    seed: int


def write_set(wanted: DrawnSet, out: Path) -> dict[str, Any]:
    """Write the set as a run folder of pairs; returns how many there are, and a hash of them.

    Raises UserError where a build gives fewer than asked for.
    """
    from veridical.pairs.command import write_part
    from veridical.pairs.dataset import read_pairs

    # A build that failed, or none of whose records gave a pair, leaves its own cells out and no others.
    known = [builds for builds in wanted.rivals if all(map(_gave_pairs, builds))]
    count = wanted.size or (min(available(builds) for builds in known) if wanted.matched else available(wanted.builds))
    parts = _split(count, len(wanted.builds))
    shared = _shared(known) if wanted.matched else set()
    pairs: list[Pair] = []
    for build, part in zip(wanted.builds, parts, strict=True):
        found = read_pairs(build)
        if len(found) < part:
            raise UserError(
                f"{build}: gives {len(found)} pairs, and {part} are wanted of it; raise the limit of records, or lower "
                "size."
            )
        # Sorted is stable: within both groups pairs stay in the order of the records.
        pairs += sorted(found, key=lambda pair: pair.record_id not in shared)[:part]
    pairs = _told_apart(pairs) if len(wanted.builds) > 1 else pairs
    noised = [_swapped(pair) if _coin(pair, wanted.seed) < wanted.label_noise else pair for pair in pairs]
    _link_images(noised, out)
    write_part(out, noised, of=wanted.builds[0])
    digest = hashlib.sha256("\n".join(f"{p.id}\t{p.chosen}\t{p.rejected}" for p in noised).encode()).hexdigest()
    return {"pairs": len(noised), "sha256": digest}


def _gave_pairs(build: Path) -> bool:
    return (build / MANIFEST).exists() and available([build]) > 0


def available(builds: Sequence[Path]) -> int:
    """How many pairs a set of finished builds can have, in equal parts of each."""
    counts = [int(files.read_json(build / MANIFEST)["pairs_out"]) for build in builds]
    return min(counts) * len(counts)


def _split(count: int, parts: int) -> list[int]:
    """`count` in as many parts, as equal as can be."""
    return [count // parts + (place < count % parts) for place in range(parts)]


def _shared(sets: Sequence[Sequence[Path]]) -> set[str]:
    """The records of which every build has a pair."""
    from veridical.pairs.dataset import read_pairs

    by_build = [{pair.record_id for pair in read_pairs(build)} for build in {one for builds in sets for one in builds}]
    return set.intersection(*by_build) if by_build else set()


def _told_apart(pairs: Sequence[Pair]) -> list[Pair]:
    """Pairs of several builds, with ids that say of which; two builds number their pairs alike."""
    return [replace(pair, id=f"{pair.id}/{pair.provenance.construction}") for pair in pairs]


def _coin(pair: Pair, seed: int) -> float:
    from veridical.vlm.seeds import generator

    return float(generator("label noise", (seed, pair.id)).random())


def _swapped(pair: Pair) -> Pair:
    """The pair with its label turned round."""
    spans = pair.spans and Spans(pair.spans.rejected, pair.spans.chosen)
    return replace(pair, chosen=pair.rejected, rejected=pair.chosen, spans=spans)


def _link_images(pairs: Sequence[Pair], out: Path) -> None:
    """Let the set have its images without copying them, where the disk can do that."""
    folder = out / "images"
    folder.mkdir(parents=True, exist_ok=True)
    for path in {image.path for pair in pairs for image in (*pair.images, *(pair.rejected_images or ()))}:
        with suppress(OSError):
            os.link(path, folder / path.name)
