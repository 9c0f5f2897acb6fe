"""What a model knows but does not say: a linear probe against its own answers to the same questions.

Each question asks for the usual partner of an object in the picture. A logistic regression, trained
on some pictures and tested on others, tells from the hidden state that predicts "Yes" or "No"
whether the partner is in the picture. Where it is right more often than the model's answer, alignment has
room to improve.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from veridical.errors import UserError
from veridical.judges.claims import exists
from veridical.protocols.benchmark_task import YES_NO
from veridical.protocols.statistics import Estimate, FloatArray, Ratio, estimate, resample
from veridical.records import Message, Record

if TYPE_CHECKING:
    from veridical.vlm.model.loading import Vlm

IndexArray = npt.NDArray[np.intp]
BoolArray = npt.NDArray[np.bool_]

PENALTIES = (0.1, 1.0, 10.0, 100.0)
NEWTON_STEPS = 30


@dataclass(frozen=True, slots=True)
class PartnerQuestion:
    """A question after the usual partner of a present object."""

    record: Record
    partner: str
    present: bool


@dataclass(frozen=True)
class ProbeResult:
    """Accuracies in percent on the test pictures, with 95 % intervals over pictures.

    `layer` was chosen, with its penalty, on pictures of the training part; `layers` tells the others.
    """

    probe: Estimate
    own_answers: Estimate
    own_yes_ratio: Estimate
    layer: int
    layers: tuple[Estimate, ...]
    train_questions: int
    test_questions: int


def partner_questions(records: Sequence[Record], partner: Mapping[str, str], seed: int) -> list[PartnerQuestion]:
    """One question a picture, half of them about a partner that is in it.

    Raises:
        UserError: a record without annotations, or no picture with (or without) a partner.
    """
    by_answer: dict[bool, list[PartnerQuestion]] = {True: [], False: []}
    for record in records:
        if record.annotations is None:
            raise UserError(f"record {record.id}: the probe needs its annotated objects")
        rng = random.Random(f"probe/{seed}/{record.id}")
        present = record.annotations.names
        triggers = sorted(name for name in present if name in partner)
        if triggers:
            asked = partner[rng.choice(triggers)]
            by_answer[asked in present].append(PartnerQuestion(record, asked, asked in present))
    number = min(map(len, by_answer.values()))
    if not number:
        raise UserError("the probe needs pictures with and without the usual partner of an object in them")
    kept = {question.record.id for questions in by_answer.values() for question in questions[:number]}
    both = {question.record.id: question for questions in by_answer.values() for question in questions}
    return [both[record.id] for record in records if record.id in kept]


def probe(
    vlm: Vlm, records: Sequence[Record], partner: Mapping[str, str], *, seed: int = 0, batch: int = 32
) -> ProbeResult:
    """Probe `vlm` on `records`: half of the pictures train it, a quarter chooses layer and penalty, a quarter tests.

    Raises:
        UserError: fewer than 40 pictures can be asked about.
    """
    questions = partner_questions(records, partner, seed)
    if len(questions) < 40:
        raise UserError(f"the probe can ask about {len(questions)} pictures, and needs 40; give more records")
    states, yes = _look(vlm, questions, batch)
    present = np.array([question.present for question in questions])
    order = np.random.default_rng(seed).permutation(len(questions))
    train, choose, test = np.split(order, [len(order) // 2, 3 * len(order) // 4])
    best: list[tuple[float, float]] = []
    for layer in range(states.shape[1]):
        scores = [(_right(states[:, layer], present, train, choose, penalty).mean(), penalty) for penalty in PENALTIES]
        best.append(max(scores))
    layer = max(range(len(best)), key=lambda index: best[index][0])
    weights = resample(len(test), seed)
    fitted = np.concatenate([train, choose])
    layers = tuple(
        _accuracy(_right(states[:, index], present, fitted, test, penalty), weights)
        for index, (_, penalty) in enumerate(best)
    )
    return ProbeResult(
        probe=layers[layer],
        own_answers=_accuracy(yes[test] == present[test], weights),
        own_yes_ratio=_accuracy(yes[test], weights),
        layer=layer,
        layers=layers,
        train_questions=len(fitted),
        test_questions=len(test),
    )


def fit_logistic(inputs: FloatArray, labels: FloatArray, penalty: float) -> tuple[FloatArray, float]:
    """Weights [width] and bias of an L2-penalised logistic regression, by Newton's method.

    Minimises the summed log-loss plus penalty / 2 * |weights|^2; the bias is free.

    Args:
        inputs: [examples, width].
        labels: [examples], 1 or 0.
        penalty: above zero.
    """
    design = np.hstack([inputs, np.ones((len(inputs), 1))])
    ridge = np.full(design.shape[1], penalty)
    ridge[-1] = 1e-9  # only so that the system can be solved
    theta = np.zeros(design.shape[1])
    for _ in range(NEWTON_STEPS):
        chance = _sigmoid(design @ theta)
        gradient = design.T @ (chance - labels) + ridge * theta
        spread = np.maximum(chance * (1 - chance), 1e-12)
        step = np.linalg.solve(design.T @ (design * spread[:, None]) + np.diag(ridge), gradient)
        theta -= step
        if np.abs(step).max() < 1e-8:
            break
    return theta[:-1], float(theta[-1])


def _look(vlm: Vlm, questions: Sequence[PartnerQuestion], batch: int) -> tuple[FloatArray, BoolArray]:
    """Hidden states [questions, layers, width], and whether the model itself says yes [questions]."""
    from veridical.vlm.inputs.context import Context
    from veridical.vlm.prefix.encode import encode
    from veridical.vlm.scores.hidden_states import hidden_states
    from veridical.vlm.scores.scoring import next_token_logprobs

    states, yes = [], []
    for start in range(0, len(questions), batch):
        asked = questions[start : start + batch]
        contexts = [
            Context(q.record.images, (Message("user", exists(q.partner)),), key=("probe", q.record.id)) for q in asked
        ]
        states.append(hidden_states(vlm, contexts).cpu().double().numpy())
        scores = next_token_logprobs(vlm, encode(vlm, contexts), YES_NO)
        yes.append((scores[:, 0] > scores[:, 1]).cpu().numpy())
    return np.concatenate(states), np.concatenate(yes)


def _right(inputs: FloatArray, labels: BoolArray, train: IndexArray, test: IndexArray, penalty: float) -> BoolArray:
    """Whether a probe fitted on `train` is right on each of `test` (both are indices)."""
    mean, spread = inputs[train].mean(axis=0), inputs[train].std(axis=0)
    scaled = (inputs - mean) / np.where(spread > 1e-8, spread, 1.0)
    weights, bias = fit_logistic(scaled[train], labels[train].astype(np.float64), penalty)
    right: BoolArray = (scaled[test] @ weights + bias > 0) == labels[test]
    return right


def _accuracy(right: BoolArray, weights: FloatArray) -> Estimate:
    return estimate(Ratio(right.astype(np.float64), np.ones(len(right))), weights)


def _sigmoid(x: FloatArray) -> FloatArray:
    values: FloatArray = 0.5 * (1 + np.tanh(0.5 * x))
    return values
