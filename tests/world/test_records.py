import colorsys
import hashlib
import json
from importlib import resources

import numpy
import pytest
from PIL import Image

from veridical.formats.sources import read_records
from veridical.world.records import world_records, write_folder
from veridical.world.vocabulary import COLOURS


def test_records_have_pictures_references_and_annotations(tmp_path):
    records = world_records("anti-bias", 6, 3, tmp_path)
    assert len({record.id for record in records}) == 6
    for record in records:
        (image,) = record.images
        assert hashlib.sha256(image.path.read_bytes()).hexdigest() == image.sha256
        assert Image.open(image.path).size == (192, 192)
        assert record.annotations is not None
        assert record.reference is not None
        assert all(name in record.reference or name[:-2] in record.reference for name in record.annotations.names)
    assert world_records("anti-bias", 6, 3, tmp_path) == records
    assert world_records("anti-bias", 6, 4, tmp_path)[0] != records[0]


def test_the_folder_is_an_image_folder(tmp_path):
    records = world_records("pairs", 4, 0, tmp_path)
    rows = [json.loads(line) for line in write_folder(records, tmp_path).read_text().splitlines()]
    assert [row["file_name"] for row in rows] == [record.images[0].path.name for record in records]
    assert [row["text"] for row in rows] == [record.reference for record in records]
    assert all((tmp_path / row["file_name"]).is_file() for row in rows)
    assert [read.annotations for read in read_records(str(tmp_path), tmp_path)] == [one.annotations for one in records]


def test_annotations_know_colours_positions_and_the_place(tmp_path):
    for record in world_records("dev", 30, 1, tmp_path):
        known = record.annotations
        left = {o.name: o.box[0] + o.box[2] for o in known.objects}
        assert all(known.counts[r.subject] == known.counts[r.object] == 1 for r in known.relations)
        assert all(left[r.subject] < left[r.object] for r in known.relations)
        assert any(known.scene in fact or fact.startswith("The scene is") for fact in known.facts)


@pytest.mark.parametrize("name", COLOURS)
def test_a_class_has_the_colours_that_its_sprite_shows(name):
    """Each colour covers at least 30 % of what is drawn, by hue, saturation and value."""
    sprite = Image.open(resources.files("veridical.world") / "sprites" / f"{name}.png").convert("RGBA")
    pixels = numpy.asarray(sprite).reshape(-1, 4).tolist()
    shown = [colour_of(*pixel[:3]) for pixel in pixels if pixel[3] > 200]
    assert all(shown.count(colour) >= 0.3 * len(shown) for colour in COLOURS[name])


def colour_of(red: int, green: int, blue: int) -> str:
    hue, saturation, value = colorsys.rgb_to_hsv(red / 255, green / 255, blue / 255)
    if value < 0.25:
        return "black"
    if saturation < 0.15:
        return "white" if value > 0.85 else "grey"
    if hue < 15 / 360 or hue >= 345 / 360:
        return "red"
    names = ((40, "orange" if value > 0.8 and saturation > 0.6 else "brown"), (70, "yellow"), (170, "green"))
    return next((name for limit, name in (*names, (260, "blue")) if hue * 360 < limit), "purple")
