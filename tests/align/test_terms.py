"""Terms beside an objective, the order of a curriculum, and evaluation during training, against plain computations."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tests.align.conftest import adapted

from veridical.align.config import AlignConfig
from veridical.align.inputs import BatchEncoder
from veridical.align.sampler import SeededOrder
from veridical.align.terms import Terms, auxiliary_examples
from veridical.align.terms_settings import AuxiliarySettings, KlSettings
from veridical.align.trainer import difficulty
from veridical.align.watch import Watch
from veridical.align.watch_settings import WatchSettings
from veridical.errors import UserError
from veridical.vlm.inputs.context import Context
from veridical.vlm.model.adapters import adapters_off
from veridical.vlm.prefix.encode import encode
from veridical.vlm.scores import full_forward
from veridical.vlm.scores.scoring import answer_ids


@pytest.fixture(scope="module")
def changed(llava_folder):
    return adapted(llava_folder, perturb=True)


def distributions(vlm, example):
    """Log-probabilities at every token of the chosen answer, by a full forward."""
    prefix = encode(vlm, [Context(example.images, example.prompt, key=(example.id,))])
    [logits] = full_forward.answer_logits(vlm, prefix, [(0, answer_ids(vlm, example.chosen.text))])
    return logits.log_softmax(-1)


def terms(examples=(), kl=None, weight=0.0) -> Terms:
    return Terms(AuxiliarySettings(weight=weight), kl or KlSettings(), examples, 0)


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_the_kl_is_that_of_whole_distributions(changed, examples, direction):
    encoder = BatchEncoder(changed, 2**20)
    some = examples[:3]
    loss, metrics = terms(kl=KlSettings(0.5, direction=direction)).loss(encoder, some, 1)
    expected = []
    with torch.no_grad():
        for example in some:
            policy = distributions(changed, example)
            with adapters_off(changed):
                reference = distributions(changed, example)
            one, other = (reference, policy) if direction == "forward" else (policy, reference)
            expected.append(torch.nn.functional.kl_div(other, one, log_target=True, reduction="none").sum(-1).mean())
    assert metrics["kl"].item() == pytest.approx(torch.stack(expected).mean().item(), rel=1e-4)
    assert loss.item() == pytest.approx(0.5 * metrics["kl"].item())
    assert metrics["kl"] > 0.01
    loss.backward()
    gradients = [p.grad.abs().sum() for p in changed.model.parameters() if p.grad is not None]
    assert sum(gradients) > 0
    changed.model.zero_grad()


def test_the_auxiliary_loss_is_the_likelihood_of_a_second_data_set_whatever_the_parts(changed, examples):
    encoder = BatchEncoder(changed, 2**20)
    second = examples[5:]
    added = terms(second, weight=0.3)
    with torch.no_grad():
        loss, metrics = added.loss(encoder, examples[:4], 7)
        parts = [added.loss(encoder, examples[i : i + 1], 7)[0].item() for i in range(4)]
        other, _ = added.loss(encoder, examples[:4], 8)
        own = [
            distributions(changed, one)[range(len(ids)), ids].mean()
            for one in second
            for ids in [answer_ids(changed, one.chosen.text)]
        ]
    assert loss.item() == pytest.approx(sum(parts) / 4, abs=1e-5)
    assert loss.item() == pytest.approx(0.3 * metrics["auxiliary_loss"].item(), abs=1e-6)
    assert loss.item() != pytest.approx(other.item(), abs=1e-6)  # another draw
    assert -max(own) - 1e-4 <= metrics["auxiliary_loss"] <= -min(own) + 1e-4


def test_auxiliary_data_are_captions_or_chosen_sides(changed, pictures, tmp_path):
    from tests.align.conftest import make_pairs

    from veridical.pairs.dataset import write_build

    folder = tmp_path / "captions"
    folder.mkdir()
    for number, image in enumerate(pictures):
        (folder / f"{number}.png").write_bytes(image.path.read_bytes())
    lines = [json.dumps({"file_name": f"{n}.png", "text": "A cup." if n else ""}) for n in range(len(pictures))]
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    found = auxiliary_examples(AuxiliarySettings(folder), tmp_path / "work", changed, 64)
    assert [one.chosen.text for one in found] == ["A cup."] * (len(pictures) - 1)
    build = write_build(tmp_path / "build", make_pairs(pictures, 5))
    assert len(auxiliary_examples(AuxiliarySettings(build), tmp_path / "work", changed, 64)) == 5
    with pytest.raises(UserError, match="none of 5 answers"):
        auxiliary_examples(AuxiliarySettings(build), tmp_path / "work", changed, 1)


def test_a_curriculum_goes_from_easy_to_hard():
    contexts, scores = ["a", "b", "a", "c", "d"], [1.0, 5.0, 3.0, 4.0, 4.0]
    order = SeededOrder(contexts, 0, [-score for score in scores])
    first = list(order)
    assert first[0] == 1
    assert set(first[1:3]) == {3, 4}
    assert first[3:] == [0, 2]  # pairs of one context stay together, by their mean
    order.set_epoch(1)
    assert list(order)[3:] == [0, 2]
    assert sorted(SeededOrder(contexts, 0)) == [0, 1, 2, 3, 4]
    config = AlignConfig(pairs=Path("p"), out=Path("o"), order="hard-first", order_by="margin")
    pairs = [SimpleNamespace(id=str(i), scores={"margin": score}) for i, score in enumerate(scores)]
    assert difficulty(config, pairs) == scores
    assert difficulty(replace(config, order="shuffled"), pairs) is None
    with pytest.raises(UserError, match=r"pair 0 states no 'similarity'; it states: margin"):
        difficulty(replace(config, order_by="similarity"), pairs)


def watched(rows, **settings) -> Watch:
    columns = [dict(zip(("step", "chair_s", "recall"), row, strict=True)) for row in rows]
    return Watch(WatchSettings(records="world", **settings), Path("out"), None, torch.float32, (), None, columns)


def test_the_best_weights_invent_least_and_still_recall():
    rows = [(0, 0.5, 0.8), (10, 0.4, 0.8), (20, 0.1, 0.3), (30, 0.3, 0.77), (40, 0.35, 0.79), (50, 0.3, 0.8)]
    watch = watched(rows, recall_floor=0.95, patience=2)
    assert watch.best["step"] == 30  # not 20, which says little; nor 50, which is no better
    assert watch.least_recall == pytest.approx(0.76)
    assert watch.stopped
    assert not watched(rows[:5], patience=2).stopped
    assert not watched(rows, patience=0).stopped
    assert watched([(0, 0.5, 0.8), (10, 0.1, 0.1), (20, 0.1, 0.1), (30, 0.1, 0.1)], patience=2).best is None
    assert watched([(0, 0.5, 0.8), (10, 0.1, 0.1), (20, 0.1, 0.1), (30, 0.1, 0.1)], patience=2).stopped


def test_settings_that_can_not_be():
    for given, match in (
        ({"kl": KlSettings(0.1), "train": "language"}, "needs train adapter"),
        ({"kl": KlSettings(0.1, on="auxiliary")}, "needs --auxiliary.data"),
        ({"kl": KlSettings(-0.1)}, "kl.weight"),
        ({"watch": WatchSettings(recall_floor=2.0)}, "watch.recall_floor"),
    ):
        with pytest.raises(UserError, match=match):
            AlignConfig(pairs=Path("p"), out=Path("o"), **given)
