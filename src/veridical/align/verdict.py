"""What a finished training amounts to, in sentences: whether it learnt anything, what went wrong, what to change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from veridical.align.config import AlignConfig

STILL = 0.02
"""A mean reward margin below this leaves the loss of DPO within one per cent of ln 2, where it started."""


@dataclass(frozen=True, slots=True)
class TrainingWarning:
    """Something to know about a training: `kind` is a stable slug, `found` holds the numbers, `remedy` what to do."""

    kind: str
    found: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.found}. {self.remedy}."


def judge(
    config: AlignConfig, final: Mapping[str, Any], held_out: Mapping[str, Any] | None, answers: Sequence[str] = ()
) -> list[TrainingWarning]:
    """What is wrong with a training, from what `measure` says about its own and its held-out pairs, and from some
    answers of the trained model. Empty where nothing is.
    """
    warnings = [_learnt(config, final, held_out), _chosen_fell(config, held_out or final), _collapsed(config, answers)]
    return [warning for warning in warnings if warning is not None]


def _learnt(
    config: AlignConfig, final: Mapping[str, Any], held_out: Mapping[str, Any] | None
) -> TrainingWarning | None:
    # Fine-tuning asks nothing of the rejected side.
    what = "chosen_drift" if config.objective.name == "sft" else "margin"
    named = "the chosen answers' gain" if what == "chosen_drift" else "the margin"
    still = "rewards/margins" in final and abs(final["rewards/margins"]) < STILL
    if still or final["intervals"][what][0] <= 0:
        loss = ", and the preference loss is still about ln 2 (0.693), where it began" if still else ""
        return TrainingWarning(
            "nothing-learnt",
            f"Nothing was learnt: on the training pairs {named} is {_nats(final, what)}{loss}",
            f"Raise --learning-rate (it was {config.learning_rate:g}) three- to tenfold or --epochs (it was "
            f"{config.epochs}), train on more pairs, or on pairs whose sides differ more",
        )
    if held_out is not None and held_out["intervals"][what][0] <= 0:
        return TrainingWarning(
            "by-heart",
            f"What was learnt doesn't carry over: on {held_out['pairs']} held-out pairs {named} is "
            f"{_nats(held_out, what)}, not clear of 0, against {_nats(final, what)} on the training pairs",
            "Train on more pairs of more images, with fewer --epochs, or on pairs whose sides differ in what is seen",
        )
    return None


def _chosen_fell(config: AlignConfig, numbers: Mapping[str, Any]) -> TrainingWarning | None:
    if numbers["intervals"]["chosen_drift"][1] >= 0:
        return None
    weight = getattr(config.objective, "nll_weight", 0.0)
    if config.objective.name == "sft":
        remedy = "Lower --learning-rate"
    elif weight:
        remedy = f"Raise --objective.nll-weight (it was {weight:g}), or lower --learning-rate"
    else:
        remedy = "Take --objective.name dpo-nll, whose likelihood term holds them up, or lower --learning-rate"
    return TrainingWarning(
        "chosen-fell",
        f"Even the chosen answers became less likely: {_nats(numbers, 'chosen_drift')} an answer",
        f"{remedy}; check recall and length in an evaluation",
    )


def _collapsed(config: AlignConfig, answers: Sequence[str]) -> TrainingWarning | None:
    if not answers:
        return None
    empty = sum(not answer.strip() for answer in answers)
    looping = sum(repetition(answer) > 0.5 for answer in answers)
    same = Counter(answers).most_common(1)[0][1] if len(answers) >= 4 else 0
    faults = {
        f"{empty} of {len(answers)} are empty": 2 * empty >= len(answers),
        f"{looping} of {len(answers)} repeat themselves": 2 * looping >= len(answers),
        f"{same} of {len(answers)}, to different images, are the same": same == len(answers),
    }
    if not any(faults.values()):
        return None
    return TrainingWarning(
        "collapsed",
        f"The model's answers have collapsed: {' and '.join(fault for fault, present in faults.items() if present)}",
        f"Lower --learning-rate (it was {config.learning_rate:g}) or --epochs, or raise --objective.nll-weight",
    )


def repetition(text: str, length: int = 4) -> float:
    """The share of a text's word sequences of `length` that have occurred in it before."""
    words = text.split()
    grams = [tuple(words[start : start + length]) for start in range(len(words) - length + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def _nats(numbers: Mapping[str, Any], name: str) -> str:
    low, high = numbers["intervals"][name]
    return f"{numbers[name]:+.2f} nats [{low:+.2f}, {high:+.2f}]"
