from math import exp, log

import pytest
import torch
from my_objective import Capped

from veridical.objectives.base import CHOSEN, REJECTED, Logps


def test_a_margin_above_the_cap_counts_as_the_cap():
    # Log-ratios of two pairs: 1 - (-1) = 2 and 5 - (-5) = 10; with beta 1 and the cap 3 the margins are 2 and 3.
    chosen = Logps([torch.tensor([1.0]), torch.tensor([5.0])], [torch.zeros(1), torch.zeros(1)])
    rejected = Logps([torch.tensor([-1.0]), torch.tensor([-5.0])], [torch.zeros(1), torch.zeros(1)])
    loss, metrics = Capped(beta=1.0, cap=3.0).loss({CHOSEN: chosen, REJECTED: rejected})
    assert loss.item() == pytest.approx((log(1 + exp(-2)) + log(1 + exp(-3))) / 2)
    assert metrics["rewards/margins"].item() == pytest.approx(6.0)
