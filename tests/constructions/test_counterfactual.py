"""Mirrored counterfactual pairs: from the world's changed scenes, and from a user's edited images."""

import json
import random

import pytest
from PIL import Image, ImageChops

from veridical.constructions.counterfactual import CounterfactualSettings, counterfactual
from veridical.constructions.protocol import Rejected
from veridical.formats.sources import read_records
from veridical.records import Rejection
from veridical.world.captions import caption, parse
from veridical.world.counterfactual import change_one
from veridical.world.records import world_records
from veridical.world.scenes import scenes


def made(record, **settings):
    """What the construction returns; it asks nothing."""
    with pytest.raises(StopIteration) as ended:
        next(counterfactual(record, CounterfactualSettings(**settings), 0))
    return ended.value.value


def test_one_object_changes_and_the_caption_with_it():
    changed = 0
    for scene in scenes("counterfactual", 60):
        said = caption(scene, random.Random(scene.key))
        found = change_one(scene, said, random.Random(scene.key))
        if found is None:
            continue
        changed += 1
        other, text = found
        assert set(parse(text).names) == set(other.counts)
        assert len(set(scene.counts) ^ set(other.counts)) in (1, 2)
        stays = [placed for placed in scene.objects if placed.name in other.counts]
        assert all(placed in other.objects for placed in stays)
    assert changed > 50


def test_the_pictures_differ_where_the_object_was_and_nowhere_else(tmp_path):
    for record in world_records("counterfactual", 12, 0, tmp_path):
        if record.counterfactual is None:
            continue
        one, other = (Image.open(images[0].path) for images in (record.images, record.counterfactual.images))
        box = ImageChops.difference(one, other).getbbox()
        assert box is not None
        assert (box[2] - box[0]) * (box[3] - box[1]) < 0.5 * one.width * one.height


def test_each_text_is_chosen_once_and_rejected_once(tmp_path):
    record = next(r for r in world_records("counterfactual", 5, 0, tmp_path) if r.counterfactual)
    first, second = made(record)
    assert (first.chosen, first.rejected) == (second.rejected, second.chosen)
    assert first.images == record.images
    assert second.images == record.counterfactual.images
    assert first.id != second.id
    for pair, other in ((first, second), (second, first)):
        assert [(one.text, one.images) for one in pair.others] == [(pair.chosen, other.images)]
    assert not made(record, other_image=False)[0].others
    assert len(made(record, mirrored=False)) == 1


def test_a_users_edited_images(tmp_path):
    for number, name in enumerate(("a.png", "b.png")):
        Image.new("RGB", (64, 64), (200 * number, 0, 0)).save(tmp_path / name)
    row = {
        "file_name": "a.png",
        "text": "A cup.",
        "counterfactual_image": "b.png",
        "counterfactual_text": "A bare table.",
    }
    (tmp_path / "metadata.jsonl").write_text(json.dumps(row) + "\n")
    (record,) = read_records(str(tmp_path), tmp_path / "work")
    assert [(p.chosen, p.images[0].path.name) for p in made(record)] == [
        ("A cup.", "a.png"),
        ("A bare table.", "b.png"),
    ]


def test_half_a_counterfactual_is_refused_with_what_to_do(tmp_path):
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": "a.png", "counterfactual_text": "A."}) + "\n")
    (found,) = read_records(str(tmp_path), tmp_path / "work")
    assert isinstance(found, Rejection)
    assert found.reason == "bad-counterfactual"


def test_a_record_without_one_is_rejected(tmp_path):
    (record,) = world_records("pairs", 1, 0, tmp_path)
    with pytest.raises(Rejected) as raised:
        made(record)
    found = raised.value
    assert (found.reason, bool(found.remedy)) == ("no-counterfactual", True)
