"""A scene as records hold it: its annotations, and its picture as a file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from io import BytesIO
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING

from veridical.files import write_whole
from veridical.records import Annotations, ImageFile, ObjectInImage, Relation
from veridical.world.scenes import CANVAS, Scene
from veridical.world.vocabulary import COLOURS

if TYPE_CHECKING:
    from PIL.Image import Image

CLEARLY = 0.1
"""How much further left an object must be to count as left of another, in widths of the picture."""


def annotations_of(scene: Scene) -> Annotations:
    """Everything about a scene: its objects with boxes and colours, what stands left of what, and where it is."""
    return Annotations(
        objects=tuple(ObjectInImage(o.name, o.box, COLOURS.get(o.name, ())) for o in scene.objects),
        scene=scene.theme.name,
        relations=tuple(_relations(scene)),
        facts=(f"The scene is {scene.theme.place}.",),
    )


def _relations(scene: Scene) -> Iterator[Relation]:
    """Which object that is there once is clearly left of which other."""
    single = [o for o in scene.objects if scene.counts[o.name] == 1]
    for one, other in permutations(single, 2):
        if other.x - one.x > CLEARLY * CANVAS:
            yield Relation(one.name, "left of", other.name)


def save_picture(path: Path, drawn: Callable[[], Image]) -> ImageFile:
    """Write a picture as PNG, unless it is there already."""
    if path.exists():
        return ImageFile(path, hashlib.sha256(path.read_bytes()).hexdigest())
    buffer = BytesIO()
    drawn().save(buffer, "PNG")
    write_whole(path, buffer.getvalue(), lasting=False)
    return ImageFile(path, hashlib.sha256(buffer.getvalue()).hexdigest())
