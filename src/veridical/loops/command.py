"""`veridical loop`: builds pairs with the model as it is, trains on them, and so on, by rounds or by steps.

Where pairs come from during training, after the study of arXiv 2407.02477 (sections 2.2 and 2.3) and its relatives:

- online: pairs come from the policy; the reference stays the base model.
- mixed: as online, but by the toss of a coin a record gives its pairs of an earlier offline build (equation 4).
- iterative: as online, but the policy becomes the reference every round, as in RLAIF-V, SELM and CSR, or every so many
  steps.
- sapo (by steps): a moving average of the policy writes segments anew, and pairs are replayed.
- selm (by rounds): the policy's own answer joins known pairs, and a judge ranks the three.

By rounds (`rounds.py`) each round is a whole build and a whole alignment; by steps (`by_step.py`) every optimiser step
trains on pairs that the policy has just made.
"""

from __future__ import annotations

from pathlib import Path

from veridical import ranks, tracking
from veridical.loops.config import LoopConfig

__all__ = ["LoopConfig", "run"]


def run(config: LoopConfig) -> Path:
    """Run the loop and return the run folder; `adapter/` in it is the result.

    The same call continues after an interruption, to the same result. Raises UserError for settings that can't be.
    """
    tracking.require(config.report_to)
    if config.by == "step":
        from veridical.loops import by_step

        return by_step.run(config)
    ranks.require_alone("loop by rounds", "; --by step runs in several processes")
    from veridical.loops import rounds

    return rounds.run(config)
