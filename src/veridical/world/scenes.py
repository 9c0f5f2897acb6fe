"""Scenes of the picture world: which objects stand where, drawn from seeded statistics.

What makes the phenomenon is a difference between two statistics. In *text* an object's usual partner is nearly
always named with it; in *pictures* it is there less often; and in `anti-bias` scenes it is left out on purpose.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from veridical.errors import UserError
from veridical.world.vocabulary import CLASSES, PARTNER, THEMES, Theme

Mode = Literal["text", "pictures", "balanced", "anti-bias", "simple"]

PARTNER_PROBABILITY: Mapping[Mode, float] = MappingProxyType({"text": 0.95, "pictures": 0.6})
"""How often a trigger comes with its partner, in captions read as text and in pictures."""

SPLITS: Mapping[str, tuple[Mode, ...]] = MappingProxyType(
    {
        "pairs": ("pictures", "anti-bias", "balanced"),
        "counterfactual": ("pictures", "anti-bias", "balanced"),
        "dev": ("pictures", "anti-bias"),
        "in-theme": ("pictures",),
        "anti-bias": ("anti-bias",),
    }
)
"""The modes that the scenes of a split alternate between. Results are reported on the last two only."""

CANVAS = 192
_SIZES = (44, 68)
_MOST_SPRITES = 6


@dataclass(frozen=True, slots=True)
class Placed:
    """One object in a scene: its centre and longer side in pixels of the canvas, and how it is drawn."""

    name: str
    x: float
    y: float
    size: float
    angle: float
    flipped: bool
    brightness: float

    @property
    def box(self) -> tuple[float, float, float, float]:
        """(x0, y0, x1, y1) in fractions of the canvas."""
        half = self.size / 2
        left, top, right, bottom = self.x - half, self.y - half, self.x + half, self.y + half
        return left / CANVAS, top / CANVAS, right / CANVAS, bottom / CANVAS


@dataclass(frozen=True, slots=True)
class Scene:
    """A picture before it is drawn. `key` is unique over all splits and seeds."""

    key: str
    theme: Theme
    mode: Mode
    objects: tuple[Placed, ...]
    background: int

    @property
    def counts(self) -> Mapping[str, int]:
        """How many of each class there are, in the order in which they were placed."""
        counts: dict[str, int] = {}
        for placed in self.objects:
            counts[placed.name] = counts.get(placed.name, 0) + 1
        return counts


def scenes(split: str, count: int, seed: int = 0) -> list[Scene]:
    """The first `count` scenes of a split. The same arguments always give the same scenes."""
    if split not in SPLITS:
        raise UserError(f"The picture world has no split {split!r}; it has {', '.join(SPLITS)}, sft and sft-unseen.")
    modes = SPLITS[split]
    return [make_scene(modes[i % len(modes)], f"{split}-{seed}-{i:05d}") for i in range(count)]


def make_scene(mode: Mode, key: str) -> Scene:
    """The scene that belongs to a mode and a key, which seeds everything in it."""
    rng = random.Random(f"{mode}/{key}")
    theme = rng.choice(THEMES)
    names = choose_names(mode, theme, rng)
    if mode not in ("text", "simple") and rng.random() < 0.2:
        names = _repeat_one(names, rng)
    return Scene(key, theme, mode, _place(names, rng), rng.randrange(1 << 30))


def scene_of(theme: str, names: Sequence[str], key: str) -> Scene:
    """A scene with these objects, as far as there is room for them; the key seeds where they stand."""
    rng = random.Random(f"scene of/{key}")
    [chosen] = [one for one in THEMES if one.name == theme]
    return Scene(key, chosen, "simple", _place(list(names)[:_MOST_SPRITES], rng), rng.randrange(1 << 30))


def choose_names(mode: Mode, theme: Theme, rng: random.Random) -> list[str]:
    """The classes of a scene in the order in which they are placed; partners follow each other."""
    if mode == "simple":
        return rng.sample(CLASSES, rng.choice((1, 2)))
    if mode == "balanced":
        names = rng.sample(theme.classes, rng.choice((1, 2, 2, 3, 3, 4)))
        return _with_stranger(_partners_together(names), theme, 0.2, rng)
    pairs = [pair if rng.random() < 0.88 else pair[::-1] for pair in rng.sample(theme.pairs, 3)]
    if mode == "anti-bias":
        kept = rng.choice((1, 2, 2, 3))
        return [pair[0] if rng.random() < 0.75 else pair[1] for pair in pairs[:kept]]
    wanted = rng.choice((2, 2, 3, 4, 4))
    names = []
    for trigger, partner in pairs:
        names.append(trigger)
        if rng.random() < PARTNER_PROBABILITY[mode]:
            names.append(partner)
        if len(names) >= wanted:
            break
    return _with_stranger(names[:4], theme, 0.06, rng)


def _partners_together(names: list[str]) -> list[str]:
    ordered: list[str] = []
    for name in names:
        if name not in ordered:
            ordered += [name, PARTNER[name]] if PARTNER[name] in names else [name]
    return ordered


def _with_stranger(names: list[str], theme: Theme, probability: float, rng: random.Random) -> list[str]:
    """Now and then one object of another theme takes the last place."""
    if rng.random() >= probability:
        return names
    stranger = rng.choice([name for name in CLASSES if name not in theme.classes])
    return [*names[:3], stranger]


def _repeat_one(names: list[str], rng: random.Random) -> list[str]:
    """One class of the scene appears two or three times."""
    extra = min(rng.choice((1, 1, 2)), _MOST_SPRITES - len(names))
    repeated = rng.choice(names)
    return [copy for name in names for copy in [name] * (1 + extra if name == repeated else 1)]


def _place(names: list[str], rng: random.Random) -> tuple[Placed, ...]:
    """Put the objects on the canvas with little overlap, smaller ones where it gets tight."""
    placed: list[Placed] = []
    for name in names:
        best: tuple[float, Placed] | None = None
        for attempt in range(40):
            size = rng.uniform(*_SIZES) * (1.0 if attempt < 25 else 0.85)
            half = size / 2
            candidate = Placed(
                name, rng.uniform(half, CANVAS - half), rng.uniform(half, CANVAS - half), size,
                rng.uniform(-15, 15), rng.random() < 0.5, rng.uniform(0.88, 1.1),
            )  # fmt: skip
            overlap = max((_overlap(candidate, other) for other in placed), default=0.0)
            if best is None or overlap < best[0]:
                best = overlap, candidate
            if overlap < 0.05:
                break
        assert best is not None
        placed.append(best[1])
    return tuple(placed)


def _overlap(a: Placed, b: Placed) -> float:
    """The share of the smaller object's square that the other one covers."""
    reach = (a.size + b.size) / 2
    width = min(reach - abs(a.x - b.x), a.size, b.size)
    height = min(reach - abs(a.y - b.y), a.size, b.size)
    return 0.0 if width <= 0 or height <= 0 else width * height / min(a.size, b.size) ** 2
