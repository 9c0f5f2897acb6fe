"""Best of N answers by implicit reward, as RLAIF-V does at inference (arXiv 2405.17220, section 3.3).

    reward(y) = (log policy(y | image, question) - log reference(y | image, question)) / tokens of y

The reward is what DPO has taught the adapter: the aligned model judges its own answers against the base it was
trained from. Divided by length, so that longer answers don't gain or lose by their number of tokens.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from veridical.bounds import AboveZero, Positive, check
from veridical.errors import UserError
from veridical.vlm.generation.params import Branch, Sampled, SamplingParams

if TYPE_CHECKING:
    from torch import Tensor

    from veridical.vlm.model.loading import Vlm
    from veridical.vlm.prefix.encode import Prefix


@dataclass(frozen=True)
class BestOfN:
    """The best of several drawn answers, by the adapter's implicit reward.

    Contrasts with: the base: the draw that the adapter raised most, per token.

    Costs: N answers, two scores of each.
    """

    name: Literal["best-of-n"] = "best-of-n"
    """The method."""
    n: Positive = 8
    """Answers drawn."""
    temperature: AboveZero = 0.7
    """Temperature of the draws, where the protocol's own is 0: greedy answers would all be the same."""

    def __post_init__(self) -> None:
        check(self)


def best_of_n(
    vlm: Vlm, prefix: Prefix, branches: Sequence[Branch], sampling: SamplingParams, settings: BestOfN
) -> list[Sampled]:
    """For each branch, the one of `n` draws with the largest reward; the first of equals.

    Draw i of a branch has the key (*key, "draw", i). Raises `UserError` for a model without an adapter.
    """
    from veridical.vlm.generation.generate import generate

    if not hasattr(vlm.model, "disable_adapter"):
        raise UserError(
            f"best-of-n compares a model with its base, and {vlm.name} has no adapter. Give an aligned one."
        )
    drawn = dataclasses.replace(sampling, temperature=sampling.temperature or settings.temperature)
    keys = [
        dataclasses.replace(branch, key=(*branch.key, "draw", index))
        for branch in branches
        for index in range(settings.n)
    ]
    answers = generate(vlm, prefix, keys, drawn)
    rewards = implicit_rewards(vlm, prefix, keys, answers)
    groups = [range(start, start + settings.n) for start in range(0, len(keys), settings.n)]
    return [answers[max(group, key=rewards.__getitem__)] for group in groups]


def implicit_rewards(vlm: Vlm, prefix: Prefix, branches: Sequence[Branch], answers: Sequence[Sampled]) -> list[float]:
    """The reward of each branch's answer, per token; minus infinity for an empty one.

    The end of the turn counts only where the model set it.
    """
    import torch

    from veridical.vlm.model.adapters import adapters_off
    from veridical.vlm.prefix.encode import encode

    with torch.no_grad():
        policy = _log_probs(vlm, prefix, branches, answers)
        with adapters_off(vlm):
            reference = _log_probs(vlm, encode(vlm, prefix.prepared), branches, answers)
    pairs = zip(policy, reference, strict=True)
    return [float((own - base).mean()) if len(own) else float("-inf") for own, base in pairs]


def _log_probs(vlm: Vlm, prefix: Prefix, branches: Sequence[Branch], answers: Sequence[Sampled]) -> list[Tensor]:
    """Per-token log-probabilities of each answer, [tokens]; of no token for an empty one."""
    import torch

    from veridical.vlm.scores.scoring import score

    texts: list[list[str]] = [[] for _ in range(len(prefix))]
    for branch, answer in zip(branches, answers, strict=True):
        if branch.after:
            raise ValueError("best-of-n scores whole answers; it can't continue a given text")
        if answer.text:
            texts[branch.context].append(answer.text)
    scores = [iter(answer_scores) for answer_scores in score(vlm, prefix, texts)]
    log_probs = []
    for branch, answer in zip(branches, answers, strict=True):
        tokens = next(scores[branch.context]) if answer.text else torch.empty(0)
        log_probs.append(tokens if answer.ended == "turn" else tokens[:-1])
    return log_probs
