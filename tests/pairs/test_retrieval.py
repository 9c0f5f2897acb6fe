"""Which images are found similar."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from PIL import Image

from veridical.pairs.retrieval import Gallery
from veridical.records import ImageFile, Record


def record(folder: Path, name: str, colour: tuple[int, int, int]) -> Record:
    path = folder / f"{name}.png"
    Image.new("RGB", (40, 30), colour).save(path)
    return Record(name, (ImageFile(path, hashlib.sha256(path.read_bytes()).hexdigest()),), ())


@pytest.fixture
def records(tmp_path) -> list[Record]:
    colours = {"red": (200, 0, 0), "pink": (220, 60, 60), "same": (200, 0, 0), "green": (0, 200, 0), "dark": (90, 0, 0)}
    return [record(tmp_path, name, colour) for name, colour in colours.items()]


def test_the_most_similar_other_images_come_first(records):
    found = Gallery(records).similar(records[0], 2)
    assert [one.id for one in found] == ["pink", "dark"]  # never an image with the same content
    assert [one.id for one in Gallery(records).similar(records[3], 9)] == ["dark", "pink", "red"]


def test_there_is_nothing_to_find_in_a_gallery_of_one(records):
    assert Gallery(records[:1]).similar(records[0], 3) == []


def test_embeddings_are_means_of_what_the_language_model_is_shown(records, tmp_path):
    import torch

    from veridical.vlm.inputs.context import Context
    from veridical.vlm.inputs.prepare import prepare
    from veridical.vlm.load import load
    from veridical.vlm.prefix.encode import features
    from veridical.vlm.scores.image_embeddings import PROMPT, image_embeddings

    vlm = load("bundled", device="cpu")
    gone = ImageFile(tmp_path / "gone.png", "00")
    images = [*(one.images for one in records), (gone,), ()]
    found = image_embeddings(vlm, images, batch=2)
    for row, one in zip(found, records, strict=False):
        [alone] = features(vlm, [prepare(vlm, Context(one.images, PROMPT))])
        mean = alone.tokens.mean(0)
        torch.testing.assert_close(row, mean / mean.norm(), atol=1e-5, rtol=0)
    assert found[-2:].isnan().all()
    gallery = Gallery(records, lambda some: image_embeddings(vlm, [one.images for one in some]).numpy())
    order = [one.id for one in gallery.similar(records[0], 9, "embeddings")]
    cosines = {one.id: float(found[0] @ row) for row, one in zip(found, records, strict=False)}
    assert order == sorted(order, key=lambda name: -cosines[name])
    assert set(order) == {"pink", "green", "dark"}
