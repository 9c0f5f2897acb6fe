"""The protocols that `veridical eval` runs, by name; a module is imported when one of its protocols is chosen."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from veridical.errors import UserError
from veridical.protocols.benchmarks.registry import BENCHMARKS
from veridical.registry import Own, Registry, label

if TYPE_CHECKING:
    from veridical.protocols.eval_task import Task
    from veridical.protocols.sources import Pictures

AUTO = "auto"
"""What there is decides which protocols are run; see `chosen`."""

PICTURES: Mapping[str, str] = {
    "world-chair": "veridical.protocols.picture_tasks:chair_task",
    "world-pope": "veridical.protocols.picture_tasks:pope_task",
    "world-shr": "veridical.protocols.picture_tasks:shr_task",
    "world-mme": "veridical.protocols.picture_tasks:mme_task",
    "world-skills": "veridical.protocols.picture_tasks:skills_task",
    "chair-captions": "veridical.protocols.reference_captions:captions_task",
    "chair-detector": "veridical.protocols.detected_objects:detected_task",
    "judged-sentences": "veridical.protocols.judged_sentences:judged_task",
    "side-by-side": "veridical.protocols.side_by_side:side_by_side_task",
}
"""Protocols on pictures (`--records`): a function from pictures and settings to a task. Those called world-... need
annotated ones."""
AFTER_ALL = ("chair-detector", "judged-sentences", "side-by-side")
"""Those whose questions depend on what all models of an evaluation say."""
_PICTURES = {
    "world-chair": "CHAIR, with recall, on annotated pictures",
    "world-pope": "POPE on annotated pictures: is an object there, yes or no",
    "world-shr": "SHR by the oracle: which sentences of a description are hallucinated",
    "world-mme": "existence, count, position, colour and scene in MME's form",
    "world-skills": "the picture world's own questions: how many, on which side, which place",
    "chair-captions": "CHAIR by reference captions, where there are no annotations",
    "chair-detector": "CHAIR by what an object detector, or another judge, sees in the pictures",
    "judged-sentences": "which sentences of a description a judge finds wrong",
    "side-by-side": "the models' own answers beside each other",
}

PROTOCOLS: Registry[Any] = replace(
    BENCHMARKS, own={**{name: Own(target, _PICTURES[name]) for name, target in PICTURES.items()}, **BENCHMARKS.own}
)
"""Both sorts under their names."""


def block_name(name: str) -> str:
    """The name of the setting that holds a published benchmark's files and limits in `veridical eval`."""
    return label(name).replace("-", "_")


def check_names(names: tuple[str, ...]) -> None:
    """Raise UserError for an unknown protocol, or one named twice."""
    for name in names:
        if name == AUTO:
            if len(names) > 1:
                raise UserError("--protocols: auto chooses all of them; leave it out beside others")
            continue
        if name not in PICTURES:
            PROTOCOLS.get(name, "--protocols")
        if names.count(name) > 1:
            raise UserError(f"--protocols: {name} is named twice")


class PictureSettings(Protocol):
    """What the settings of `veridical eval` say of pictures and protocols."""

    @property
    def protocols(self) -> tuple[str, ...]:
        """The protocols' names, or auto."""

    @property
    def records(self) -> Any:
        """Where the pictures are."""

    @property
    def judge(self) -> Any:
        """Who judges, with a name."""


def chosen(config: PictureSettings, pictures: Pictures | None) -> tuple[str, ...]:
    """The protocols of a run; `auto` takes what the records allow.

    Annotated pictures are measured by their annotations, others by their reference captions if they have some, and by
    the models' own answers; a judge adds what it can say.
    """
    if config.protocols != (AUTO,) or pictures is None:
        return config.protocols
    by_judge = {"none": (), "detector": ("chair-detector",)}
    judged = by_judge.get(config.judge.name, ("judged-sentences",))
    if pictures.annotated:
        return ("world-chair", "world-pope", *judged)
    return (*(("chair-captions",) if pictures.references else ()), *judged, "side-by-side")


def picture_task(name: str, pictures: Pictures, config: PictureSettings) -> Task:
    """The protocol `name` on pictures. Raises UserError where these lack what it needs."""
    if name.startswith("world-"):
        pictures.require_annotated(str(config.records))
    module, _, function = PICTURES[name].partition(":")
    make: Callable[[Any, Any], Task] = getattr(importlib.import_module(module), function)
    return make(pictures, config)
