"""The rewards by name. Adding one means a function and a line here; one's own is given as path/file.py:name."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from veridical.errors import UserError
from veridical.judges.interface import Detect, Kind, Rate
from veridical.registry import Own, Registry, label

if TYPE_CHECKING:
    from veridical.rl.rewards import Reward


def _own(name: str, summary: str) -> Own:
    return Own(f"veridical.rl.rewards:{name}", summary)


def wrong_with(made: Any) -> str | None:
    """What keeps something from being a reward; None where nothing does."""
    if not callable(made) or isinstance(made, type):
        return "it is no function"
    given = list(inspect.signature(made).parameters)
    return None if len(given) == 2 else f"its arguments are ({', '.join(given)}), not (answers, judging)"


REWARDS: Registry[Reward] = Registry(
    kind="reward",
    group="veridical.rewards",
    own={
        "precision": _own("precision", "share of an answer's facts that are true; nothing for saying nothing"),
        "coverage": _own("coverage", "share of the annotated objects that an answer names (recall)"),
        "length": _own("length", "0 if about as long as the reference (or `--length-words`), down to -1"),
        "chair": _own("chair", "minus the share of named objects that are not in the image (CHAIRi)"),
        "pope": _own(
            "pope",
            "1 for the right yes or no; `--questions 0.3` asks such questions about a share of the annotated records",
        ),
        "format": _own("form", "1 if the answer ends by itself, says something and repeats nothing"),
        "no-repetition": _own("no_repetition", "minus the share of repeated runs of four words"),
        "judge": _own("judge", "what the judge of `--judge.name` rates an answer at"),
        "reward-model": _own("trained", "what the reward model of `--reward-model` rates an answer at"),
    },
    check=wrong_with,
)

_ASKS: Mapping[str, Kind] = MappingProxyType({"precision": Detect, "coverage": Detect, "chair": Detect, "judge": Rate})


def weighted(given: Sequence[str]) -> dict[str, float]:
    """Names of rewards with their weights, out of `name` or `name=weight`. Raises UserError for what is neither."""
    weights: dict[str, float] = {}
    for one in given:
        name, _, number = one.rpartition("=") if "=" in one else (one, "", "1")
        try:
            weight = float(number)
        except ValueError:
            raise UserError(f"rewards: {one!r} is no reward with a weight; write it as {name}=0.5.") from None
        if not abs(weight) < float("inf"):
            raise UserError(f"rewards: the weight of {name} is {number}; it must be a finite number.")
        if name in weights:
            raise UserError(f"rewards: {name} is named twice; give each reward one weight.")
        REWARDS.get(name, "rewards")
        weights[name] = weight
    if not weights:
        raise UserError("rewards: none is named; `veridical list rewards` shows what there is.")
    return weights


def asked_of_judge(names: Sequence[str]) -> list[Kind]:
    """What the judge must answer for these rewards."""
    return list(dict.fromkeys(_ASKS[name] for name in names if name in _ASKS))


def short(name: str) -> str:
    """A reward's name in the log."""
    return label(name)
