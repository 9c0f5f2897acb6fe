"""The picture world as records, and as a folder of PNG files such as a user would bring."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator, Sequence
from io import BytesIO
from itertools import permutations
from pathlib import Path
from typing import Any

from veridical.files import whole, write_whole
from veridical.records import Annotations, Counterfactual, ImageFile, Message, ObjectInImage, Record, Relation
from veridical.world.captions import DESCRIBE, caption
from veridical.world.counterfactual import change_one
from veridical.world.drawing import draw
from veridical.world.scenes import CANVAS, Scene, scenes
from veridical.world.vocabulary import COLOURS

CLEARLY = 0.1
"""How much further left an object must be to count as left of another, in widths of the picture."""


def world_records(split: str, count: int, seed: int, folder: Path) -> list[Record]:
    """Draw the scenes of a split into `folder` as PNG files and return their records.

    Each record has the scene's annotations, a caption that names every object as its reference, and the prompt
    "Describe this image."; those of the split `counterfactual` also the same scene with one object absent or replaced.
    Pictures that are already there are kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return [_record(scene, split, folder) for scene in scenes(split, count, seed)]


def _record(scene: Scene, split: str, folder: Path) -> Record:
    reference = caption(scene, random.Random(f"reference/{scene.key}"))
    return Record(
        id=f"world-{scene.key}",
        images=(_save_picture(scene, folder),),
        prompt=(Message("user", DESCRIBE[0]),),
        reference=reference,
        annotations=_annotations(scene),
        source=f"world:{split}",
        counterfactual=_counterfactual(scene, reference, folder) if split == "counterfactual" else None,
    )


def _counterfactual(scene: Scene, reference: str, folder: Path) -> Counterfactual | None:
    changed = change_one(scene, reference, random.Random(f"counterfactual/{scene.key}"))
    return None if changed is None else Counterfactual((_save_picture(changed[0], folder),), changed[1])


def _annotations(scene: Scene) -> Annotations:
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


def _save_picture(scene: Scene, folder: Path) -> ImageFile:
    path = folder / f"{scene.key}.png"
    if path.exists():
        return ImageFile(path, hashlib.sha256(path.read_bytes()).hexdigest())
    buffer = BytesIO()
    draw(scene).save(buffer, "PNG")
    write_whole(path, buffer.getvalue(), lasting=False)
    return ImageFile(path, hashlib.sha256(buffer.getvalue()).hexdigest())


def write_folder(records: Sequence[Record], folder: Path) -> Path:
    """Describe drawn records in `folder`/metadata.jsonl, as Hugging Face's ImageFolder reads it.

    Returns the path of that file. Each line has `file_name` and `text`, and what is known of the picture:
    `objects`, `scene`, `relations`, `facts`.
    """
    path = folder / "metadata.jsonl"
    with whole(path) as partial, partial.open("w", encoding="utf-8") as lines:
        lines.writelines(json.dumps(_row(record)) + "\n" for record in records)
    return path


def _row(record: Record) -> dict[str, Any]:
    known = record.annotations or Annotations()
    return {
        "file_name": record.images[0].path.name,
        "text": record.reference,
        "id": record.id,
        "objects": [{"name": o.name, "box": o.box, "attributes": o.attributes} for o in known.objects],
        "scene": known.scene,
        "relations": [[r.subject, r.relation, r.object] for r in known.relations],
        "facts": known.facts,
    }
