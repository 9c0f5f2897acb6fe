"""OPA-DPO's loss against the released trainer's, written out for whole batches, and against sums by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import logsigmoid, pad

from veridical.objectives.base import CHOSEN, REJECTED, Logps
from veridical.objectives.opa_dpo import OpaDpo

LENGTH = 12
BETA, COPO = 0.1, 0.2


def answers(lengths, generator):
    """Policy and reference log-probabilities of answers of some lengths."""
    return [(-torch.rand(length, generator=generator), -torch.rand(length, generator=generator)) for length in lengths]


def logps(rows, edits, scores) -> Logps:
    return Logps([p for p, _ in rows], [r for _, r in rows], edits, scores, list(range(len(rows))))


@pytest.fixture
def batch():
    """Two records: each its gold answer, its correction and its own answer, and both better ones on a masked image.

    The second sentence of the own answer was wrong, so that its tokens, and those of what stands there now, weigh more.
    """
    generator = torch.Generator().manual_seed(3)
    gold, corrected, own = (answers(lengths, generator) for lengths in ((5, 8), (6, 9), (7, 4)))
    blurred_gold, blurred_corrected = answers((5, 8), generator), answers((6, 9), generator)
    severity, seen = torch.tensor([[1.5], [2.5]]), torch.tensor([[3.0], [1.0]])
    edits_corrected = [torch.tensor([0, 0, 0, 1, 1, 0]), torch.tensor([0, 0, 0, 0, 0, 1, 1, 1, 0])]
    edits_own = [torch.tensor([0, 0, 0, 0, 1, 1, 0]), torch.tensor([0, 1, 1, 0])]
    return gold, corrected, own, blurred_gold, blurred_corrected, severity, seen, edits_corrected, edits_own


def released(batch) -> float:
    """compute_policy_loss of the released DPOTrainer: [records, positions], everything averaged."""
    gold, corrected, own, blurred_gold, blurred_corrected, severity, seen, edits_corrected, edits_own = batch

    def table(rows):
        return torch.stack([pad(p - r, (0, LENGTH - len(p))) for p, r in rows])

    def scores(edits, weights):
        found = []
        for numbers, weight in zip(edits, weights, strict=True):
            row = torch.where(numbers > 0, weight[0], torch.tensor(1.0))
            row[-1] = row[-2]  # the end of the turn weighs as the token before it
            found.append(pad(row, (0, LENGTH - len(row))))
        return torch.stack(found)

    def preference(chosen, rejected, chosen_scores=1.0, rejected_scores=1.0):
        return -logsigmoid(BETA * (chosen_scores * chosen - rejected_scores * rejected))

    first = preference(table(gold), table(own))
    second = preference(table(corrected), table(own), scores(edits_corrected, severity), scores(edits_own, severity))
    third = preference(table(gold), table(blurred_gold))
    looked = scores(edits_corrected, seen)
    fourth = preference(table(corrected), table(blurred_corrected), looked, looked)
    up, down = -logsigmoid(BETA * table(gold)), -logsigmoid(-BETA * table(corrected))
    anchors = (up + down + up + down).mean()
    return float(first.mean() + second.mean() + COPO * (third.mean() + fourth.mean()) + anchors)


def scored(batch, objective):
    """The same as the two kinds of pairs, those with the gold answer first."""
    gold, corrected, own, blurred_gold, blurred_corrected, severity, seen, edits_corrected, edits_own = batch
    none = [torch.zeros(len(p), dtype=torch.long) for p, _ in own]
    edits = {
        CHOSEN: [*(torch.zeros(len(p), dtype=torch.long) for p, _ in gold), *edits_corrected],
        REJECTED: [*none, *edits_own],
    }
    ones = torch.ones(2, 1)
    scores = {
        "corrected": torch.tensor([0.0, 0.0, 1.0, 1.0]),
        "severity": torch.cat([ones, severity]),
        "seen": torch.cat([ones, seen]),
    }
    return {
        CHOSEN: logps([*gold, *corrected], edits[CHOSEN], scores),
        REJECTED: logps([*own, *own], edits[REJECTED], scores),
        objective.masked: logps([*blurred_gold, *blurred_corrected], [], scores),
    }


def test_positions_are_compared_as_in_the_released_trainer(batch):
    objective = OpaDpo(form="positions", response_length=LENGTH)
    loss, metrics = objective.loss(scored(batch, objective))
    # There a record's two pairs are added; here the loss is a mean over pairs.
    assert 2 * loss.item() == pytest.approx(released(batch), abs=1e-6)
    assert set(metrics) >= {"rewards/margins", "rewards/image_margins"}


def test_answers_are_sums_of_weighted_log_ratios(batch):
    gold, corrected, own, blurred_gold, blurred_corrected, severity, seen, edits_corrected, edits_own = batch

    def total(row, edits=None, weight=1.0):
        p, r = row
        weights = [1.0] * len(p) if edits is None else [weight if n else 1.0 for n in edits.tolist()]
        if edits is not None:
            weights[-1] = weights[-2]
        return sum(w * float(a - b) for w, a, b in zip(weights, p, r, strict=True))

    def minus_log_sigmoid(margin):
        return math.log(1 + math.exp(-margin))

    expected = 0.0
    for place in range(2):
        expected += minus_log_sigmoid(BETA * (total(gold[place]) - total(own[place])))
        expected += COPO * minus_log_sigmoid(BETA * (total(gold[place]) - total(blurred_gold[place])))
        expected += 2 * minus_log_sigmoid(BETA * total(gold[place]))
        bad, looked = float(severity[place]), float(seen[place])
        ours, theirs = edits_corrected[place], edits_own[place]
        better, worse = total(corrected[place], ours, bad), total(own[place], theirs, bad)
        expected += minus_log_sigmoid(BETA * (better - worse))
        clear, blurred = (total(one, ours, looked) for one in (corrected[place], blurred_corrected[place]))
        expected += COPO * minus_log_sigmoid(BETA * (clear - blurred))
        expected += 2 * minus_log_sigmoid(BETA * total(corrected[place]))
    loss, _ = OpaDpo().loss(scored(batch, OpaDpo()))
    assert loss.item() == pytest.approx(expected / 4, abs=1e-5)


def test_scores_of_passages_come_from_the_pairs():
    from types import SimpleNamespace

    from veridical.align.batch_loss import pair_scores

    examples = [
        SimpleNamespace(scores={"corrected": 0.0}),
        SimpleNamespace(scores={"corrected": 1.0, "severity/1": 2.5, "severity/2": 1.5, "seen/2": 3.0, "faults": 3}),
    ]
    found = pair_scores(OpaDpo(), examples, torch.device("cpu"))
    assert found["corrected"].tolist() == [0, 1]
    assert found["severity"].tolist() == [[1, 1], [2.5, 1.5]]
    assert found["seen"].tolist() == [[1, 1], [1, 3]]
