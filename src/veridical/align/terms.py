"""Terms added to an objective: the likelihood of a second data set (HA-DPO's gamma), and a KL to the reference (HALVA).

Both are means over examples of means over tokens, and each pair brings one auxiliary example, drawn by the seed, the
step and the pair; so they don't depend on the parts that a step is passed in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from veridical.align.inputs import BatchEncoder
from veridical.align.logps import score_requests
from veridical.align.policy import as_reference
from veridical.align.terms_settings import AuxiliarySettings, KlSettings
from veridical.align.types import Answer, Example
from veridical.errors import UserError
from veridical.formats.sources import read_records
from veridical.objectives.base import CHOSEN_ALONE, Metrics
from veridical.records import Record
from veridical.vlm import seeds
from veridical.vlm.images.views import Clean
from veridical.vlm.scores.scoring import answer_ids
from veridical.vlm.scores.token_scores import answer_logits

if TYPE_CHECKING:
    from veridical.vlm.model.loading import Vlm


@dataclass(frozen=True)
class Terms:
    """What is added to the loss of every batch."""

    auxiliary: AuxiliarySettings
    kl: KlSettings
    examples: Sequence[Example]
    """Those of the auxiliary data."""
    seed: int
    reference: Mapping[str, Tensor] | None = None
    """Weights of the reference of the KL; the model without its adapter where None."""

    def __bool__(self) -> bool:
        return bool(self.examples) or self.kl.weight > 0

    def loss(self, encoder: BatchEncoder, examples: Sequence[Example], step: int) -> tuple[Tensor, Metrics]:
        """The weighted terms of a batch of pairs at a step, and `auxiliary_loss` and `kl`, detached."""
        second = [self._drawn(example, step) for example in examples] if self.examples else []
        total = torch.zeros((), device=encoder.vlm.model.device)
        metrics: Metrics = {}
        if second and self.auxiliary.weight:
            likelihood = _nll(encoder, second)
            total, metrics["auxiliary_loss"] = total + self.auxiliary.weight * likelihood, likelihood.detach()
        if self.kl.weight:
            divergence = self._kl(encoder, second if self.kl.on == "auxiliary" else examples)
            total, metrics["kl"] = total + self.kl.weight * divergence, divergence.detach()
        return total, metrics

    def _drawn(self, example: Example, step: int) -> Example:
        random = seeds.generator("auxiliary", (self.seed, step, example.id))
        return self.examples[int(random.integers(len(self.examples)))]

    def _kl(self, encoder: BatchEncoder, examples: Sequence[Example]) -> Tensor:
        with torch.no_grad(), as_reference(encoder.vlm, self.reference):
            theirs = _distributions(encoder, examples)
        ours = _distributions(encoder, examples)
        pairs = zip(ours, theirs, strict=True)
        if self.kl.direction == "reverse":
            return torch.stack([(p.exp() * (p - r)).sum(-1).mean() for p, r in pairs]).mean()
        return torch.stack([(r.exp() * (r - p)).sum(-1).mean() for p, r in pairs]).mean()


def _nll(encoder: BatchEncoder, examples: Sequence[Example]) -> Tensor:
    scored = score_requests(encoder, encoder.load(examples, [Clean()]), [CHOSEN_ALONE])
    return -torch.stack([tokens.mean() for tokens in scored[CHOSEN_ALONE]]).mean()


def _distributions(encoder: BatchEncoder, examples: Sequence[Example]) -> list[Tensor]:
    """Log-probabilities [tokens, vocabulary] of all words at each token of each chosen answer."""
    keys = list(dict.fromkeys(example.context_key(Clean()) for example in examples))
    rows = [
        (keys.index(example.context_key(Clean())), answer_ids(encoder.vlm, example.chosen.text, (example.id,)))
        for example in examples
    ]
    batch = encoder.load(examples, [Clean()])
    with encoder.autocast():
        logits = answer_logits(encoder.vlm, encoder.encode(keys, batch), rows)
    return [
        torch.log_softmax(own_logits.float(), -1)[example.chosen.skip : -1 if example.chosen.cut else None]
        for example, own_logits in zip(examples, logits, strict=True)
    ]


def auxiliary_examples(settings: AuxiliarySettings, work: Path, vlm: Vlm, limit: int) -> list[Example]:
    """The examples of the second data set, those that fit `limit` tokens. Raises UserError where there are none."""
    from veridical.pairs.dataset import read_pairs
    from veridical.pairs.opening import is_run_folder

    if settings.data is None:
        return []
    if is_run_folder(settings.data):
        examples = [
            Example(
                pair.id, pair.images, pair.prompt, Answer(pair.chosen), Answer(pair.chosen), record_id=pair.record_id
            )
            for pair in read_pairs(settings.data)
        ]
    else:
        records = [record for record in read_records(str(settings.data), work) if isinstance(record, Record)]
        examples = [
            Example(record.id, record.images, record.prompt, Answer(text), Answer(text), record_id=record.id)
            for record in records
            if (text := (record.reference or "").strip())
        ]
    fitting = [example for example in examples if len(answer_ids(vlm, example.chosen.text, (example.id,))) <= limit]
    if not fitting:
        raise UserError(
            f"auxiliary.data {settings.data}: none of {len(examples)} answers has text of at most {limit} tokens; give "
            "records with captions, or the run folder of a build."
        )
    return fitting
