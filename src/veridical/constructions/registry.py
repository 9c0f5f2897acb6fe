"""The constructions by name; a module is imported when its construction is asked for."""

from __future__ import annotations

import difflib
import importlib
import typing
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from veridical.constructions.protocol import Steps
from veridical.errors import UserError
from veridical.judges.interface import Kind

CONSTRUCTIONS: Mapping[str, str] = MappingProxyType(
    {
        "bdhs": "veridical.constructions.bdhs:bdhs",
        "bpo-image": "veridical.constructions.bpo_image:bpo_image",
        "bpo-inject": "veridical.constructions.bpo_inject:bpo_inject",
        "caption-edit": "veridical.constructions.caption_edit:caption_edit",
        "dropout-ntp": "veridical.constructions.dropout_ntp:dropout_ntp",
        "ha-dpo": "veridical.constructions.ha_dpo:ha_dpo",
        "povid": "veridical.constructions.povid:povid",
        "ranked": "veridical.constructions.ranked:ranked",
        "re-align": "veridical.constructions.re_align:re_align",
        "sapo": "veridical.constructions.sapo:sapo",
        "self-correct": "veridical.constructions.self_correct:self_correct",
        "sentinel": "veridical.constructions.sentinel:sentinel",
        "spa": "veridical.constructions.spa:spa",
    }
)


def construction(name: str) -> Callable[..., Steps]:
    """The construction of that name: a function of (record, settings, seed). Raises UserError for an
    unknown name."""
    if name not in CONSTRUCTIONS:
        near = difflib.get_close_matches(name, CONSTRUCTIONS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(CONSTRUCTIONS)}."
        raise UserError(f"no construction {name!r}; {hint}")
    module, _, function = CONSTRUCTIONS[name].partition(":")
    found: Callable[..., Steps] = getattr(importlib.import_module(module), function)
    return found


def settings_type(name: str) -> type[Any]:
    """The settings class of a construction, which is the type of its second argument."""
    found: type[Any] = typing.get_type_hints(construction(name))["settings"]
    return found


def judge_needs(name: str, settings: Any) -> frozenset[Kind]:
    """The kinds of requests that a construction may make of a judge: what `judge_needs(settings)` in its file says.

    A construction without that function asks no judge.
    """
    module = importlib.import_module(CONSTRUCTIONS[name].partition(":")[0])
    needs: Callable[[Any], tuple[Kind, ...]] = getattr(module, "judge_needs", lambda _: ())
    return frozenset(needs(settings))


def why_adapter(name: str) -> str:
    """Why a construction only makes sense for a model with an adapter, as `NEEDS_ADAPTER` in its file says; else ""."""
    module = importlib.import_module(CONSTRUCTIONS[name].partition(":")[0])
    return getattr(module, "NEEDS_ADAPTER", "")
