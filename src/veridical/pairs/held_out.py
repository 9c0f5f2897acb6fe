"""The share of the images that a build keeps back, so that a model can be measured on images it wasn't trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from veridical import files
from veridical.errors import UserError
from veridical.formats.sources import is_world
from veridical.records import Record

FILE = "held_out.json"
DEFAULT_SHARE = 0.1


def share_for(source: str, asked: float | None) -> float:
    """The share to keep back: what was asked for; else a tenth, and nothing of the picture world, which has splits.

    Raises UserError for what is no share.
    """
    if asked is None:
        return 0.0 if is_world(source) else DEFAULT_SHARE
    if not 0 <= asked < 1:
        raise UserError(f"held_out is {asked}; it is the share of the images kept for evaluation, from 0 to below 1.")
    return asked


def seed_for(seed: int, asked: int | None) -> int:
    """The seed that picks what is kept back: what was asked for, else the build's own."""
    return seed if asked is None else asked


def held_out(records: Sequence[Record], share: float, seed: int) -> frozenset[str]:
    """The ids of the records to keep back, as `chooser` says."""
    kept = chooser(lambda: records, share, seed)
    return frozenset(record.id for record in records if kept(record))


def chooser(records: Callable[[], Iterable[Record]], share: float, seed: int) -> Callable[[Record], bool]:
    """What says of each of the records whether to keep it back; they are gone through twice and not held.

    An image is drawn by the hash of its content and the seed alone, so whichever records it comes with, and under
    whichever name, it is kept back or not. Records that share an image, directly or by way of others, stay together.
    Of two groups or more at least one is kept back and at least one is left.
    """
    if share == 0:
        return lambda _: False
    groups = _Groups(records())

    def place(record: Record) -> float:
        return _draw(groups.of(record), seed)

    lowest, highest = 2.0, -1.0
    for record in records():
        drawn = place(record)
        lowest, highest = min(lowest, drawn), max(highest, drawn)
    if lowest == highest:
        return lambda _: False
    if lowest >= share:
        return lambda record: place(record) == lowest
    return lambda record: place(record) < min(share, highest)


def write(folder: Path, source: str, share: float, seed: int, records: Sequence[Record]) -> None:
    """Write which records of a source were kept back."""
    images = sorted({image for record in records for image in _images(record)})
    content = {"records": source, "share": share, "seed": seed, "ids": [r.id for r in records], "images": images}
    files.write_json(folder / FILE, content)


def read(folder: Path) -> Mapping[str, Any] | None:
    """What `write` wrote: `records`, `share`, `seed`, `ids` and `images`; None for a build that kept nothing back."""
    path = folder / FILE
    return files.read_state(path, {"records": str, "images": list}) if path.exists() else None


class _Groups:
    """Records by the smallest image hash among all records that their images connect them with.

    Only images that some record shows together with others are held.
    """

    def __init__(self, records: Iterable[Record]) -> None:
        self._parent: dict[str, str] = {}
        for record in records:
            images = _images(record)
            for image in images[1:]:
                low, high = sorted((self._root(images[0]), self._root(image)))
                self._parent[high] = low

    def of(self, record: Record) -> str:
        """A record's group."""
        images = _images(record)
        return self._root(images[0]) if images else record.id

    def _root(self, image: str) -> str:
        parent = self._parent
        while (above := parent.get(image, image)) != image:
            parent[image] = image = parent.get(above, above)
        return image


def _images(record: Record) -> list[str]:
    """The hashes of a record's images, its counterfactual's among them."""
    changed = record.counterfactual.images if record.counterfactual else ()
    return [image.sha256 for image in (*record.images, *changed)]


def _draw(group: str, seed: int) -> float:
    """A number in [0, 1)."""
    return int.from_bytes(hashlib.sha256(f"held out {seed} {group}".encode()).digest()[:7], "big") / 2**56
