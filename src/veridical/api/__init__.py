"""What `import veridical` offers: the commands as functions over objects, in memory or in run folders.

A run folder is kept where `out` names one; else it is temporary, and goes with the object that was returned. All
raise UserError for what a user can mend.
"""

from veridical.api.building import build
from veridical.api.evaluation import evaluate
from veridical.api.judging import evaluate_judge
from veridical.api.models import load, wrap
from veridical.api.reporting import report
from veridical.api.results import Evaluation, JudgeEvaluation, Report, Run, Scores, StudyResult
from veridical.api.scoring import score
from veridical.api.studies import study
from veridical.api.training import align, rl

__all__ = [
    "Evaluation",
    "JudgeEvaluation",
    "Report",
    "Run",
    "Scores",
    "StudyResult",
    "align",
    "build",
    "evaluate",
    "evaluate_judge",
    "load",
    "report",
    "rl",
    "score",
    "study",
    "wrap",
]
