"""The model as its own judge, by the implicit reward of DPO: beta * (log policy(answer) - log reference(answer)).

Rafailov et al. 2023, arXiv 2305.18290, section 5.1; as a labeller in SPA (arXiv 2406.04412) and, divided by the length,
for best-of-N in RLAIF-V (arXiv 2405.17220). The policy is the model with its adapter, the reference the same without.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from veridical.bounds import AboveZero, Positive
from veridical.errors import UserError
from veridical.judges.interface import Compare, JudgeError, Preference, Rate
from veridical.judges.rewards import Scorable, each, preference

if TYPE_CHECKING:
    from veridical.judges.registry import JudgeContext
    from veridical.vlm.model.loading import Vlm


@dataclass(frozen=True)
class ImplicitReward:
    """A judge that is the examined model itself."""

    model: Callable[[], Vlm] = field(repr=False)
    beta: float = 0.1
    per_token: bool = False
    batch_size: int = 8
    name: str = "self"

    def rate(self, requests: Sequence[Rate]) -> list[float | JudgeError]:
        """The implicit reward of each answer. Raises UserError where the model has no adapter."""
        from veridical.vlm.model.adapters import has_adapter

        if not has_adapter(self.model()):
            raise UserError(
                "judge.name self: the model has no adapter, so that policy and reference are one; give --adapter."
            )
        return each([Scorable.of(request) for request in requests], self._together, self.batch_size)

    def compare(self, requests: Sequence[Compare]) -> list[Preference | JudgeError]:
        """By the difference of the two rewards, as Bradley and Terry have it."""
        return preference(requests, self.rate)

    def _together(self, batch: Sequence[Scorable]) -> list[float]:
        from veridical.vlm.model.adapters import adapters_off

        vlm = self.model()
        policy = log_probs(vlm, batch)
        with adapters_off(vlm):
            reference = log_probs(vlm, batch)
        return [
            self.beta * (sum(ours) - sum(theirs)) / (len(ours) if self.per_token else 1)
            for ours, theirs in zip(policy, reference, strict=True)
        ]


def log_probs(vlm: Vlm, batch: Sequence[Scorable]) -> list[list[float]]:
    """Log-probabilities of each answer's tokens."""
    import torch

    from veridical.vlm.inputs.context import Context
    from veridical.vlm.prefix.encode import encode
    from veridical.vlm.scores.scoring import score

    with torch.no_grad():
        prefix = encode(
            vlm, [Context(request.images, request.prompt, key=("judge", request.record_id)) for request in batch]
        )
        return [texts[0].tolist() for texts in score(vlm, prefix, [[request.text] for request in batch])]


@dataclass(frozen=True)
class ImplicitSettings:
    """Judge by the implicit reward of the model with its adapter."""

    name: Literal["self"] = "self"
    """Which judge: self is the model with its adapter, measured against the model without."""
    beta: AboveZero = 0.1
    """Scales the reward; 0.1 in SPA."""
    per_token: bool = False
    """Divide by the number of tokens, so that long answers don't win by their length (RLAIF-V's best-of-N)."""
    batch_size: Positive = 8
    """Answers scored at a time."""

    def open(self, context: JudgeContext) -> ImplicitReward:
        """The judge. Raises UserError where no model is examined."""
        if context.model is None:
            raise UserError("judge.name self: there is no model here to ask.")
        return ImplicitReward(context.model, self.beta, self.per_token, self.batch_size)
