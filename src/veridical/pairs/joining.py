"""Join sets of pairs into one: conditions, copies, shares and sizes, with everything that is left out counted.

Which pairs are drawn depends on the seed and on each pair's id alone, so that a larger subset holds the smaller ones.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from veridical.bounds import NotNegative, Positive, Seed
from veridical.errors import UserError
from veridical.pairs.conditions import Condition, parse_condition
from veridical.records import Pair

Stratum: TypeAlias = Literal["none", "construction", "variant", "chosen_source", "rejected_source", "judge", "prompt"]
Source: TypeAlias = tuple[str, Callable[[], Iterable[Pair]]]
"""A set's name, and its pairs, which are read twice."""


@dataclass(frozen=True, kw_only=True)
class MixSettings:
    """How several sets of pairs become one, or a set a part of itself."""

    weights: tuple[NotNegative, ...] = ()
    """How much of each set is taken, in their order: 1 1 for as much of one as of the other, 2 1 for twice as much of
    the first. As many pairs are taken as these shares allow without taking one twice. Left out: all of all sets."""
    size: Positive | None = None
    """Take at most so many pairs in all, drawn by the seed."""
    stratify: Stratum = "none"
    """Keep the shares of this part of the provenance, or of the prompts, in what is drawn of each set."""
    keep: tuple[str, ...] = ()
    """Take only pairs that meet all of these conditions, such as construction=bpo, judge!=gpt-4v, set=a,
    chosen_source~annotation or scores.confidence>=0.8 (see docs/data.md)."""
    copies: Literal["drop", "keep"] = "drop"
    """What becomes of a pair that has the images, prompt and answers of another one, in its set or in one before."""
    seed: Seed = 0
    """Draws the pairs."""


@dataclass(frozen=True)
class Counts:
    """What became of a set's pairs. `renamed` are those used under another id, since a set before has theirs."""

    name: str
    read: int
    left_out: Mapping[str, int]
    copies: int
    not_drawn: int
    used: int
    renamed: int


@dataclass
class _Look:
    """A set at its first reading: for the places of pairs that may be drawn, what draws them, stratum and id."""

    draws: dict[int, tuple[bytes, str, str]] = field(default_factory=dict)
    read: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    copies: int = 0


def join(sets: Sequence[Source], settings: MixSettings) -> tuple[Iterator[Pair], list[Counts]]:
    """The pairs that the settings take of some sets, set by set in their order, and what became of all.

    Each pair keeps the name of its set as the parameter `set` of its provenance. Raises UserError for settings that
    don't fit the sets, and where no pair is left.
    """
    if settings.weights and len(settings.weights) != len(sets):
        raise UserError(f"mix.weights has {len(settings.weights)} numbers for {len(sets)} sets; give one for each.")
    if settings.weights and not any(settings.weights):
        raise UserError("mix.weights are all 0; give at least one set a share.")
    looks = _first_reading(sets, settings)
    quotas = _quotas([len(look.draws) for look in looks], settings)
    ids: list[dict[int, str]] = []
    counts, taken = [], set[str]()
    for (name, _), look, quota in zip(sets, looks, quotas, strict=True):
        drawn = {place: look.draws[place][2] for place in sorted(_drawn(look, quota))}
        new = {place: _unused(own, name, taken) for place, own in drawn.items()}
        renamed = sum(new[place] != own for place, own in drawn.items())
        ids.append(new)
        left = len(look.draws) - len(new)
        counts.append(Counts(name, look.read, dict(look.left_out), look.copies, left, len(new), renamed))
    if not taken:
        raise UserError(f"mix: none of {sum(look.read for look in looks)} pairs is left; see mix.keep and mix.weights.")
    return _second_reading(sets, ids), counts


def _first_reading(sets: Sequence[Source], settings: MixSettings) -> list[_Look]:
    conditions = [parse_condition(text) for text in settings.keep]
    met: Counter[Condition] = Counter()
    seen: set[bytes] = set()
    looks = []
    for name, read in sets:
        look = _Look()
        for place, pair in enumerate(read()):
            look.read += 1
            met.update(condition for condition in conditions if condition.found(pair, name))
            if unmet := next((condition for condition in conditions if not condition.holds(pair, name)), None):
                look.left_out[unmet.text] += 1
            elif settings.copies == "drop" and (content := _content(pair)) in seen:
                look.copies += 1
            else:
                if settings.copies == "drop":
                    seen.add(content)
                draw = hashlib.sha256(f"{settings.seed}/{pair.id}".encode()).digest()[:16]
                look.draws[place] = draw, _stratum(pair, settings.stratify), pair.id
        looks.append(look)
    if absent := next((condition for condition in conditions if not met[condition]), None):
        raise UserError(f"mix.keep {absent.text}: no pair has {absent.name}; a pair has {', '.join(Condition.NAMES)}.")
    return looks


def _second_reading(sets: Sequence[Source], ids: Sequence[Mapping[int, str]]) -> Iterator[Pair]:
    for (name, read), drawn in zip(sets, ids, strict=True):
        for place, pair in enumerate(read()):
            if place in drawn:
                made = replace(pair.provenance, parameters={**pair.provenance.parameters, "set": name})
                yield replace(pair, id=drawn[place], provenance=made)


def _unused(own: str, name: str, taken: set[str]) -> str:
    """A pair's id, with its set's name where another one has it."""
    unused, number = own, 1
    while unused in taken:
        unused = f"{name}/{own}" if number == 1 else f"{name}/{own}#{number}"
        number += 1
    taken.add(unused)
    return unused


def _content(pair: Pair) -> bytes:
    images = [[one.sha256 for one in some or ()] for some in (pair.images, pair.rejected_images)]
    turns = [(turn.role, turn.text) for turn in pair.prompt]
    said = [pair.context, pair.chosen, pair.rejected, *(one.text for one in pair.others)]
    return hashlib.sha256(json.dumps([images, turns, said]).encode()).digest()[:16]


def _stratum(pair: Pair, kind: Stratum) -> str:
    if kind == "none":
        return ""
    return pair.prompt[-1].text if kind == "prompt" else str(getattr(pair.provenance, kind))


def _quotas(sizes: Sequence[int], settings: MixSettings) -> list[int]:
    """How many pairs of each set are taken."""
    if not settings.weights:
        total = min(sum(sizes), settings.size or sum(sizes))
        return _shared(total, sizes)
    whole = sum(settings.weights)
    shares = [weight / whole for weight in settings.weights]
    total = min(math.floor(size / share + 1e-9) for size, share in zip(sizes, shares, strict=True) if share)
    return _shared(min(total, settings.size or total), shares)


def _shared(total: int, shares: Sequence[float]) -> list[int]:
    """A number in whole parts, as near to the shares as can be: what is left over goes to the largest remainders."""
    whole = sum(shares)
    if not whole:
        return [0] * len(shares)
    exact = [total * share / whole for share in shares]
    parts = [math.floor(one + 1e-9) for one in exact]
    order = sorted(range(len(shares)), key=lambda place: (parts[place] - exact[place], place))
    for place in order[: total - sum(parts)]:
        parts[place] += 1
    return parts


def _drawn(look: _Look, quota: int) -> list[int]:
    """The places of so many pairs, each stratum's share of them."""
    strata: dict[str, list[int]] = {}
    for place, (_, stratum, _) in look.draws.items():
        strata.setdefault(stratum, []).append(place)
    parts = _shared(quota, [len(places) for places in strata.values()])
    return [
        place
        for places, part in zip(strata.values(), parts, strict=True)
        for place in sorted(places, key=lambda one: look.draws[one][0])[:part]
    ]
