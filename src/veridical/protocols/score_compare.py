"""Several sets of answers to the same questions: each is scored, and compared with the last one by its images."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from veridical.errors import UserError
from veridical.protocols.metrics import difference
from veridical.protocols.types import Scored

COMPARED = ("metrics", "intervals", "counts", "faults", "items")
"""What of another result is beside this one."""

Hook = Callable[[Scored, Scored, int], Mapping[str, Any]]
"""A benchmark's own comparison of two results, this and the other one, such as at equal recall."""


def with_rivals(config: Any) -> tuple[Any, list[tuple[str, Any]]]:
    """The settings of the result that is shown, and those of the results that it is compared with, by name.

    Of several files of captions the last is shown; of answers, those of --answers.

    Raises:
        UserError: files are missing, or their number is no multiple.
    """
    field_types = typing.get_type_hints(type(config))
    if "captions" in field_types:
        *others, own = (*config.against, *config.captions) or (None,)
        if own is None:
            raise UserError(
                "--captions: give a file of captions; of several, the last is compared with each other one."
            )
        config = dataclasses.replace(config, captions=(own,), against=tuple(others))
        return config, [(path.stem, dataclasses.replace(config, captions=(path,))) for path in others]
    if not config.against:
        return config, []
    if "answers" not in field_types:
        raise UserError("--against: this benchmark has no other answers to compare with.")
    several = typing.get_origin(field_types["answers"]) is tuple
    size = max(len(config.answers), 1) if several else 1
    if len(config.against) % size:
        raise UserError(f"--against: {len(config.against)} files; give {size} for each model, as for --answers.")
    groups = [config.against[at : at + size] for at in range(0, len(config.against), size)]
    return config, [_rival(config, group, at, len(groups), several) for at, group in enumerate(groups)]


def compared(
    scored: Scored, others: Mapping[str, Scored], seed: int, hook: Hook | None, items: bool = True
) -> dict[str, Any]:
    """The other results, and what differs: one as `against` and `differences`, several as a list of such objects.

    Raises:
        UserError: two judges or prompts would be in one table.
    """
    comparisons = []
    for name, other in others.items():
        _same_judge(scored, other)
        theirs = other.to_json(seed, items)
        estimates = difference(scored.tally, other.tally, seed)
        comparisons.append(
            {
                "against": {"name": name, **{key: theirs[key] for key in COMPARED if key in theirs}},
                "differences": {key: [one.value, one.low, one.high] for key, one in estimates.items()},
                **(hook(scored, other, seed) if hook else {}),
            }
        )
    return comparisons[0] if len(comparisons) == 1 else {"comparisons": comparisons}


def _rival(config: Any, group: tuple[Path, ...], at: int, count: int, several: bool) -> tuple[str, Any]:
    changes: dict[str, Any] = {"answers": group if several else group[0]}
    if hasattr(config, "judgements"):
        given = config.against_judgements
        if len(given) % count:
            raise UserError(f"--against-judgements: {len(given)} files for {count} models; give each as many.")
        size = len(given) // count
        changes["judgements"] = given[at * size : (at + 1) * size]
    return group[0].stem, dataclasses.replace(config, **changes)


def _same_judge(scored: Scored, other: Scored) -> None:
    if scored.judge != other.judge:
        ours, theirs = (f"{one.get('name')} (prompt {one.get('prompt')})" for one in (scored.judge, other.judge))
        raise UserError(
            f"--against: judged by {theirs}, and this by {ours}; numbers of different judges don't compare."
        )
