"""Methods of decoding by name. Adding one means a file in this folder and a line here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from veridical.decoding.best_of_n import BestOfN
from veridical.decoding.calibration import Calibration
from veridical.decoding.opera import Opera
from veridical.errors import UserError
from veridical.registry import Own, Registry, lacks
from veridical.vlm.generation.params import Decoding

Method: TypeAlias = Decoding | Opera | BestOfN | Calibration
"""The settings of a method: contrastive ones make logits, the others search, choose among answers or weigh them."""

DECODINGS: Registry[type[Method]] = Registry(
    kind="method of decoding",
    group="veridical.decodings",
    own={
        "vcd": Own("veridical.decoding.vcd:Vcd", "contrast with a noised image", "2311.16922"),
        "vdd": Own("veridical.decoding.vdd:Vdd", "contrast with no image", "2403.05262"),
        "m3id": Own("veridical.decoding.m3id:M3id", "contrast with no image, more so in later tokens", "2403.14003"),
        "icd": Own("veridical.decoding.icd:Icd", "contrast with a disturbing instruction", "2403.18715"),
        "dola": Own("veridical.decoding.dola:Dola", "contrast with earlier layers", "2309.03883"),
        "opera": Own("veridical.decoding.opera:Opera", "beams with a penalty on over-trust", "2311.17911"),
        "best-of-n": Own("veridical.decoding.best_of_n:BestOfN", "the best of N by implicit reward", "2405.17220"),
        "calibration": Own("veridical.decoding.calibration:Calibration", "calibrated closed answers", "2403.05262"),
    },
    check=lambda made: lacks(made, ("streams", "early_layers", "logits")),
)


def answers_texts(method: Method) -> bool:
    """Whether the method has a say in texts."""
    return not isinstance(method, Calibration)


def answers_choices(method: Method) -> bool:
    """Whether the method has a say in which of several given answers is likelier."""
    return not isinstance(method, BestOfN | Opera)


def decoding_type(name: str) -> type[Method]:
    """The settings class of the method called `name`, or at that place. Raises UserError where there is none."""
    return DECODINGS.get(name)


def as_published(names: Sequence[str], also: Sequence[Method] = ()) -> tuple[Method, ...]:
    """`also`, then the methods called `names` in their published settings.

    Raises:
        UserError: an unknown name, or one that is given twice.
    """
    methods = (*also, *(decoding_type(name)() for name in names))
    taken = [method.name for method in methods]
    twice = next((name for name in taken if taken.count(name) > 1), None)
    if twice:
        raise UserError(f"the method of decoding {twice} is named twice; results go by its name.")
    return methods
