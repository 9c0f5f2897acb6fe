"""veridical: make vision-language models say only what they see.

    import veridical as vd

    vlm = vd.load("bundled")
    pairs = vd.build("bdhs", records="photos/", model=vlm)
    run = vd.align(pairs, model=vlm, objective=vd.objectives.Dpo(beta=0.1))
    results = vd.evaluate([vlm, run])
    vd.report([pairs, run, results]).save("report.html")

Every name here is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from veridical import objectives, protocols, testing
    from veridical.api import align, build, evaluate, evaluate_judge, load, report, rl, score, study, wrap
    from veridical.authoring import construction, decoding, judge, objective, protocol
    from veridical.errors import UserError
    from veridical.judges.interface import Findings
    from veridical.pairset import PairSet
    from veridical.protocols.statistics import Estimate
    from veridical.records import ImageFile, Message, Pair, Record, Rejection
    from veridical.vlm.images.views import View

__version__ = "0.1.0"

__all__ = [
    "Estimate",
    "Findings",
    "ImageFile",
    "Message",
    "Pair",
    "PairSet",
    "Record",
    "Rejection",
    "UserError",
    "View",
    "align",
    "build",
    "construction",
    "decoding",
    "evaluate",
    "evaluate_judge",
    "judge",
    "load",
    "objective",
    "objectives",
    "protocol",
    "protocols",
    "report",
    "rl",
    "score",
    "study",
    "testing",
    "wrap",
]

_WHERE = {
    **dict.fromkeys(("build", "evaluate", "evaluate_judge", "load", "score", "wrap"), "veridical.api"),
    **dict.fromkeys(("construction", "objective", "judge", "protocol"), "veridical.authoring"),
    **dict.fromkeys(("ImageFile", "Message", "Pair", "Record", "Rejection"), "veridical.records"),
    "PairSet": "veridical.pairset",
    "UserError": "veridical.errors",
    "Findings": "veridical.judges.interface",
    "Estimate": "veridical.protocols.statistics",
    "View": "veridical.vlm.images.views",
}


def __getattr__(name: str) -> Any:
    # `align`, `rl`, `report`, `study` and `decoding` are packages that can be called.
    if name in ("align", "decoding", "objectives", "protocols", "report", "rl", "study", "testing"):
        return importlib.import_module(f"veridical.{name}")
    if name not in _WHERE:
        raise AttributeError(f"module 'veridical' has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_WHERE[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
