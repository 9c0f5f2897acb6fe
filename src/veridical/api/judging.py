"""`veridical.evaluate_judge`: measure judges."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from veridical.api.results import JudgeEvaluation
from veridical.api.settings import checked_settings, judge_settings, run_folder
from veridical.api.training import pairs_folder

if TYPE_CHECKING:
    from veridical.pairset import PairSet


def evaluate_judge(
    judge: Any, pairs: PairSet | str | Path, *, out: str | Path | None = None, **more: Any
) -> JudgeEvaluation:
    """Measure how often a judge or a reward prefers the better side of labelled pairs.

    Args:
        judge: a name (`veridical list judges`) or a judge's settings, such as
            `RewardModelSettings(model="runs/reward")`.
        pairs: what `build` gave, a run folder, or a file or folder of a published set.
        out: the folder to keep; the same call continues what is there. A temporary one by default.
        more: further settings of `veridical judge eval`, such as `by`, `group` or `limit`.

    Raises:
        UserError: pairs that can't be read, a judge that can't say which side is better.
    """
    from veridical.files import read_json
    from veridical.judge_eval.command import RESULTS, JudgeEvalConfig, measure

    source, held = pairs_folder(pairs)
    with run_folder(out, "judge-eval") as (where, keep):
        measure(checked_settings(JudgeEvalConfig, more, judge=judge_settings(judge), pairs=source, out=where))
        return JudgeEvaluation(where, read_json(where / RESULTS), (keep, held))
