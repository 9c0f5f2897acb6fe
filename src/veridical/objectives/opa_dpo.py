"""OPA-DPO, the second stage (Yang et al. 2025, arXiv 2501.09695, section 4; released code): preferences whose tokens
weigh by how wrong their sentence was, with a masked image beside them, and anchors.

On pairs of the construction `opa-dpo`: the reference above the own answer, and the own answer corrected sentence by
sentence above it as it was. A corrected sentence has two weights, on both sides: `severity` (1 where nothing was wrong,
up to 2.5), and `seen` (3 where it was the image that was read wrong, 1 where a conclusion was). With r the log-ratio of
a token, w and v its weights:

    text     -log sigmoid(beta (sum w r(chosen) - sum w r(rejected)))
    image    -log sigmoid(beta (sum v r(chosen) - sum v r(chosen, masked image)))          times image_weight
    anchor   -log sigmoid(beta sum r(chosen)), once for each of the two                    times anchor_weight

The released code never sums over an answer (`form positions`): the chosen answer's token t is compared with the
rejected one's token t, and then everything is averaged over `response_length` places, of which those beyond an answer
give log 2. There, and by reading, the corrected answers' anchors push down: their sign is turned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from veridical.bounds import AboveZero, NotNegative, Positive, check
from veridical.errors import UserError
from veridical.objectives.base import CHOSEN, REJECTED, LogpRequest, Logps, Metrics
from veridical.objectives.dpo import rewards
from veridical.objectives.token_weights import EDITS_NEEDED
from veridical.vlm.images.views import parse

if TYPE_CHECKING:
    from torch import Tensor

SEVERITY, SEEN, CORRECTED = "severity", "seen", "corrected"
"""What a pair states: of each passage the two weights; and 1 for the pair with the correction, 0 for the other."""


@dataclass(frozen=True)
class OpaDpo:
    """DPO with weights of sentences, a preference for the image over a masked one, and anchors.

    Loss: DPO + 0.2 DPO between the image and a masked one, tokens weighing by how wrong their sentence was, - 2 log
    sigmoid(beta R(chosen)); or, as released, token by token in their places.
    """

    name: Literal["opa-dpo"] = "opa-dpo"
    """On-policy alignment DPO, after fine-tuning on the same pairs."""
    beta: AboveZero = 0.1
    """How strongly the policy is held to the reference; 0.1 in the released code."""
    view: str = "patch-mask:0.3"
    """The masked image: 30 % as in the paper, by patches; the released code masks single pixels."""
    image_weight: NotNegative = 0.2
    """Weight of the preference between images; 0.2 in the released code."""
    anchor_weight: NotNegative = 1.0
    """Weight of the anchors; 1 in the released code."""
    form: Literal["answers", "positions"] = "answers"
    """Compare sums over answers; or, as the released code does, the two answers token by token in their places."""
    response_length: Positive = 896
    """With positions: over how many places is averaged; 896 in the released code."""

    def __post_init__(self) -> None:
        check(self, "objective.")
        parse(self.view)

    @property
    def masked(self) -> LogpRequest:
        """The chosen answer on the masked image."""
        return LogpRequest("chosen", parse(self.view))

    def reads(self) -> tuple[str, ...]:
        """Which of the two pairs it is."""
        return (CORRECTED,)

    def passage_scores(self) -> tuple[str, ...]:
        """The weights of sentences."""
        return SEVERITY, SEEN

    def needs(self) -> tuple[LogpRequest, ...]:
        """Both answers on the clean image and the chosen one on the masked image, with the reference."""
        return CHOSEN, REJECTED, self.masked

    def loss(self, scored: Mapping[LogpRequest, Logps]) -> tuple[Tensor, Metrics]:
        """The weighted sum of the terms; metrics: those of `rewards`, `rewards/image_margins`."""
        import torch

        chosen, rejected, masked = scored[CHOSEN], scored[REJECTED], scored[self.masked]
        if not (chosen.edits and rejected.edits):
            raise UserError(f"objective opa-dpo: {EDITS_NEEDED}")
        ratios = {name: _ratios(one) for name, one in (("chosen", chosen), ("rejected", rejected), ("masked", masked))}
        severity = {"chosen": _weights(chosen, SEVERITY), "rejected": _weights(rejected, SEVERITY)}
        seen = _weights(chosen, SEEN)
        put = self._places if self.form == "positions" else _summed
        better, worse = (put(_times(ratios[side], severity[side])) for side in ("chosen", "rejected"))
        clear, blurred = put(_times(ratios["chosen"], seen)), put(_times(ratios["masked"], seen))
        held = put(ratios["chosen"])
        if self.form == "positions":
            held = held * (1 - 2 * chosen.scores[CORRECTED]).to(held.dtype)[:, None]
        terms = [
            _minus_log_sigmoid(self.beta * (better - worse)),
            self.image_weight * _minus_log_sigmoid(self.beta * (clear - blurred)),
            2 * self.anchor_weight * _minus_log_sigmoid(self.beta * held),
        ]
        sums = [torch.stack([ratio.sum() for ratio in ratios[side]]) for side in ("chosen", "rejected", "masked")]
        image = rewards(sums[0], sums[2], self.beta)
        return torch.stack([term.mean() for term in terms]).sum(), {
            **rewards(sums[0], sums[1], self.beta),
            "rewards/image_margins": image["rewards/margins"],
        }

    def _places(self, tokens: Sequence[Tensor]) -> Tensor:
        """Numbers of answers in their places, [pairs, response_length]; nothing beyond their ends."""
        import torch

        length = self.response_length
        return torch.stack(
            [torch.nn.functional.pad(token[:length], (0, length - len(token[:length]))) for token in tokens]
        )


def _ratios(scored: Logps) -> list[Tensor]:
    return [ours - theirs for ours, theirs in zip(scored.policy, scored.reference, strict=True)]


def _weights(scored: Logps, name: str) -> list[Tensor]:
    """The weight of each token: that of its passage, the last of which also holds the end of the turn; else 1."""
    import torch

    found = []
    for place, edits in enumerate(scored.edits):
        pair = scored.pairs[place] if scored.pairs else place
        stated = scored.scores[name][pair].to(edits.device) if name in scored.scores else torch.ones(0)
        # What stands in no passage, and in none that is stated, weighs 1.
        own = torch.cat(
            [torch.ones(1, device=edits.device), stated.to(edits.device), torch.ones(1, device=edits.device)]
        )
        weights = own[edits.clamp(max=len(own) - 1)]
        found.append(torch.cat([weights[:-1], weights[-2:-1]]) if len(weights) > 1 else weights)
    return found


def _times(tokens: Sequence[Tensor], weights: Sequence[Tensor]) -> list[Tensor]:
    return [one * weight.to(one.dtype) for one, weight in zip(tokens, weights, strict=True)]


def _summed(tokens: Sequence[Tensor]) -> Tensor:
    import torch

    return torch.stack([token.sum() for token in tokens])


def _minus_log_sigmoid(margins: Tensor) -> Tensor:
    from torch.nn.functional import logsigmoid

    return -logsigmoid(margins)
