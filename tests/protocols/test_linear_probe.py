"""The logistic regression against an independent optimiser; questions; and the probe on a real tiny model."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.models import tiny_llava

from veridical.errors import UserError
from veridical.protocols.linear_probe import fit_logistic, partner_questions, probe
from veridical.records import Annotations, ImageFile, Message, ObjectInImage, Record
from veridical.vlm.load import load
from veridical.world.records import world_records
from veridical.world.vocabulary import PARTNER


def by_torch(inputs, labels, penalty):
    x, y = torch.tensor(inputs), torch.tensor(labels)
    weights = torch.zeros(x.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([weights, bias], max_iter=500, line_search_fn="strong_wolfe", tolerance_grad=1e-10)

    def loss():
        optimiser.zero_grad()
        logits = x @ weights + bias
        total = torch.nn.functional.binary_cross_entropy_with_logits(logits, y, reduction="sum")
        total = total + penalty / 2 * weights.square().sum()
        total.backward()
        return total

    optimiser.step(loss)
    return weights.detach().numpy(), bias.item()


@pytest.mark.parametrize("penalty", [0.1, 10.0])
@pytest.mark.parametrize(("examples", "width"), [(200, 5), (30, 60)])
def test_the_regression_is_the_one_that_another_optimiser_finds(penalty, examples, width):
    rng = np.random.default_rng(examples)
    inputs = rng.normal(size=(examples, width))
    labels = (inputs[:, 0] + 0.5 + rng.normal(size=examples) > 0).astype(float)
    weights, bias = fit_logistic(inputs, labels, penalty)
    expected, expected_bias = by_torch(inputs, labels, penalty)
    assert weights == pytest.approx(expected, abs=1e-4)
    assert bias == pytest.approx(expected_bias, abs=1e-4)


def record(key: str, *names: str) -> Record:
    image = ImageFile(Path(f"{key}.png"), "0" * 64)
    objects = Annotations(tuple(ObjectInImage(name) for name in names))
    return Record(key, (image,), (Message("user", "?"),), annotations=objects)


def test_half_of_the_questions_are_after_a_partner_that_is_there():
    records = [record(f"with{n}", "fork", "knife") for n in range(5)] + [record(f"without{n}", "cup") for n in range(3)]
    asked = partner_questions(records, PARTNER, seed=0)
    assert [question.present for question in asked].count(True) == 3
    assert {question.partner for question in asked if not question.present} == {"spoon"}
    assert {question.partner for question in asked if question.present} <= {"fork", "knife"}


def test_pictures_of_one_kind_only_are_refused():
    with pytest.raises(UserError, match="with and without"):
        partner_questions([record("a", "fork")], PARTNER, seed=0)


def test_a_tiny_random_model_is_probed_on_real_pictures(tmp_path):
    vlm = load(tiny_llava(tmp_path / "model"))
    records = [
        record
        for split in ("in-theme", "anti-bias")
        for record in world_records(split, 60, seed=0, folder=tmp_path / "images")
    ]
    found = probe(vlm, records, PARTNER, seed=1)
    assert len(found.layers) == 4
    assert found.probe == found.layers[found.layer]
    assert found.test_questions * 3 == pytest.approx(found.train_questions, abs=4)
    # The last token of every prompt is the same, so its bare embedding cannot tell one from another.
    assert found.layers[0].value < 70
    assert 0 <= found.own_answers.low <= found.own_answers.value <= found.own_answers.high <= 100
    assert probe(vlm, records, PARTNER, seed=1, batch=7).own_answers == found.own_answers
