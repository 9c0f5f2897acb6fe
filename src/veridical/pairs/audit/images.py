"""Faults of the images of a set: unreadable, tiny, copies, and images that a benchmark is measured on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from veridical.pairs.audit.finding import Finding
from veridical.pairs.dataset import all_images
from veridical.records import ImageFile, Pair

SMALL_SIDE = 64
"""Pixels of the shorter side below which an image shows a model little."""
LARGE = 12_000_000
"""Pixels above which decoding an image costs more than reading it."""
NEAR_BITS = 4
"""Bits of 64 in which perceptual hashes of the same picture may differ, scaled or compressed again."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """An image that was opened: its size and its perceptual hash of 64 bits, or what is wrong with it."""

    pixels: int = 0
    shorter: int = 0
    hash: int = 0
    fault: str = ""


def check_images(pairs: Sequence[Pair], evaluated: Iterable[Path] = ()) -> Iterator[Finding]:
    """Every fault of images. `evaluated` are images that models will be measured on and that must not be in the set."""
    by_image: dict[ImageFile, list[str]] = defaultdict(list)
    for pair in pairs:
        for image in dict.fromkeys(all_images(pair)):
            by_image[image].append(pair.id)
    if without := tuple(pair.id for pair in pairs if not pair.images):
        text = f"{len(without)} pairs have no image: they are about text alone"
        remedy = "if there should be one, see which fields of the rows name images and were not read"
        yield Finding("no-image", "warning", text, remedy, without, frozenset(without))
    seen = {image: _look(image.path) for image in by_image}
    yield from _unreadable(by_image, seen)
    yield from _sizes(by_image, seen)
    yield from _copies(by_image, seen)
    yield from _leaks(by_image, seen, list(evaluated))


def _look(path: Path) -> _Seen:
    import imagehash
    import PIL.Image

    from veridical.vlm.images.files import ImageError, open_image

    try:
        image = open_image(ImageFile(path, ""))
        bits = imagehash.phash(image).hash.flatten()
    except ImageError as error:
        return _Seen(fault=f"{error.reason}: {error.detail}")
    except (OSError, ValueError, PIL.Image.DecompressionBombError) as error:
        return _Seen(fault=str(error)[:120])
    return _Seen(image.width * image.height, min(image.size), int("".join("1" if bit else "0" for bit in bits), 2))


def _pairs_with(by_image: Mapping[ImageFile, list[str]], images: Iterable[ImageFile]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for image in images for name in by_image[image]))


def _unreadable(by_image: Mapping[ImageFile, list[str]], seen: Mapping[ImageFile, _Seen]) -> Iterator[Finding]:
    bad = [image for image, look in seen.items() if look.fault]
    if bad:
        ids = _pairs_with(by_image, bad)
        text = f"{len(bad)} images can't be read, such as {bad[0].path.name} ({seen[bad[0]].fault})"
        yield Finding("unreadable-images", "error", text, "restore them or leave the pairs out", ids, frozenset(ids))


def _sizes(by_image: Mapping[ImageFile, list[str]], seen: Mapping[ImageFile, _Seen]) -> Iterator[Finding]:
    small = [image for image, look in seen.items() if not look.fault and look.shorter < SMALL_SIDE]
    if small:
        ids = _pairs_with(by_image, small)
        text = f"{len(small)} images are smaller than {SMALL_SIDE} pixels"
        yield Finding("tiny-images", "warning", text, "leave them out, or find larger ones", ids, frozenset(ids))
    large = [image for image, look in seen.items() if look.pixels > LARGE]
    if large:
        text = f"{len(large)} images have more than {LARGE / 1e6:.0f} megapixels"
        yield Finding("huge-images", "note", text, "scale them down once, to save time", _pairs_with(by_image, large))


def _copies(by_image: Mapping[ImageFile, list[str]], seen: Mapping[ImageFile, _Seen]) -> Iterator[Finding]:
    """Different files that show the same picture; the same file under several pairs is no fault."""
    groups: dict[int, list[ImageFile]] = defaultdict(list)
    for image, look in seen.items():
        if not look.fault:
            groups[look.hash].append(image)
    several = [group for group in groups.values() if len({image.sha256 for image in group}) > 1]
    if several:
        ids = _pairs_with(by_image, (image for group in several for image in group))
        text = f"{sum(map(len, several))} image files show {len(several)} pictures, scaled or saved again"
        yield Finding("same-pictures", "note", text, "count them as one image when splitting", ids)


def _leaks(
    by_image: Mapping[ImageFile, list[str]], seen: Mapping[ImageFile, _Seen], evaluated: Sequence[Path]
) -> Iterator[Finding]:
    import hashlib

    if not evaluated:
        return
    digests, hashes = set[str](), list[int]()
    for path in evaluated:
        digests.add(hashlib.sha256(path.read_bytes()).hexdigest())
        if not (look := _look(path)).fault:
            hashes.append(look.hash)
    leaked = [
        image
        for image, look in seen.items()
        if image.sha256 in digests or (not look.fault and any((look.hash ^ h).bit_count() <= NEAR_BITS for h in hashes))
    ]
    numbers: dict[str, Any] = {"evaluation_images": len(evaluated), "leaked": len(leaked)}
    if leaked:
        ids = _pairs_with(by_image, leaked)
        text = f"{len(leaked)} of the images are among the {len(evaluated)} evaluation images"
        remedy = "leave them out: a model must not be measured on what it was trained on"
        yield Finding("leaks", "error", text, remedy, ids, frozenset(ids), numbers)
    else:
        yield Finding("leaks", "note", f"none of {len(evaluated)} evaluation images is in the set", numbers=numbers)
