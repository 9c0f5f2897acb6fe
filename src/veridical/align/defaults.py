"""Learning rates and weights of the default objective where none are given, by what trains and how large the model is.

For 7B the papers' rates: LoRA with alpha twice the rank at 1e-5 (mDPO; 2e-6 with alpha 256 in BPO, HA-DPO and
SENTINEL), whole language models at 5e-7 (RLHF-V, RLAIF-V). For adapters on the bundled model 1e-3, with which the
table of constructions in docs/methods.md was made. The other rates are guesses: a tenth of the adapter's for a small
whole model, and geometric means for sizes between. `benchmarks/defaults.py` measures them on the bundled model.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from veridical.align.config import AlignConfig
from veridical.objectives import dpo_nll
from veridical.objectives.base import Objective

LARGE, SMALL = 10**9, 10**8
"""Parameters from which on a model counts as large, and below which as small."""
RATES = {"adapter": (1e-3, 1e-4, 1e-5), "language": (1e-4, 7e-6, 5e-7)}
"""By what trains: the rates of small models, of those between, and of large ones."""
SMALL_DPO_NLL = {"beta": 0.3, "nll_weight": 3.0}
"""What `dpo-nll` weighs on small models: with these the bundled model keeps its recall (docs/methods.md)."""


def resolved(config: AlignConfig, model: Any) -> AlignConfig:
    """The settings with a learning rate, and with the weights of `dpo-nll` where that is the objective."""
    rate = learning_rate(model, config.train) if config.learning_rate is None else config.learning_rate
    return replace(config, learning_rate=rate, objective=_weighted(config.objective, model))


def _weighted(objective: Objective, model: Any) -> Objective:
    if not isinstance(objective, dpo_nll.DpoNll):
        return objective
    weights = SMALL_DPO_NLL if _parameters(model) < SMALL else dpo_nll.PAPER
    return replace(
        objective,
        beta=weights["beta"] if objective.beta is None else objective.beta,
        nll_weight=weights["nll_weight"] if objective.nll_weight is None else objective.nll_weight,
    )


def learning_rate(model: Any, train: str) -> float:
    """The peak rate for `train` (adapter, language, language-and-projector) on a model of this size."""
    parameters = _parameters(model)
    size = 0 if parameters < SMALL else 1 if parameters < LARGE else 2
    return RATES["adapter" if train == "adapter" else "language"][size]


def _parameters(model: Any) -> int:
    return sum(weight.numel() for weight in model.parameters())
