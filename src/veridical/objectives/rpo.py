"""Relative preference optimisation (Yin et al. 2024, arXiv 2402.10958): every chosen answer against every rejected one.

Over the pairs of an optimiser step, with R the log-ratio of an answer, as in the released code:

    mean over i, j of  -log sigmoid(beta w_ij (R(chosen_i) - R(rejected_j))),    w_ij = softmax over j of -d_ij / tau

d_ij is the cosine distance of the two prompts' embeddings (all-MiniLM-L6-v2 where it is installed). In vision the
prompts are often one and the same, so the distance of the images' embeddings counts too, half of it by default: the
model's own vision tower's, taken from their mean over the step, since all images look alike to a tower otherwise.
`diagonal` is the released variant without embeddings. Paired, i = j is among the combinations; unpaired, an answer is
compared with those of other pairs alone.

What is compared are all pairs of an optimiser step, over all processes, whatever --micro-batch is; 8 or more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from veridical.bounds import AboveZero, Share, check
from veridical.errors import UserError
from veridical.objectives.base import CHOSEN, REJECTED, Embedded, LogpRequest, Logps, Metrics, both_answers
from veridical.objectives.dpo import rewards

if TYPE_CHECKING:
    from torch import Tensor


def rpo(chosen: Tensor, rejected: Tensor, weights: Tensor, beta: float) -> Tensor:
    """-log sigmoid(beta w_ij (chosen_i - rejected_j)), mean over all i and j that have a weight.

    `chosen` [m] and `rejected` [n] are log-ratios, `weights` [m, n]; NaN where a combination doesn't count.
    """
    from torch.nn.functional import logsigmoid

    losses = -logsigmoid(beta * weights.nan_to_num() * (chosen[:, None] - rejected[None, :]))
    return losses[~weights.isnan()].mean()


def similarity_weights(distances: Tensor, tau: float, paired: bool) -> Tensor:
    """softmax over j of -d_ij / tau, [m, n]; unpaired, without i = j, which is NaN."""
    import torch

    own = torch.eye(*distances.shape, dtype=torch.bool, device=distances.device)
    if paired or len(distances) == 1:
        return (-distances / tau).softmax(1)
    return (-distances / tau).masked_fill(own, -torch.inf).softmax(1).masked_fill(own, torch.nan)


def cosine_distances(vectors: Tensor, centred: bool = False) -> Tensor:
    """1 - cosine of every two of `vectors` [pairs, width]; of their differences from the mean, if `centred`."""
    from torch.nn.functional import normalize

    unit = normalize(vectors - vectors.mean(0) if centred else vectors, dim=-1)
    return 1 - unit @ unit.T


def diagonal(chosen: Tensor, rejected: Tensor, own_share: float, beta: float) -> Tensor:
    """The mean loss of pairs with a share, and that of all other combinations with the rest: needs no embeddings.

    `chosen` and `rejected` are log-ratios, [pairs]; a single pair is only its own.
    """
    import torch
    from torch.nn.functional import logsigmoid

    losses = -logsigmoid(beta * (chosen[:, None] - rejected[None, :]))
    own = losses.diagonal().mean()
    if len(chosen) == 1:
        return own
    others = losses[~torch.eye(len(chosen), dtype=torch.bool, device=losses.device)].mean()
    return own_share * own + (1 - own_share) * others


@dataclass(frozen=True)
class Rpo:
    """Prefer each chosen answer to its own rejected one and to those of other pairs.

    Loss: -log sigmoid(beta w (R(chosen i) - R(rejected j))) over all pairs of a step, w by how alike prompts and
    images are.
    """

    name: Literal["rpo"] = "rpo"
    """Relative preference optimisation."""
    beta: AboveZero = 0.1
    """How strongly the policy is held to the reference."""
    weights: Literal["similarity", "diagonal", "uniform"] = "similarity"
    """How combinations weigh: by how alike prompts and images are; a share of the loss for own pairs and the rest for
    all others (the released code's variant without embeddings); or all the same (prompts that are all alike)."""
    tau: AboveZero = 0.5
    """With similarity: how little the distance counts; 0.5 in the released code, 0.25 in its examples."""
    image_share: Share = 0.5
    """With similarity: share of the images' distance, the rest is the prompts'; 0 is the released code's, on text."""
    form: Literal["paired", "unpaired"] = "paired"
    """Whether an answer is also compared with that of its own pair."""
    own_share: Share = 0.8
    """With diagonal weights, the share of own pairs; 0.8 in the released code."""

    def __post_init__(self) -> None:
        check(self, "objective.")
        if self.weights == "diagonal" and self.form == "unpaired":
            raise UserError("objective.weights diagonal is about own pairs; with form unpaired take another.")

    needs = both_answers

    def embeds(self) -> tuple[Embedded, ...]:
        """Prompts and images, as far as they count."""
        if self.weights != "similarity":
            return ()
        shares: dict[Embedded, float] = {"prompt": 1 - self.image_share, "image": self.image_share}
        return tuple(name for name, share in shares.items() if share)

    def compares_pairs(self) -> bool:
        """Yes: all of a step's."""
        return True

    def loss(self, scored: Mapping[LogpRequest, Logps]) -> tuple[Tensor, Metrics]:
        """The loss of `diagonal`, or `rpo` with rows of weights that sum to 1; metrics are those of `rewards`, and
        `own_weight`, the mean weight of own pairs."""
        chosen, rejected = scored[CHOSEN].log_ratios(), scored[REJECTED].log_ratios()
        metrics = rewards(chosen, rejected, self.beta)
        if self.weights == "diagonal":
            return diagonal(chosen, rejected, self.own_share, self.beta), metrics
        weights = similarity_weights(self._distances(scored[CHOSEN]).to(chosen), self.tau, self.form == "paired")
        if self.form == "paired":
            metrics["own_weight"] = weights.diagonal().mean()
        return rpo(chosen, rejected, weights, self.beta), metrics

    def _distances(self, scored: Logps) -> Tensor:
        """Of every two pairs, [pairs, pairs]."""
        import torch

        total = torch.zeros(len(scored.policy), len(scored.policy))
        if self.weights == "uniform":
            return total
        if self.image_share < 1:
            total = total + (1 - self.image_share) * cosine_distances(scored.embeddings["prompt"])
        if self.image_share > 0:
            total = total + self.image_share * cosine_distances(scored.embeddings["image"], centred=True)
        return total
