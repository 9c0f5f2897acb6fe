"""Which records of a build have similar images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from veridical.records import Record

if TYPE_CHECKING:
    import numpy

SIDE = 16


@dataclass(frozen=True)
class Gallery:
    """The records among which images are retrieved, by the distance of their thumbnails.

    Thumbnails of 16 x 16 pixels tell scenes, layouts and colours apart. They need no model, and the same images
    are retrieved whatever model the pairs are made with.
    """

    records: Sequence[Record]

    def similar(self, record: Record, count: int) -> list[Record]:
        """Up to `count` records with other images, the most similar first; of equals, the one that came first."""
        import numpy

        mine = {image.sha256 for image in record.images}
        distances = ((self._thumbnails - _thumbnail(record)) ** 2).sum(1)
        others = (self.records[place] for place in numpy.argsort(distances, kind="stable"))
        found: dict[str, Record] = {}
        for other in others:
            if len(found) == count:
                break
            if other.images and mine.isdisjoint(image.sha256 for image in other.images):
                found.setdefault(other.images[0].sha256, other)
        return list(found.values())

    @cached_property
    def _thumbnails(self) -> numpy.ndarray:
        """[records, pixels]."""
        import numpy

        return numpy.stack([_thumbnail(record) for record in self.records])


def _thumbnail(record: Record) -> numpy.ndarray:
    import numpy

    from veridical.vlm.images.files import ImageError, open_image

    try:
        small = open_image(record.images[0]).resize((SIDE, SIDE))
    except (ImageError, IndexError):
        return numpy.full(SIDE * SIDE * 3, numpy.inf, dtype=numpy.float32)
    return numpy.asarray(small, dtype=numpy.float32).reshape(-1)
