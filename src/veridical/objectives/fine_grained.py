"""Fine-grained supervision (Xu et al. 2024, arXiv 2406.02756): token rewards out of minimal edits, in DPO.

The less preferred answer was edited as little as possible to make it good. So a token that the edit took out of the
rejected answer has the reward -1, one that it put into the chosen answer +1, and what both share has none. The paper
trains a token-level reward model on these labels and then PPO on its rewards; DPO's implicit reward of a token, beta
times its log-ratio r, is such a model by itself. `tokens` classifies each edited token by it, with the label y:

    mean over a pair's edited tokens of  -log sigmoid(y beta r)

`answers` is DPO on the sums over edited tokens alone: the limit of dense DPO in which shared tokens weigh nothing. The
paper's own loss for its reward model is not in what is published of it; this is our reading.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from veridical.bounds import AboveZero, check
from veridical.errors import UserError
from veridical.objectives.base import CHOSEN, REJECTED, LogpRequest, Logps, Metrics, both_answers
from veridical.objectives.dpo import dpo, rewards
from veridical.objectives.token_weights import EDITS_NEEDED

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class FineGrained:
    """Reward the tokens that an edit put in, punish those that it took out, and leave the others alone.

    Loss: -log sigmoid(y beta r) of each edited token, r its log-ratio, y 1 where an edit put it in and -1 where it
    took it out.
    """

    name: Literal["fine-grained"] = "fine-grained"
    """Token rewards from minimal edits."""
    beta: AboveZero = 0.1
    """Scale of a token's implicit reward."""
    form: Literal["tokens", "answers"] = "tokens"
    """Judge each edited token by itself, or all those of the two sides against each other."""

    def __post_init__(self) -> None:
        check(self, "objective.")

    needs = both_answers

    def loss(self, scored: Mapping[LogpRequest, Logps]) -> tuple[Tensor, Metrics]:
        """The loss; metrics: those of `rewards` on edited tokens, and `edited`, their share."""
        import torch
        from torch.nn.functional import logsigmoid

        sides = scored[CHOSEN], scored[REJECTED]
        if not all(side.edits for side in sides):
            raise UserError(f"objective fine-grained: {EDITS_NEEDED}")
        put_in, taken_out = ([_edited(side, place) for place in range(len(side.policy))] for side in sides)
        sums = [torch.stack([tokens.sum() for tokens in some]) for some in (put_in, taken_out)]
        if self.form == "answers":
            loss, metrics = dpo(sums[0], sums[1], self.beta)
        else:
            labelled = [torch.cat([good, -bad]) for good, bad in zip(put_in, taken_out, strict=True)]
            loss = torch.stack(
                [-logsigmoid(self.beta * signed).mean() if len(signed) else signed.sum() for signed in labelled]
            ).mean()
            metrics = rewards(sums[0], sums[1], self.beta)
        edited = torch.cat([(numbers > 0).float() for side in sides for numbers in side.edits])
        return loss, {**metrics, "edited": edited.mean()}


def _edited(side: Logps, place: int) -> Tensor:
    """The log-ratios of an answer's edited tokens."""
    return (side.policy[place] - side.reference[place])[side.edits[place] > 0]
