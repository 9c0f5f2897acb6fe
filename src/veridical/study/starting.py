"""`veridical study init`: writes a study to start from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from veridical.errors import UserError
from veridical.files import write_text

EXAMPLE = """\
# A study: what all runs have in common, what differs, and what it should answer.  veridical study FILE
title: Which pairs, and do preferences add anything?

base:
  model: bundled          # or a folder, or a name on the Hugging Face hub
  records: world:sft      # what the bundled model was last trained on; or a folder of your images with captions
  limit: 500              # records that pairs are made of
  align: {learning_rate: 1e-3, micro_batch: 16, held_out: 0}
  eval: {limit: 150}      # held-out pictures in each split of the picture world

axes:                     # a level is a value, a name with settings of its own, or a label with any settings
  construction:
    - bdhs
    - {name: bpo-image, temperature: 0.7}
    - povid
  objective:
    - {label: dpo, name: dpo, beta: 0.3, nll_weight: 3}
    - sft

design: grid              # grid, one-at-a-time, or list (with arms: [{label: ..., construction: ..., ...}])
seeds: [0, 1, 2]          # of pair data and training; seeds_of: training keeps the pairs
size_matched: true        # all sets of a seed are cut to the size of the smallest
budget_hours: 2           # refused before the first run if it would take longer

questions:                # answered first in the report, corrected for their number (correction: holm, bh or none)
  - ask: Do preferences beat fine-tuning on the same chosen answers?
    compare: {objective: [dpo, sft]}
    expect: better
  - ask: Which pairs are best for it?
    factor: construction
    at: {objective: dpo}
  - ask: Does each beat the model before training?
    compare: {objective: [dpo, base]}
    metric: recall
    better: higher
"""


@dataclass(frozen=True)
class InitConfig:
    """Write a study to start from."""

    out: Path = Path("study.yaml")
    """The file; one that is there is not written over."""


def run(config: InitConfig) -> Path:
    """Write the file and return its path. Raises UserError where there is one already."""
    if config.out.exists():
        raise UserError(f"{config.out}: is there already; give --out another name.")
    write_text(config.out, EXAMPLE)
    print(f"{config.out}: edit it, then: veridical study {config.out} --dry-run")
    return config.out
