"""Which records of a build have similar images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from veridical.records import Record

if TYPE_CHECKING:
    import numpy

SIDE = 16


@dataclass(frozen=True)
class Gallery:
    """The records among which images are retrieved, by the distance of their thumbnails or embeddings.

    Thumbnails of 16 x 16 pixels tell scenes, layouts and colours apart. They need no model, and the same images
    are retrieved whatever model the pairs are made with. Embeddings are a model's, compared by cosine.
    """

    records: Sequence[Record]
    embed: Callable[[Sequence[Record]], numpy.ndarray] | None = None
    """Unit vectors [records, width] of records' images; NaN for images that can't be opened."""

    def similar(
        self, record: Record, count: int, by: Literal["embeddings", "thumbnails"] = "thumbnails"
    ) -> list[Record]:
        """Up to `count` records with other images, the most similar first; of equals, the one that came first."""
        import numpy

        mine = {image.sha256 for image in record.images}
        if by == "thumbnails":
            distances = ((self._thumbnails - _thumbnail(record)) ** 2).sum(1)
        else:
            own = self._embeddings[self._places[record.id]]
            distances = numpy.nan_to_num(1 - self._embeddings @ own, nan=numpy.inf)
        others = (self.records[place] for place in numpy.argsort(distances, kind="stable"))
        by_id: dict[str, Record] = {}
        for other in others:
            if len(by_id) == count:
                break
            if other.images and mine.isdisjoint(image.sha256 for image in other.images):
                by_id.setdefault(other.images[0].sha256, other)
        return list(by_id.values())

    @cached_property
    def _places(self) -> dict[str, int]:
        return {record.id: place for place, record in enumerate(self.records)}

    @cached_property
    def _embeddings(self) -> numpy.ndarray:
        """[records, width]."""
        if self.embed is None:
            raise ValueError("this gallery has no model to embed images with")
        return self.embed(self.records)

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
