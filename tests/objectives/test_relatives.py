"""The relatives of DPO against their formulas, worked in plain arithmetic on a batch of three small pairs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import logsigmoid

from veridical.errors import UserError
from veridical.objectives.base import LogpRequest, Logps, scores_read
from veridical.objectives.dpo import Dpo
from veridical.objectives.dpop import Dpop, dpop
from veridical.objectives.hinge import Hinge
from veridical.objectives.ipo import Ipo
from veridical.objectives.lengths import desensitised
from veridical.objectives.mdpo import Mdpo
from veridical.objectives.mpo import Mpo
from veridical.objectives.orpo import Orpo, odds_ratio
from veridical.objectives.povid import Povid
from veridical.objectives.registry import OBJECTIVES, objective_type
from veridical.objectives.rpo import Rpo, diagonal, rpo
from veridical.objectives.selm import Selm
from veridical.objectives.simpo import Simpo
from veridical.objectives.spa import Spa
from veridical.objectives.svco import Svco
from veridical.objectives.vdpo import Vdpo
from veridical.vlm.images.views import Blank, Crop, NoImage, Noise, PatchMask

# Log-probabilities per token of three answers: by the policy, by the reference.
POLICY = {"chosen": [[-1.0, -2.0], [-0.5], [-1.0, -1.0, -2.0]], "rejected": [[-3.0], [-1.0, -1.5], [-0.5, -0.25]]}
REFERENCE = {"chosen": [[-2.0, -2.5], [-1.0], [-1.0, -1.5, -1.0]], "rejected": [[-1.0], [-2.0, -1.0], [-1.0, -1.0]]}
EMBEDDINGS = {"prompt": torch.eye(3), "image": torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])}
# Sums of log-ratios: chosen 1.5, 0.5, -0.5; rejected -2, 0.5, 1.25.
CHOSEN, REJECTED = (1.5, 0.5, -0.5), (-2.0, 0.5, 1.25)


def scored(needs: Sequence[LogpRequest], shift: float = 0.7) -> dict[LogpRequest, Logps]:
    """Scores of needs; on each further view, the policy's are lower by one more `shift` a token."""
    views = list(dict.fromkeys((need.view, need.likeliest_under, need.images) for need in needs))
    found = {}
    for need in needs:
        if need.response not in POLICY:  # what only wide pairs have
            found[need] = Logps([])
            continue
        lower = shift * views.index((need.view, need.likeliest_under, need.images))
        policy = [torch.tensor(row, dtype=torch.float64) - lower for row in POLICY[need.response]]
        for row in policy:
            row.requires_grad_()
        reference = [torch.tensor(row, dtype=torch.float64) for row in REFERENCE[need.response]]
        # The sides of each pair differ in their first token.
        edits = [(torch.arange(len(row)) == 0).long() for row in policy]
        found[need] = Logps(policy, reference if need.reference else [], edits, embeddings=EMBEDDINGS)
    return found


def ls(value: float) -> float:
    return -math.log1p(math.exp(-value))


def mean(values) -> float:
    values = list(values)
    return sum(values) / len(values)


def loss_of(objective, pair_scores=None) -> float:
    given_scores = {
        request: replace(one, scores=pair_scores or {}) for request, one in scored(objective.needs()).items()
    }
    loss, metrics = objective.loss(given_scores)
    loss.backward()
    assert all(not value.requires_grad and value.ndim == 0 for value in metrics.values())
    return loss.item()


PAIRS = list(zip(CHOSEN, REJECTED, strict=True))
DPO = mean(-ls(0.1 * (c - r)) for c, r in PAIRS)
# On the first other view a chosen answer of n tokens has lost 0.7 n nats.
ELSEWHERE = (1.5 - 1.4, 0.5 - 0.7, -0.5 - 2.1)
TWICE = (1.5 - 2.8, 0.5 - 1.4, -0.5 - 4.2)


