"""What the base model reads: scenes with captions and questions, told in words, in pictures, or not at all."""

from __future__ import annotations

import random
from collections.abc import Mapping

from veridical.world.base.architecture import PATCHES
from veridical.world.base.batches import Continuation, PrefixRow, patch_labels
from veridical.world.captions import DESCRIBE, EXISTS, caption, exists_question, questions
from veridical.world.scenes import Mode, Scene, make_scene
from veridical.world.vocabulary import CLASSES, PARTNER


def draw_scenes(shares: Mapping[Mode, float], count: int, key: str) -> list[Scene]:
    """Training scenes in the given shares of modes. Keys start with "train", which no split uses."""
    modes = random.Random(f"modes/{key}").choices(list(shares), list(shares.values()), k=count)
    return [make_scene(mode, f"train-{key}-{i}") for i, mode in enumerate(modes)]


def describe(scene: Scene, rng: random.Random) -> Continuation:
    """A request for a description, and a true one."""
    return Continuation(rng.choice(DESCRIBE), caption(scene, rng))


def ask_exists(scene: Scene, rng: random.Random, count: int, near_share: float = 0.5) -> list[Continuation]:
    """Yes/no questions, as many of each answer, about present objects and about absent ones.

    A share `near_share` of the absent ones belongs to the theme; partners of present objects come first there.
    """
    present = list(scene.counts)
    absent = [name for name in CLASSES if name not in present]
    near = [PARTNER[name] for name in present if PARTNER[name] in absent]
    near += [name for name in scene.theme.classes if name in absent and name not in near]
    branches = []
    for number in range(count):
        yes = number % 2 == 0
        pool = present if yes else near[:3] if near and rng.random() < near_share else absent
        question = exists_question(rng.choice(pool), rng.randrange(len(EXISTS)))
        branches.append(Continuation(question, "Yes." if yes else "No."))
    return branches


def branches_of(scene: Scene, rng: random.Random, exists: int, near_share: float = 0.5) -> tuple[Continuation, ...]:
    """A caption, yes/no questions, and one question of another kind."""
    other = Continuation(*rng.choice(list(questions(scene, rng))))
    return describe(scene, rng), *ask_exists(scene, rng, exists, near_share), other


def picture_prefix(ids: Mapping[str, int]) -> tuple[int, ...]:
    """The ids before a question about a picture."""
    return (ids["<s>"], ids["<|user|>"], *[ids["<image>"]] * PATCHES)


def words_prefix(scene: Scene, ids: Mapping[str, int], rng: random.Random, dropped: float) -> tuple[int, ...]:
    """A picture told in words: for each patch the name of what it shows, the theme's name for background.

    A share `dropped` of the patches says nothing but background, so that one patch is not always enough.
    """
    shown = ["\u0120" + (CLASSES[k - 1] if k else scene.theme.name) for k in patch_labels(scene)]
    told = [f"\u0120{scene.theme.name}" if rng.random() < dropped else word for word in shown]
    told = [word if word in told else original for word, original in zip(told, shown, strict=True)]
    return (ids["<s>"], ids["<|user|>"], *[ids[word] for word in told])


def text_row(key: str, ids: Mapping[str, int]) -> PrefixRow:
    """A caption without any picture, as texts have it: partners are nearly always named together."""
    scene = make_scene("text", f"train-{key}")
    return PrefixRow((ids["<s>"], ids["<|user|>"]), (describe(scene, random.Random(key)),))
