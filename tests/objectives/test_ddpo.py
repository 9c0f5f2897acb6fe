"""Dense DPO against numbers worked by hand."""

import math

import pytest
import torch

from veridical.errors import UserError
from veridical.objectives.base import CHOSEN, REJECTED, Logps
from veridical.objectives.ddpo import Ddpo
from veridical.objectives.dpo import Dpo


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def side(ratios: list[float], edits: list[int]) -> Logps:
    reference = [-1.0] * len(ratios)
    return Logps([tensor(*ratios) + tensor(*reference)], [tensor(*reference)], [torch.tensor(edits)])


# Place 1 was replaced on both sides; place 2 was put in on the rejected one only.
SCORED = {CHOSEN: side([1.0, 2.0, 0.5], [0, 1, 0]), REJECTED: side([1.0, -1.0, -2.0, 0.0], [0, 1, 2, 0])}


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def test_the_paper_takes_weighted_means():
    # (1 + 5 * 2 + 0.5) / (1 + 5 + 1) = 11.5 / 7; (1 - 5 - 10 + 0) / (1 + 5 + 5 + 1) = -14 / 12
    loss, metrics = Ddpo(beta=0.5, gamma=5.0).loss(SCORED)
    assert loss.item() == pytest.approx(softplus(-0.5 * (11.5 / 7 + 14 / 12)))
    assert metrics["edited"].item() == pytest.approx(3 / 7)


def test_the_released_code_takes_sums_and_raises_what_was_replaced():
    # 1 + 1.1 * 2 + 0.5 = 3.7; 1 - 1.1 - 2 + 0 = -2.1
    objective = Ddpo(beta=0.1, gamma=1.1, variant="released")
    assert objective.replaced_tokens()
    assert not Ddpo().replaced_tokens()
    # Its edits are spans that were replaced: what was put in is none.
    replaced = {CHOSEN: SCORED[CHOSEN], REJECTED: side([1.0, -1.0, -2.0, 0.0], [0, 1, 0, 0])}
    loss, metrics = objective.loss(replaced)
    assert loss.item() == pytest.approx(softplus(-0.1 * (3.7 + 2.1)))
    assert metrics["edited"].item() == pytest.approx(2 / 7)


def test_with_a_weight_of_one_and_sums_it_is_dpo():
    loss, _ = Ddpo(beta=0.3, gamma=1.0, variant="released").loss(SCORED)
    assert loss.item() == pytest.approx(Dpo(beta=0.3).loss(SCORED)[0].item())


def test_a_tokenizer_that_does_not_tell_places_is_refused():
    bare = {need: Logps(scored.policy, scored.reference) for need, scored in SCORED.items()}
    with pytest.raises(UserError, match="tokenizer"):
        Ddpo().loss(bare)
