"""Methods of decoding by name. Adding one means a file in this folder and a line here."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TypeAlias

from veridical.decoding.best_of_n import BestOfN
from veridical.decoding.calibration import Calibration
from veridical.decoding.opera import Opera
from veridical.errors import UserError
from veridical.vlm.generation.params import Decoding

Method: TypeAlias = Decoding | Opera | BestOfN | Calibration
"""The settings of a method: contrastive ones make logits, the others search, choose among answers or weigh them."""

DECODINGS: Mapping[str, str] = MappingProxyType(
    {
        "vcd": "veridical.decoding.vcd:Vcd",
        "vdd": "veridical.decoding.vdd:Vdd",
        "m3id": "veridical.decoding.m3id:M3id",
        "icd": "veridical.decoding.icd:Icd",
        "dola": "veridical.decoding.dola:Dola",
        "opera": "veridical.decoding.opera:Opera",
        "best-of-n": "veridical.decoding.best_of_n:BestOfN",
        "calibration": "veridical.decoding.calibration:Calibration",
    }
)


def answers_texts(method: Method) -> bool:
    """Whether the method has a say in texts."""
    return not isinstance(method, Calibration)


def answers_choices(method: Method) -> bool:
    """Whether the method has a say in which of several given answers is likelier."""
    return not isinstance(method, BestOfN | Opera)


def decoding_type(name: str) -> type[Method]:
    """The settings class of the method called `name`. Raises UserError for a name that is not there."""
    if name not in DECODINGS:
        near = difflib.get_close_matches(name, DECODINGS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(DECODINGS)}."
        raise UserError(f"no method of decoding {name!r}; {hint}")
    module, attribute = DECODINGS[name].split(":")
    found: type[Method] = getattr(importlib.import_module(module), attribute)
    return found


def as_published(names: Sequence[str], also: Sequence[Method] = ()) -> tuple[Method, ...]:
    """`also`, then the methods called `names` in their published settings.

    Raises:
        UserError: a name that is not there, or one that is there twice.
    """
    found = (*also, *(decoding_type(name)() for name in names))
    taken = [method.name for method in found]
    twice = next((name for name in taken if taken.count(name) > 1), None)
    if twice:
        raise UserError(f"the method of decoding {twice} is named twice; results go by its name.")
    return found
