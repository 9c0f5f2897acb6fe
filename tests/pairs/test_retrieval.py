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
