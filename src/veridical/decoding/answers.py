"""Answers under a method of decoding, free or closed: what constructions and protocols call."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from veridical.errors import UserError
from veridical.vlm.generation.generate import generate
from veridical.vlm.generation.params import Branch, Sampled, SamplingParams

if TYPE_CHECKING:
    from torch import Tensor

    from veridical.decoding.registry import Method
    from veridical.vlm.model.loading import Vlm
    from veridical.vlm.prefix.encode import Prefix


def sample_under(
    vlm: Vlm, prefix: Prefix, branches: Sequence[Branch], sampling: SamplingParams, method: Method | None
) -> list[Sampled]:
    """As `sample`, by a method of decoding. Raises `UserError` for one that answers closed questions only."""
    from veridical.decoding.best_of_n import BestOfN, best_of_n
    from veridical.decoding.calibration import Calibration
    from veridical.decoding.opera import Opera, opera

    match method:
        case Calibration():
            raise UserError("calibration weighs closed answers (yes or no); for texts choose vdd, its counterpart.")
        case Opera():
            return opera(vlm, prefix, branches, sampling, method)
        case BestOfN():
            return best_of_n(vlm, prefix, branches, sampling, method)
        case _:
            return generate(vlm, prefix, branches, dataclasses.replace(sampling, decoding=method))


def closed_answers(vlm: Vlm, prefix: Prefix, texts: Sequence[str], method: Method | None) -> Tensor:
    """Log-probabilities (fp32) [contexts, texts] of each text's first token as the first of the answer.

    Under a contrastive method those of its logits, where a text that the cut-off leaves out has the lowest
    finite number. Raises `UserError` for best-of-n and OPERA, which choose among free answers.
    """
    import torch

    from veridical.decoding.best_of_n import BestOfN
    from veridical.decoding.calibration import Calibration, calibrate
    from veridical.decoding.opera import Opera
    from veridical.vlm.generation.contrast import encode_streams, first_logits
    from veridical.vlm.scores.scoring import first_ids, next_token_logprobs

    if method is None:
        return next_token_logprobs(vlm, prefix, texts)
    if isinstance(method, BestOfN | Opera):
        raise UserError(f"{method.name} chooses among free answers; let closed questions be answered by text.")
    with torch.no_grad():
        if isinstance(method, Calibration):
            free = [next_token_logprobs(vlm, stream, texts) for stream in encode_streams(vlm, prefix, method.streams())]
            return calibrate(next_token_logprobs(vlm, prefix, texts), free)
        logits = first_logits(vlm, prefix, method)
    log_probs: Tensor = logits.log_softmax(-1)[:, first_ids(vlm, texts)]
    return log_probs.clamp(min=torch.finfo(log_probs.dtype).min)
