"""Objectives by name. Adding one means a file in this folder and a line here."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping

from veridical.errors import UserError
from veridical.objectives.base import Objective

OBJECTIVES: Mapping[str, str] = {
    "dpo-nll": "veridical.objectives.dpo_nll:DpoNll",
    "dpo": "veridical.objectives.dpo:Dpo",
    "sft": "veridical.objectives.sft:Sft",
    "ddpo": "veridical.objectives.ddpo:Ddpo",
    "dpop": "veridical.objectives.dpop:Dpop",
    "hinge": "veridical.objectives.hinge:Hinge",
    "ipo": "veridical.objectives.ipo:Ipo",
    "mdpo": "veridical.objectives.mdpo:Mdpo",
    "mpo": "veridical.objectives.mpo:Mpo",
    "orpo": "veridical.objectives.orpo:Orpo",
    "povid": "veridical.objectives.povid:Povid",
    "rpo": "veridical.objectives.rpo:Rpo",
    "selm": "veridical.objectives.selm:Selm",
    "simpo": "veridical.objectives.simpo:Simpo",
    "spa": "veridical.objectives.spa:Spa",
    "svco": "veridical.objectives.svco:Svco",
    "vdpo": "veridical.objectives.vdpo:Vdpo",
}


def objective_type(name: str) -> type[Objective]:
    """The settings class of the objective called `name`. Raises UserError for a name that is not there."""
    if name not in OBJECTIVES:
        near = difflib.get_close_matches(name, OBJECTIVES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(OBJECTIVES)}."
        raise UserError(f"objective.name: no objective {name!r}; {hint}")
    module, attribute = OBJECTIVES[name].split(":")
    found: type[Objective] = getattr(importlib.import_module(module), attribute)
    return found