@pytest.mark.parametrize(
    ("objective", "wanted"),
    [
        (Dpo(), DPO),
        (Hinge(beta=0.5), mean(max(0, 1 - 0.5 * (c - r)) for c, r in PAIRS)),
        (Ipo(beta=0.5, length="sum"), mean((c - r - 1) ** 2 for c, r in PAIRS)),
        (Ipo(beta=0.5), mean((m - 1) ** 2 for m in (0.75 + 2.0, 0.5 - 0.25, -0.5 / 3 - 0.625))),
        (Dpo(length="mean", beta=2.0), mean(-ls(2 * m) for m in (0.75 + 2.0, 0.5 - 0.25, -0.5 / 3 - 0.625))),
        (Dpop(beta=0.1, penalty=5), mean(-ls(0.1 * m) for m in (3.5, 0.0, -1.75 - 5 * 0.5))),
        (Simpo(beta=2, gamma=1), mean(-ls(2 * m - 1) for m in (-1.5 + 3, -0.5 + 1.25, -4 / 3 + 0.375))),
        (
            Mpo(beta=0.1),
            0.8 * DPO + 0.2 * mean(-ls(0.1 * c) - ls(-0.1 * r) for c, r in PAIRS) + (3 + 0.5 + 4) / 6,
        ),
        (Selm(beta=0.1, alpha=0.01), DPO + 0.001 * mean(REJECTED)),
        (Selm(beta=0.1, alpha=0.01, own="chosen"), DPO + 0.001 * mean(CHOSEN)),
        (
            Mdpo(image_weight=0.5, anchor_weight=2, anchor_margin=0.3, ceiling_weight=1),
            DPO
            + 0.5 * mean(-ls(0.1 * (c - w)) for c, w in zip(CHOSEN, ELSEWHERE, strict=True))
            + 2 * mean(-ls(0.1 * c - 0.3) for c in CHOSEN)
            + mean(-ls(-0.1 * r) for r in REJECTED),
        ),
        (
            Svco(attend_beta=0.1, reject_beta=0.2, view="noise:900"),
            mean(-ls(0.1 * (c - b)) for c, b in zip(CHOSEN, ELSEWHERE, strict=True))
            + mean(-ls(0.2 * (b - w)) for b, w in zip(ELSEWHERE, TWICE, strict=True)),
        ),
        (
            # Guidance 1.5 adds half of what each answer gains by the image: 0.35 a token.
            Vdpo(guidance=1.5),
            mean(-ls(0.1 * (c - r + 0.35 * (n - k))) for (c, r), n, k in zip(PAIRS, (2, 1, 3), (1, 2, 2), strict=True)),
        ),
        (Vdpo(guidance=1), DPO),
        (
            Povid(share=0.25),
            0.25 * DPO + 0.75 * mean(-ls(0.1 * (c - w)) for c, w in zip(CHOSEN, ELSEWHERE, strict=True)),
        ),
        (
            Povid(share=0.25, mix="log-ratios"),
            mean(-ls(0.1 * (c - 0.25 * r - 0.75 * w)) for (c, r), w in zip(PAIRS, ELSEWHERE, strict=True)),
        ),
        (Rpo(weights="uniform"), mean(-ls(0.1 / 3 * (c - r)) for c in CHOSEN for r in REJECTED)),
        (
            Rpo(weights="diagonal", own_share=0.8),
            0.8 * DPO + 0.2 * mean(-ls(0.1 * (CHOSEN[i] - REJECTED[j])) for i in range(3) for j in range(3) if i != j),
        ),
        # Nothing is remembered, so the threshold is 0: the second margin, 0, and the third, -0.175, are not above it.
        (Spa(smoothing=0.2), (-ls(0.35) - ls(0.0) - 0.8 * ls(-0.175) - 0.2 * ls(0.175)) / 3),
    ],
    ids=lambda value: "" if isinstance(value, float) else repr(value),
)
def test_losses_by_hand(objective, wanted):
    assert loss_of(objective) == pytest.approx(wanted, abs=1e-12)


def test_orpo_by_hand():
    def log_odds(log_prob):
        return log_prob - math.log(1 - math.exp(log_prob))

    sides = zip((-1.5, -0.5, -4 / 3), (-3.0, -1.25, -0.375), strict=True)
    wanted = (3 + 0.5 + 4) / 6 + 0.25 * mean(-ls(log_odds(c) - log_odds(r)) for c, r in sides)
    assert loss_of(Orpo(weight=0.25)) == pytest.approx(wanted, abs=1e-12)


def test_odds_of_certain_answers_stay_finite():
    chosen = torch.zeros(1, requires_grad=True)
    loss, _ = odds_ratio(chosen, torch.tensor([-1.0]))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(chosen.grad).all()


def test_stated_confidence_smooths_each_label_by_itself():
    objective = Dpo(labels="stated")
    assert scores_read(objective) == ("confidence",)
    assert scores_read(Dpo()) == scores_read(Hinge()) == ()
    sure = torch.tensor([1.0, 0.5, 0.9], dtype=torch.float64)
    margins = [0.1 * (c - r) for c, r in PAIRS]
    wanted = mean(-s * ls(m) - (1 - s) * ls(-m) for s, m in zip(sure.tolist(), margins, strict=True))
    assert loss_of(objective, {"confidence": sure}) == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_the_surplus_of_the_longer_side_counts_by_its_weight(weight):
    both = scored(Dpo().needs())
    chosen, rejected = desensitised(*list(both.values())[:2], weight)
    # Per token, chosen: 1 0.5 | 0.5 | 0 0.5 -1; rejected: -2 | 1 -0.5 | 0.5 0.75. Shared lengths 1, 1, 2.
    assert chosen.tolist() == pytest.approx([1 + weight * 0.5, 0.5, 0.5 - weight])
    assert rejected.tolist() == pytest.approx([-2, 1 - weight * 0.5, 1.25])


