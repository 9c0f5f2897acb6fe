"""What is known of each step: begun, done, failed or left out, how long it took, and what came out.

A step is done where its stamp says so of just this work on just these results of the steps before it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from veridical import files

if TYPE_CHECKING:
    from veridical.steps.step import Step, Steps

State = Literal["begun", "done", "failed", "left-out"]
FOLDER = "steps"


@dataclass(frozen=True)
class Stamp:
    """How a step ended; `said` are the last lines of one that failed, or why it was left out."""

    state: State
    key: str
    seconds: float = 0.0
    product: Mapping[str, Any] = field(default_factory=dict)
    said: str = ""
    log: str = ""


def read_stamp(out: Path, step: Step) -> Stamp | None:
    """The step's stamp; None where it never ended, or the stamp is damaged."""
    try:
        return Stamp(**files.read_json(out / FOLDER / f"{step.file}.json"))
    except (OSError, ValueError, TypeError):
        return None


def write_stamp(out: Path, step: Step, stamp: Stamp) -> None:
    """Keep how a step ended."""
    files.write_json(out / FOLDER / f"{step.file}.json", asdict(stamp))


def key_of(plan: Steps, step: Step) -> str:
    """A hash of what a step does and of what it does it with."""
    # A set of pairs depends on the sets that it is matched with; commands only wait for those in `also`.
    names = (*step.after, *step.also) if step.kind in plan.here else step.after
    before = [read_stamp(plan.out, plan.step(name)) for name in names]
    products = [stamp.product or stamp.key if stamp and stamp.state == "done" else None for stamp in before]
    text = json.dumps([step.digest(plan.out), products], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def is_done(plan: Steps, step: Step) -> bool:
    """Whether a step was done, with what is there now."""
    stamp = read_stamp(plan.out, step)
    return stamp is not None and stamp.state == "done" and stamp.key == key_of(plan, step) and step.out.exists()


def lacking(plan: Steps, step: Step) -> str:
    """The first step that this one needs and that isn't done; "" where nothing is missing."""
    for name in step.after:
        stamp = read_stamp(plan.out, plan.step(name))
        if stamp is None or stamp.state != "done":
            return name
    return ""
