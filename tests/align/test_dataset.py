"""Examples and features on disk: the same as in memory, and no more of them than there is room for."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import shutil
import time
from contextlib import suppress
from dataclasses import replace

import pytest
import torch
from tests.align.conftest import adapted, picture
from tests.align.test_command import build, config, rows  # noqa: F401 - fixtures
from tests.align.test_logps import BOTH, scored

from veridical.align import dataset
from veridical.align.checks import prepare
from veridical.align.command import run
from veridical.align.inputs import BatchEncoder
from veridical.align.types import Answer
from veridical.errors import UserError
from veridical.objectives.base import LogpRequest
from veridical.records import ImageFile
from veridical.vlm.images.views import Clean, FeatureNoise, Noise, TokenMask
from veridical.vlm.inputs.context import Context
from veridical.vlm.inputs.prepare import prepare as prepare_context
from veridical.vlm.load import load
from veridical.vlm.prefix.encode import features
from veridical.vlm.prefix.vision_feature_cache import TowerCache, without_pixels


def test_examples_come_back_as_they_were(examples, tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "ROWS", 4)
    odd = replace(
        examples[0],
        id="née 🍴",
        images=(*examples[0].images, *examples[1].images),
        chosen=Answer("", cut=True, edits=(0, 2, 1)),
        scores={"certainty": 0.1, "other": -3.0},
    )
    given = [*examples, odd]
    kept = dataset.store(iter(given), tmp_path / "examples.arrow")
    assert list(kept) == given
    assert len(kept) == len(given)
    assert list(kept[3:9:2]) == given[3:9:2]
    assert kept[-1].scores == odd.scores
    assert list(dataset.Subset(kept, [5, 2])) == [given[5], given[2]]
    assert list(pickle.loads(pickle.dumps(kept))) == given  # another process opens it by its path
    assert [path.name for path in tmp_path.iterdir()] == ["examples.arrow"]
    with pytest.raises(IndexError):
        kept[len(given)]


def test_no_examples_are_kept_as_none(tmp_path):
    assert list(dataset.store(iter(()), tmp_path / "examples.arrow")) == []


@pytest.fixture
def own_examples(vlm, pairs, tmp_path):
    """The examples, on copies of the pictures that may be taken away."""
    shutil.copytree(pairs[0].images[0].path.parent, tmp_path / "own")
    own = [
        replace(pair, images=tuple(ImageFile(tmp_path / "own" / i.path.name, i.sha256) for i in pair.images))
        for pair in pairs
    ]
    return prepare(own, vlm, 512, "shorten").examples


def cache(folder, vlm, limit=2**30, fingerprint="base") -> TowerCache:
    return TowerCache(folder, limit, vlm, fingerprint)


def test_a_later_epoch_or_run_opens_no_picture_and_scores_the_same(llava_folder, vlm, own_examples, tmp_path):
    needs = (
        *BOTH,
        LogpRequest("chosen", TokenMask(0.5)),
        LogpRequest("chosen", FeatureNoise()),
        LogpRequest("chosen", Noise(500)),
    )
    first = scored(BatchEncoder(vlm, 0, on_disk=cache(tmp_path / "cache", vlm)), own_examples, needs)
    shutil.rmtree(tmp_path / "own")
    other_run = adapted(llava_folder)
    other_run.model.get_base_model().model.vision_tower.register_forward_hook(lambda *_: pytest.fail("looked again"))
    for memory in (0, 2**30):
        encoder = BatchEncoder(other_run, memory, on_disk=cache(tmp_path / "cache", other_run))
        for _ in range(2):
            again = scored(encoder, own_examples, needs)
            for need in needs:
                assert all(torch.equal(one, two) for one, two in zip(first[need], again[need], strict=True))
        assert encoder.keeps(own_examples, [Clean()]) == bool(memory)


def test_contexts_of_one_picture_share_its_features(vlm, examples, tmp_path):
    scored(BatchEncoder(vlm, 0, on_disk=cache(tmp_path, vlm)), examples, (*BOTH, LogpRequest("chosen", TokenMask(0.5))))
    pictures = {image.sha256 for example in examples for image in example.images}
    assert len(list(tmp_path.glob("*/features/*/*"))) == len(pictures)
    contexts = {e.context_key(view) for e in examples for view in (Clean(), TokenMask(0.5))}
    assert len(list(tmp_path.glob("*/contexts/*/*"))) == len(contexts)


def test_the_limit_is_kept_by_all_runs_together(vlm, examples, tmp_path):
    used = []
    for _ in range(2):
        scored(BatchEncoder(vlm, 0, on_disk=cache(tmp_path, vlm, limit=20_000)), examples)
        used.append(sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()))
    # A picture's features take 36 * 48 * 4 bytes, so some of the four have room, and not all.
    assert all(7_000 < size <= 20_000 for size in used)
    assert 1 <= len(list(tmp_path.glob("*/features/*/*"))) < 4


def test_what_no_run_uses_any_more_makes_place_the_longest_unused_first(vlm, examples, tmp_path):
    limit = 20_000  # room for two of the four pictures' features, which take 7 kB each
    first, second, third, fourth = (replace(examples[index], chosen=examples[0].chosen) for index in range(4))
    scored(BatchEncoder(vlm, 0, on_disk=cache(tmp_path, vlm, limit)), [first, second])
    age(tmp_path, 100)
    later = BatchEncoder(vlm, 0, on_disk=cache(tmp_path, vlm, limit))
    assert later.load([first], [Clean()]).looked
    scored(later, [third])
    assert [one.id for one in (first, second, third) if later.load([one], [Clean()]).looked] == [first.id, third.id]
    # Both are this run's own now, and stay.
    scored(later, [fourth])
    scored(later, [second])
    assert [one.id for one in examples[:4] if later.load([one], [Clean()]).looked] == [first.id, third.id]
    # A picture whose features went while its context stayed is looked at again, and comes back.
    for path in tmp_path.glob("*/features/*/*"):
        path.unlink()
    again = BatchEncoder(vlm, 0, on_disk=cache(tmp_path, vlm, limit))
    assert not again.load([first], [Clean()]).looked
    scored(again, [first])
    assert again.load([first], [Clean()]).looked
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) <= limit


def age(folder, seconds):
    """As if the files had last been used so long ago."""
    for path in folder.rglob("*.safetensors"):
        with suppress(FileNotFoundError):
            os.utime(path, (time.time() - seconds,) * 2)


def test_processes_that_throw_out_each_others_files_read_what_is_right_or_nothing(vlm, examples, tmp_path):
    contexts = [prepare_context(vlm, Context(example.images, example.prompt)) for example in examples[:4]]
    looked = list(zip(contexts, features(vlm, contexts), strict=True))

    def work():
        for _ in range(30):
            own = cache(tmp_path, vlm, 20_000)
            age(tmp_path, 100)
            for one, right in looked:
                found = own.get(one.context)
                assert found is None or torch.equal(found[1].tokens, right.tokens)
                own.put(without_pixels(one), right)

    some = [multiprocessing.get_context("fork").Process(target=work) for _ in range(2)]
    for process in some:
        process.start()
    for process in some:
        process.join()
        assert process.exitcode == 0
    assert 7_000 < sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) <= 40_000


def test_another_model_type_of_numbers_or_picture_is_looked_at(vlm, llava_folder, examples, tmp_path):
    import numpy

    scored(BatchEncoder(vlm, 0, on_disk=cache(tmp_path / "cache", vlm)), examples)
    example = examples[0]
    encoder = BatchEncoder(vlm, 0, on_disk=cache(tmp_path / "cache", vlm))
    assert encoder.load([example], [Clean()]).looked
    assert not encoder.load([example], [Noise(500)]).looked
    other = picture(tmp_path / "other.png", numpy.random.default_rng(7))
    assert not encoder.load([replace(example, images=(other,))], [Clean()]).looked
    assert (
        not BatchEncoder(vlm, 0, on_disk=cache(tmp_path / "cache", vlm, fingerprint="other"))
        .load([example], [Clean()])
        .looked
    )
    half = load(llava_folder, dtype="bfloat16", device="cpu")
    assert not BatchEncoder(half, 0, on_disk=cache(tmp_path / "cache", half)).load([example], [Clean()]).looked


def test_a_tower_that_trains_leaves_nothing_on_disk(llava_folder, examples, tmp_path):
    vlm = adapted(llava_folder, train_projector=True)
    scored(BatchEncoder(vlm, 0, on_disk=cache(tmp_path, vlm)), examples)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_feature_file_is_named(vlm, examples, tmp_path):
    scored(BatchEncoder(vlm, 0, on_disk=cache(tmp_path, vlm)), examples)
    for path in tmp_path.glob("*/features/*/*"):
        path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(UserError, match="feature cache is damaged"):
        scored(BatchEncoder(vlm, 0, on_disk=cache(tmp_path, vlm)), examples)


def test_runs_share_features_and_train_to_the_same(config, tmp_path):  # noqa: F811
    plain = replace(config, epochs=2)
    first = replace(
        plain, out=tmp_path / "first", feature_memory_mb=0, feature_disk_mb=10, feature_cache=tmp_path / "f"
    )
    second = replace(first, out=tmp_path / "second")
    for one in (plain, first):
        run(one)
    before = {path: path.stat().st_ino for path in (tmp_path / "f").rglob("*")}
    assert before
    run(second)
    assert {path: path.stat().st_ino for path in (tmp_path / "f").rglob("*")} == before
    losses = [[row["loss"] for row in rows(one)] for one in (plain, first, second)]
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)
    assert losses[2] == losses[1]
    assert not (first.out / "examples.arrow").exists()
