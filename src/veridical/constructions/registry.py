"""The constructions by name; a module is imported when its construction is asked for.

Adding one means a file in this folder and a line here.
"""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Callable, Iterable
from dataclasses import fields, is_dataclass, replace
from typing import Any

from veridical.abilities import Ability
from veridical.constructions.protocol import Steps
from veridical.errors import UserError
from veridical.judges.interface import Kind
from veridical.registry import Own, Registry


def _own(module: str, summary: str, source: str) -> Own:
    return Own(f"veridical.constructions.{module}:{module}", summary, source)


def wrong_with(made: Any) -> str | None:
    """What keeps something from being a construction; None where nothing does."""
    if not callable(made) or isinstance(made, type):
        return "it is no function"
    if not inspect.isgeneratorfunction(inspect.unwrap(made)):
        return "it yields no request; a construction is a generator function (see veridical.constructions.protocol)"
    given = list(inspect.signature(made).parameters)
    if given[:3] != ["record", "settings", "seed"]:
        return f"its arguments are ({', '.join(given)}), not (record, settings, seed)"
    settings = typing.get_type_hints(made).get("settings")
    if not isinstance(settings, type) or not is_dataclass(settings):
        return "the type of its argument `settings` is no dataclass"
    try:
        settings()
    except TypeError as error:
        return f"its settings have no defaults ({error})"
    return None


CONSTRUCTIONS: Registry[Callable[..., Steps]] = Registry(
    kind="construction",
    group="veridical.constructions",
    own={
        "balanced-correction": _own(
            "balanced_correction",
            "descriptions and their corrections, with pairs against saying less",
            "ours, after HA-DPO",
        ),
        "bdhs": _own("bdhs", "sentences completed with most image tokens masked", "BDHS, 2407.02477"),
        "bpo-image": _own("bpo_image", "answers to a weakened image", "BPO, 2403.08730"),
        "bpo-inject": _own("bpo_inject", "errors injected into the reference", "BPO, 2403.08730"),
        "caption-edit": _own("caption_edit", "a few words of a caption edited, kept as spans", "RLHF-V, 2312.00849"),
        "counterfactual": _own("counterfactual", "two images that differ in one thing, mirrored", "SymMPO, 2506.11712"),
        "dropout-ntp": _own("dropout_ntp", "the answer's beginning, continued without the image", "MPO, 2411.10442"),
        "ha-dpo": _own("ha_dpo", "descriptions, detected, corrected and restyled", "HA-DPO, 2311.16839"),
        "opa-dpo": _own("opa_dpo", "reference and corrected own answer over the own answer", "OPA-DPO, 2501.09695"),
        "povid": _own("povid", "plausible errors put into the reference", "POVID, 2402.11411"),
        "ranked": _own(
            "ranked", "samples ranked by a judge", "VLFeedback 2312.10665, RLAIF-V 2405.17220, CSR 2405.14622"
        ),
        "re-align": _own("re_align", "segments completed on a similar image", "Re-Align, 2502.13146"),
        "sapo": _own("sapo", "a segment of the chosen answer written again", "SAPO, 2405.20830"),
        "self-correct": _own("self_correct", "descriptions rewritten until no error is found", "AVES-DPO, 2604.24395"),
        "sentinel": _own("sentinel", "single sentences after a clean context", "SENTINEL, 2507.12455"),
        "tpr": _own("tpr", "each topic at its best and at its worst", "TPR-CL, 2411.17265"),
        "spa": _own("spa", "the model's own answers, labelled by its implicit reward", "SPA, 2406.04412"),
    },
    check=wrong_with,
)


def construction(name: str) -> Callable[..., Steps]:
    """The construction of that name or at that place: a function of (record, settings, seed).

    Raises UserError where there is none.
    """
    return CONSTRUCTIONS.get(name)


def settings_type(name: str) -> type[Any]:
    """The settings class of a construction, which is the type of its second argument."""
    settings: type[Any] = typing.get_type_hints(construction(name))["settings"]
    return settings


def judge_needs(name: str, settings: Any) -> frozenset[Kind]:
    """The kinds of requests that a construction may make of a judge: what `judge_needs(settings)` in its file says.

    A construction without that function asks no judge.
    """
    needs: Callable[[Any], tuple[Kind, ...]] = getattr(_module(name), "judge_needs", lambda _: ())
    return frozenset(needs(settings))


def without(name: str, settings: Any, kinds: Iterable[Kind]) -> str:
    """How to have a construction ask nothing of some kinds, as a sentence; "" where no settings do that."""
    lacking, flags = frozenset(kinds), []
    for field in fields(settings):
        value = getattr(settings, field.name)
        if not isinstance(value, int) or not value:
            continue  # a number or a switch that is on may be turned off
        try:
            less = replace(settings, **{field.name: type(value)(0)})
        except UserError:
            continue
        if lacking & judge_needs(name, settings) - judge_needs(name, less):
            word = field.name.replace("_", "-")
            flags.append(f"--settings.no-{word}" if isinstance(value, bool) else f"--settings.{word} 0")
            settings = less
    return f" To do without: {' '.join(flags)}." if flags and not lacking & judge_needs(name, settings) else ""


def model_needs(name: str, settings: Any) -> frozenset[Ability] | None:
    """What a construction may ask of the model: what `model_needs(settings)` in its file says, or None without one."""
    needs: Callable[[Any], frozenset[Ability]] | None = getattr(_module(name), "model_needs", None)
    return None if needs is None else frozenset(needs(settings))


def retrieves(name: str) -> bool:
    """Whether a construction looks at all records of a build, as `RETRIEVES` in its file says."""
    return bool(getattr(_module(name), "RETRIEVES", False))


def why_adapter(name: str) -> str:
    """Why a construction only makes sense for a model with an adapter, as `NEEDS_ADAPTER` in its file says; else ""."""
    return getattr(_module(name), "NEEDS_ADAPTER", "")


def _module(name: str) -> Any:
    return sys.modules[construction(name).__module__]
