"""The picture world as records, and as a folder of PNG files such as a user would bring."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from veridical.errors import UserError
from veridical.files import whole
from veridical.records import Annotations, Counterfactual, ImageFile, Message, Record
from veridical.world.annotated import annotations_of, save_picture
from veridical.world.captions import DESCRIBE, caption
from veridical.world.counterfactual import change_one
from veridical.world.drawing import draw
from veridical.world.scenes import Scene, scenes

SFT = ("sft", "sft-unseen")
"""What the bundled model was last trained on, and pictures of the same kind that it never saw: as many as there are."""


def world_records(split: str, count: int | None, seed: int, folder: Path) -> list[Record]:
    """Draw the scenes of a split into `folder` as PNG files and return their records.

    Each record has the scene's annotations, a caption that names every object as its reference, and the prompt
    "Describe this image."; those of the split `counterfactual` also the same scene with one object absent or replaced.
    The split `sft` is what the bundled model was last trained on, `sft-unseen` more of the same kind
    (`veridical.world.sft`), all of it without a count.
    Pictures that are already there are kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if split in SFT:
        from veridical.world.sft import sft_records

        return sft_records(split, count, seed, folder)
    if count is None:
        raise UserError(f"world:{split} has any number of scenes; say how many.")
    return [_record(scene, split, folder) for scene in scenes(split, count, seed)]


def _record(scene: Scene, split: str, folder: Path) -> Record:
    reference = caption(scene, random.Random(f"reference/{scene.key}"))
    return Record(
        id=f"world-{scene.key}",
        images=(_save_picture(scene, folder),),
        prompt=(Message("user", DESCRIBE[0]),),
        reference=reference,
        annotations=annotations_of(scene),
        source=f"world:{split}",
        counterfactual=_counterfactual(scene, reference, folder) if split == "counterfactual" else None,
    )


def _counterfactual(scene: Scene, reference: str, folder: Path) -> Counterfactual | None:
    changed = change_one(scene, reference, random.Random(f"counterfactual/{scene.key}"))
    return None if changed is None else Counterfactual((_save_picture(changed[0], folder),), changed[1])


def _save_picture(scene: Scene, folder: Path) -> ImageFile:
    return save_picture(folder / f"{scene.key}.png", lambda: draw(scene))


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
