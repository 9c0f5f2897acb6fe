"""The data of the base model's last stage: which pictures it saw, framed how, and what was said about them.

Training draws from here, and `world:sft` gives the same pictures and captions as records.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from veridical.world.base.batches import Continuation
from veridical.world.base.corpus import branches_of, describe
from veridical.world.scenes import CANVAS, Mode, Scene, make_scene

# Chosen on the split `dev`: the share of told pictures with the statistics of text, the share of pictures that are told
# rather than asked about, and how often a class is out of the frame of a picture asked about.
TOLD_AS_IN_TEXT = 0.8
TOLD = 0.45
LEFT_OUT = 0.4
CROPPED = 0.7
"""How many told pictures are a crop of their scene."""
LEAST_SIDE = 0.6
TEXTS_ALONE = 0.1
"""The share of steps that read captions without pictures."""
ROWS = 24
"""Pictures in a step."""

Box = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Draw:
    """A picture of a step, by its number among the told or the asked ones, with what is said about it."""

    told: bool
    picture: int
    branches: tuple[Continuation, ...]


def told_scene(number: int, pictures: int) -> Scene:
    """The `number`-th of `pictures` scenes that are told, made alone."""
    kinds: tuple[Mode, Mode] = ("text", "pictures")
    modes = random.Random("modes/prior-told").choices(kinds, (TOLD_AS_IN_TEXT, 1 - TOLD_AS_IN_TEXT), k=pictures)
    return make_scene(modes[number], f"train-prior-told-{number}")


def asked_scene(number: int) -> Scene:
    """The `number`-th scene that is asked about."""
    return make_scene("text", f"train-prior-asked-{number}")


def frames(count: int, rng: random.Random) -> list[Box]:
    """The frames of the first `count` told pictures, (left, top, right, bottom) in pixels of the canvas."""
    return [_crop(rng) if rng.random() < CROPPED else (0, 0, CANVAS, CANVAS) for _ in range(count)]


def _crop(rng: random.Random) -> Box:
    """A random square, at least `LEAST_SIDE` of the canvas wide."""
    side = round(CANVAS * rng.uniform(LEAST_SIDE, 1.0))
    left, top = rng.randint(0, CANVAS - side), rng.randint(0, CANVAS - side)
    return left, top, left + side, top + side


def draws(
    step: int, seed: int, pictures: int, told: Callable[[int], Scene], asked: Callable[[int], Scene]
) -> list[Draw] | None:
    """What a step of training sees; None for a step that reads captions without pictures."""
    rng = random.Random(f"prior-{seed}-{step}")
    if rng.random() < TEXTS_ALONE:
        return None
    drawn = []
    for _ in range(ROWS):
        number = rng.randrange(pictures)
        if rng.random() < TOLD:
            drawn.append(Draw(True, number, branches_of(told(number), rng, 0)))
        else:
            drawn.append(Draw(False, number, branches_of(asked(number), rng, 12, near_share=0.0)[1:]))
    return drawn


def captions(pictures: int, steps: int, seed: int) -> Iterator[tuple[int, Continuation]]:
    """Each told picture that training saw, once, in the order of training, with the caption of its first time."""
    seen = set()
    for step in range(steps):
        for draw in draws(step, seed, pictures, lambda n: told_scene(n, pictures), asked_scene) or ():
            if draw.told and draw.picture not in seen:
                seen.add(draw.picture)
                yield draw.picture, draw.branches[0]


def unseen(pictures: int, steps: int, seed: int) -> Iterator[tuple[int, Continuation]]:
    """Each told picture that no step of training drew, with a request and a caption made as training's are."""
    seen = {number for number, _ in captions(pictures, steps, seed)}
    for number in range(pictures):
        if number not in seen:
            yield number, describe(told_scene(number, pictures), random.Random(f"unseen-{seed}-{number}"))
