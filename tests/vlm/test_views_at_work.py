"""Every view in scoring, sampling and training."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from tests.vlm import plain
from tests.vlm.weak import WEAK, with_unknown_token

from veridical.records import Message
from veridical.vlm.generation.generate import generate
from veridical.vlm.generation.params import Branch, SamplingParams
from veridical.vlm.images import views
from veridical.vlm.images.views import Clean, Noise, describe
from veridical.vlm.inputs.context import Context
from veridical.vlm.model.loading import Sharing
from veridical.vlm.prefix.encode import encode
from veridical.vlm.scores.scoring import score


@pytest.mark.parametrize("view", WEAK, ids=describe)
def test_a_view_changes_every_answer_token(vlm, view):
    with_unknown_token(vlm)
    clean = Context((plain.picture(0),), plain.DESCRIBE, key=("r",))
    prefix = encode(vlm, [clean, dataclasses.replace(clean, view=view)])
    (one,), (other,) = score(vlm, prefix, [["There is a fork."]] * 2)
    assert ((one - other).abs() > 1e-3).all()


@pytest.mark.parametrize("view", WEAK, ids=describe)
def test_shared_scores_of_a_view_equal_separate_ones(vlm, view):
    with_unknown_token(vlm)
    contexts = [dataclasses.replace(context, view=view) for context in plain.contexts()]
    shared = score(vlm, encode(vlm, contexts), plain.ANSWERS)
    alone = dataclasses.replace(vlm, sharing=Sharing(tested=False, reason="the test says so"))
    with pytest.warns(UserWarning, match="the test says so"):
        separate = score(alone, encode(alone, contexts), plain.ANSWERS)
    assert plain.largest_difference(shared, separate) < 1e-5


@pytest.mark.parametrize("view", [view for view in WEAK if views.is_random(view)], ids=describe)
def test_a_random_view_is_drawn_from_its_key_alone(vlm, view):
    def scored(*key):
        prefix = encode(vlm, [Context((plain.picture(0),), plain.DESCRIBE, view, key)])
        return score(vlm, prefix, [["There is a fork."]])[0][0]

    first = scored(7, "record", 0)
    assert torch.equal(scored(7, "record", 0), first)
    for other in ((8, "record", 0), (7, "another", 0), (7, "record", 1)):
        assert (scored(*other) - first).abs().max() > 1e-4


@pytest.mark.parametrize("view", WEAK, ids=describe)
def test_a_view_lasts_through_sampling_and_is_what_is_scored(vlm, view):
    """After a forced beginning, the likeliest text is the one that full forwards on the view give token by
    token; the clean image's differs.
    """
    with_unknown_token(vlm)
    shown = Context((plain.picture(0),), plain.DESCRIBE, view, ("r",))
    clean = dataclasses.replace(shown, view=Clean())
    after = "There is a fork and a"
    greedy = SamplingParams(max_new_tokens=12, temperature=0)
    ours, theirs = generate(vlm, encode(vlm, [shown, clean]), [Branch(0, (), after), Branch(1, (), after)], greedy)
    alone = dataclasses.replace(vlm, sharing=Sharing(tested=False, reason="the test says so"))
    with pytest.warns(UserWarning, match="the test says so"):
        assert generate(alone, encode(alone, [shown]), [Branch(0, (), after)], greedy) == [ours]
    assert ours.text != theirs.text


def test_gradients_flow_through_a_noisy_view(vlm):
    vlm.model.requires_grad_(True)
    prefix = encode(vlm, [Context((plain.picture(0),), (Message("user", "What?"),), Noise(500))])
    score(vlm, prefix, [["Yes."]])[0][0].sum().backward()
    tower = next(vlm.model.model.children())
    assert max(float(p.grad.abs().max()) for p in tower.parameters() if p.grad is not None) > 0
