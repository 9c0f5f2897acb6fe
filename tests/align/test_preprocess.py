"""Every image and prompt is looked at once before the model runs, and what can't be used is told with its remedy."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace

import PIL.Image
import pytest
import torch
from tests.align.conftest import adapted, make_pairs
from tests.align.test_command import build, config, rows, summary  # noqa: F401 - fixtures

from veridical.align.checks import prepare
from veridical.align.command import run
from veridical.align.inputs import BatchEncoder
from veridical.align.preprocess import first_look
from veridical.errors import UserError
from veridical.objectives.mdpo import Mdpo
from veridical.pairs.dataset import write_build
from veridical.records import ImageFile, Message
from veridical.vlm.images.views import Blank, Clean, Crop, NoImage, TokenMask, UnknownToken
from veridical.vlm.inputs.preprocessed_cache import Scratch

VIEWS = [Clean(), Crop(), TokenMask(0.5), Blank(), NoImage()]


def seen(vlm, pairs, folder, room=2**30, workers=0, views=VIEWS):
    encoder = BatchEncoder(vlm, 0, scratch=Scratch(folder / "images", room, vlm.model.dtype, workers))
    examples = prepare(pairs, vlm, 512, "shorten").examples
    return first_look(encoder, examples, views, workers, lambda _: None), encoder


@pytest.fixture
def opened(monkeypatch, tmp_path):
    """Counts how often each image is opened, in this process and in those that it forks."""
    log, really = tmp_path / "opened", PIL.Image.open

    def noted(path, *arguments, **more):
        with log.open("a") as file:
            file.write(f"{hashlib.sha256(path.getvalue()).hexdigest()}\n")
        return really(path, *arguments, **more)

    monkeypatch.setattr(PIL.Image, "open", noted)
    return lambda: Counter(log.read_text().splitlines()) if log.exists() else Counter()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_whole_run_opens_each_picture_once(config, pictures, tmp_path, opened, workers):  # noqa: F811
    """Reference, two epochs and the measurement after them, with a view beside the clean image."""
    config = replace(config, pairs=write_build(tmp_path / "build", make_pairs(pictures, 11)), epochs=2)
    config = replace(config, objective=Mdpo(), workers=workers, feature_memory_mb=0, draws="fixed")
    before = opened()
    run(config)
    counts = opened() - before
    # One picture is opened once more, before all others: the plan of memory takes its size from it.
    assert counts.total() == len(pictures) + 1
    assert len(counts) == len(pictures)
    assert not (config.out / "images").exists()


def test_without_room_it_trains_to_the_same_and_says_so(config, tmp_path, opened, capsys):  # noqa: F811
    config = replace(config, epochs=2, feature_memory_mb=0)
    run(config)
    told = capsys.readouterr().err
    assert "no room" not in told
    before = opened()
    other = replace(config, out=tmp_path / "other", image_disk_mb=0)
    run(other)
    assert "4 images have no room on disk and are decoded in every pass" in capsys.readouterr().err
    assert min((opened() - before).values()) > 3
    assert [row["loss"] for row in rows(config)] == [row["loss"] for row in rows(other)]


@pytest.mark.parametrize("workers", [0, 2])
def test_what_was_kept_is_what_the_processor_makes(vlm, pairs, tmp_path, workers):
    look, encoder = seen(vlm, pairs, tmp_path, workers=workers)
    assert list(look.examples) == list(prepare(pairs, vlm, 512, "shorten").examples)
    assert (look.skipped, look.unkept) == ((), 0)
    kept, anew = (one.load(look.examples, VIEWS).prepared for one in (encoder, BatchEncoder(vlm, 0)))
    assert kept.keys() == anew.keys()
    for key, one in kept.items():
        other = anew[key]
        assert (one.placeholders, one.context) == (other.placeholders, other.context)
        assert one.tensors.keys() == other.tensors.keys()
        assert all(torch.equal(tensor, other.tensors[name]) for name, tensor in one.tensors.items())
        assert (one.hidden is None) == (other.hidden is None)
        assert one.hidden is None or torch.equal(one.hidden, other.hidden)


@pytest.mark.parametrize("workers", [0, 2])
def test_room_is_kept_within(vlm, pairs, tmp_path, workers):
    room = 300_000  # a picture takes 3 * 84 * 84 * 4 bytes
    look, _ = seen(vlm, pairs, tmp_path, room, workers, [Clean()])
    used = sum(path.stat().st_size for path in (tmp_path / "images").iterdir())
    assert 100_000 < used <= room
    assert look.unkept == len({pair.images + pair.prompt for pair in pairs}) - used // 100_000


def reject(vlm, pair, folder, views=VIEWS):
    look, _ = seen(vlm, [pair], folder, views=views)
    (found,) = look.skipped
    assert found.id == pair.id
    assert found.remedy
    return found


def test_a_missing_picture_is_told_with_its_path(pairs, vlm, tmp_path):
    gone = ImageFile(tmp_path / "gone.png", "0" * 64)
    some = [pairs[0], replace(pairs[1], images=(gone,)), pairs[2], replace(pairs[3], images=(pairs[0].images[0], gone))]
    look, _ = seen(vlm, some, tmp_path)
    assert [e.id for e in look.examples] == ["pair-0", "pair-2"]
    assert [(one.id, one.reason) for one in look.skipped] == [("pair-1", "missing-image"), ("pair-3", "missing-image")]
    assert all(str(gone.path) in one.detail for one in look.skipped)


def test_a_damaged_picture_is_told(pairs, vlm, tmp_path):
    path = tmp_path / "half.png"
    whole = pairs[0].images[0].path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert reject(vlm, replace(pairs[0], images=(ImageFile(path, "0"),)), tmp_path).reason == "corrupt-image"


def test_another_picture_under_the_same_name_is_told(pairs, vlm, tmp_path):
    path = tmp_path / "swapped.png"
    PIL.Image.new("RGB", (32, 32), "red").save(path)
    swapped = ImageFile(path, pairs[0].images[0].sha256)
    assert reject(vlm, replace(pairs[0], images=(swapped,)), tmp_path).reason == "image-changed"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("See <image>.", "placeholder-in-prompt"), ("There is a fork. " * 400, "prompt-too-long")],
)
def test_unusable_prompts_are_told(pairs, vlm, tmp_path, text, expected):
    assert reject(vlm, replace(pairs[0], prompt=(Message("user", text),)), tmp_path).reason == expected


def test_an_answer_beyond_the_length_of_the_model_is_told(pairs, vlm, tmp_path):
    long = replace(pairs[0], prompt=(Message("user", "There is a fork. " * 150),), rejected="There is a fork. " * 90)
    found = reject(vlm, long, tmp_path)
    assert found.reason == "too-long"
    assert f"of the model's {vlm.traits.max_length}" in found.detail


def test_a_template_that_drops_an_image_is_told_before_the_model_runs(pairs, llava_folder, tmp_path):
    vlm = adapted(llava_folder)
    placed = "{%- if part['type'] == 'image' -%}"
    assert placed in vlm.processor.chat_template
    vlm.processor.chat_template = vlm.processor.chat_template.replace(placed, placed + "{%- if loop.first -%}").replace(
        "{%- else -%}{{- part['text'] -}}", "{%- endif -%}{%- else -%}{{- part['text'] -}}"
    )
    two = replace(pairs[0], images=(pairs[0].images[0], pairs[1].images[0]))
    assert reject(vlm, two, tmp_path, [Clean()]).reason == "prompt-refused"


@pytest.mark.parametrize("workers", [0, 2])
def test_a_view_that_the_model_cannot_have_ends_the_run_at_once(pairs, vlm, tmp_path, workers):
    with pytest.raises(UserError, match=r"^pair-0/unknown token: the view 'unknown token' is not possible"):
        seen(vlm, pairs, tmp_path, workers=workers, views=[UnknownToken()])


def test_features_on_disk_spare_the_decoding(config, tmp_path, opened):  # noqa: F811
    config = replace(config, epochs=1, feature_memory_mb=0, feature_disk_mb=10, feature_cache=tmp_path / "f")
    run(config)
    before = opened()
    run(replace(config, out=tmp_path / "other"))
    assert (opened() - before).total() <= 1  # The plan of memory takes the size of one.
    assert summary(config)["pairs"]["used"] == 11
