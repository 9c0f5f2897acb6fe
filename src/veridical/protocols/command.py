"""`veridical eval`: measure what models make up, and what they leave out."""

from __future__ import annotations

from pathlib import Path

from veridical.protocols.config import EvalConfig, config_type
from veridical.protocols.table_formats import asked_formats

__all__ = ["EvalConfig", "config_type", "run"]


def run(config: EvalConfig) -> Path:
    """Measure, print the table, and return the run folder.

    What is already there is used again; a run that was stopped continues where it was.

    Raises:
        UserError: a model, adapter, split or setting that doesn't exist, or an `out` of other settings.
    """
    from veridical.protocols.evaluation import evaluate
    from veridical.protocols.table import as_table, show
    from veridical.protocols.table_formats import print_tables

    results = evaluate(config)
    if forms := asked_formats(config):
        print_tables([as_table(results)], forms)
        return config.out
    show(results)
    print(f"results: {config.out / 'results.json'}")
    return config.out