def test_the_unguided_side_of_vdpo_has_no_gradient():
    objective = Vdpo(guidance=2)
    given_scores = scored(objective.needs())
    objective.loss(given_scores)[0].backward()
    seen, _, blind, _ = (given_scores[need].policy[0].grad for need in objective.needs())
    assert seen is not None
    assert (seen != 0).all()
    assert blind is None


def test_needs_name_their_views():
    assert Mdpo().needs()[2] == LogpRequest("chosen", Crop(0.01, 0.2))
    assert Mdpo(view="patch-mask:0.3").needs()[2].view == PatchMask(0.3)
    assert [need.view for need in Svco(view="noise:700").needs()[1:]] == [NoImage(), Noise(700)]
    assert len(Svco(view="noise:700", dpo_weight=1).needs()) == 4
    assert [(need.view, need.reference) for need in Vdpo().needs()[2:]] == [(Blank(), False)] * 2
    [noised] = [need for need in Povid().needs() if need.likeliest_under]
    assert noised.views[1] == Noise(500, "pixels")
    assert all(not need.reference for need in (*Simpo().needs(), *Orpo().needs()))


# IPO stops at a margin, which the first pair is past already.
@pytest.mark.parametrize("name", sorted(set(OBJECTIVES) - {"ipo"}))
def test_every_objective_takes_what_it_needs_and_pushes_the_right_way(name):
    objective = objective_type(name)()
    given_scores = scored(objective.needs())
    loss, _ = objective.loss(given_scores)
    loss.backward()
    clean = next(need for need in objective.needs() if need.response == "chosen")
    # A step against the gradient makes chosen answers likelier.
    assert sum(row.grad.sum().item() for row in given_scores[clean].policy) < 0
    rejected = [s for need, s in given_scores.items() if need.response == "rejected" and need.reference]
    if rejected and name != "selm":
        assert all(row.grad.sum().item() >= 0 for row in rejected[0].policy)


@given(values=st.lists(st.tuples(st.floats(-9, 9), st.floats(-9, 9)), min_size=1, max_size=5), beta=st.floats(0.01, 2))
def test_rpo_with_the_unit_matrix_is_dpo_of_a_share(values, beta):
    chosen, rejected = (torch.tensor(side, dtype=torch.float64) for side in zip(*values, strict=True))
    count = len(values)
    crossed = rpo(chosen, rejected, torch.eye(count, dtype=torch.float64), beta)
    own = -logsigmoid(beta * (chosen - rejected)).sum()
    # Weight nought inside the sigmoid leaves log two for every other combination.
    wanted = (own + (count * count - count) * math.log(2)) / count**2
    assert crossed.item() == pytest.approx(wanted.item())
    assert diagonal(chosen, rejected, 1.0, beta).item() == pytest.approx(own.item() / count)


@given(ratios=st.lists(st.floats(0, 20), min_size=1, max_size=4), beta=st.floats(0.01, 1), penalty=st.floats(0, 50))
def test_dpop_is_dpo_while_nothing_has_fallen(ratios, beta, penalty):
    chosen = torch.tensor(ratios, dtype=torch.float64)
    loss, metrics = dpop(chosen, -chosen, beta, penalty)
    assert loss.item() == pytest.approx(-logsigmoid(2 * beta * chosen).mean().item())
    assert metrics["fallen"] == 0


@pytest.mark.parametrize(
    ("make", "setting"),
    [
        (lambda: Hinge(beta=0), "beta"),
        (lambda: Povid(share=1.5), "share"),
        (lambda: Mdpo(view="crops"), "crop"),
        (lambda: Vdpo(guidance=0.0), "guidance"),
        (lambda: Dpo(labels="stated", label_smoothing=0.1), "exclude"),
        (lambda: Dpo(length="mean", tail_weight=0.5), "tail_weight"),
        (lambda: Spa(smoothing=0.5), "smoothing"),
        (lambda: Rpo(own_share=-1), "own_share"),
    ],
)
def test_settings_out_of_range_are_refused(make, setting):
    with pytest.raises(UserError, match=setting):
        make()
