import pytest
import torch
from my_decoding import Sharper


def test_what_the_blank_image_makes_likely_too_gains_nothing():
    own, blank, written = torch.tensor([[2.0, 1.0]]), torch.tensor([[2.0, 0.0]]), torch.zeros(1, 2)
    assert Sharper(strength=0.5).logits(own, [blank], written)[0].tolist() == pytest.approx([2.0, 1.5])
