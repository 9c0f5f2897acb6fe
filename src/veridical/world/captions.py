"""The grammar of the picture world: scenes to captions, captions back to what they say, and questions.

A caption is written from a `CaptionPlan` and can be read back into it, so a caption can be corrected by changing its
plan: the style stays, word for word, and only the objects change.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from veridical.world.scenes import CANVAS, Scene
from veridical.world.vocabulary import CLASSES, THEMES, article, plural

DESCRIBE = (
    "Describe this image.",
    "Describe this image in detail.",
    "What do you see in this picture?",
    "What is in the image?",
)
EXISTS = (
    "Is there {a} {name} in the image?",
    "Can you see {a} {name}?",
    "Does the picture show {a} {name}?",
)
NUMBERS = ("zero", "one", "two", "three")

FIRST = (
    "There {is} {list} {location}.",
    "This is a picture of {list} {location}.",
    "{List} {are} {location}.",
    "The picture shows {list} {location}.",
    "I can see {list} {location}.",
)
SECOND = ("There {is} also {list}.", "I can also see {list}.", "{List} {are} nearby.")
THIRD = ("It looks like {place}.", "The scene is {place}.")


@dataclass(frozen=True, slots=True)
class PlannedSentence:
    """A template and the objects it names, as (class, how many)."""

    template: str
    items: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class CaptionPlan:
    """What a caption says, before wording: its theme by name and its sentences."""

    theme: str
    sentences: tuple[PlannedSentence, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The classes named, in order."""
        return tuple(name for sentence in self.sentences for name, _ in sentence.items)


def plan(scene: Scene, rng: random.Random) -> CaptionPlan:
    """A plan of one to three sentences that names every object of a scene once, in the usual order.

    The usual order is the theme's own, in which partners stand side by side; strangers come last.
    """
    counts = scene.counts
    order = [*scene.theme.classes, *(name for name in CLASSES if name not in scene.theme.classes)]
    return plan_names(scene.theme.name, {name: counts[name] for name in order if name in counts}, rng)


def plan_names(theme: str, counts: Mapping[str, int], rng: random.Random) -> CaptionPlan:
    """A plan that names the given classes in the given order."""
    items = tuple(counts.items())
    split = len(items) if len(items) == 1 or rng.random() < 0.5 else rng.randint(1, len(items) - 1)
    sentences = [PlannedSentence(rng.choice(FIRST), items[:split])]
    if items[split:]:
        sentences.append(PlannedSentence(rng.choice(SECOND), items[split:]))
    if rng.random() < 0.3:
        sentences.append(PlannedSentence(rng.choice(THIRD)))
    return CaptionPlan(theme, tuple(sentences))


def caption(scene: Scene, rng: random.Random) -> str:
    """A caption that names every object of a scene, in varied wording."""
    return render(plan(scene, rng))


def render(plan: CaptionPlan) -> str:
    """The caption that words a plan."""
    theme = next(theme for theme in THEMES if theme.name == plan.theme)
    return " ".join(_word(s, theme.location, theme.place) for s in plan.sentences)


def _word(sentence: PlannedSentence, location: str, place: str) -> str:
    phrases = [f"{article(n)} {n}" if k == 1 else f"{NUMBERS[k]} {plural(n)}" for n, k in sentence.items]
    listed = phrases[-1] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}" if phrases else ""
    several = sum(count for _, count in sentence.items) > 1
    return sentence.template.format(
        list=listed,
        List=listed[:1].upper() + listed[1:],
        location=location,
        place=place,
        # "There is" agrees with the first thing listed, a leading list with the whole of it.
        **{"is": "are" if sentence.items and sentence.items[0][1] > 1 else "is"},
        are="are" if several else "is",
    )


def parse(text: str) -> CaptionPlan | None:
    """The plan that a caption words, or None where the text is not of this grammar.

    `render(parse(text)) == text` for every text that parses.
    """
    parts = re.findall(r"[^.]+\.", text.strip())
    if not 1 <= len(parts) <= 3 or "".join(parts) != text.strip():
        return None
    theme: str | None = None
    sentences: list[PlannedSentence] = []
    for position, part in enumerate(parts):
        read = _read_sentence(part.strip(), FIRST if position == 0 else SECOND if position == 1 else THIRD)
        if read is None and position == 1 and len(parts) == 2:
            read = _read_sentence(part.strip(), THIRD)
        if read is None:
            return None
        sentence, named_theme = read
        if named_theme and theme and named_theme != theme:
            return None
        theme = theme or named_theme
        sentences.append(sentence)
    if theme is None:
        return None
    plan = CaptionPlan(theme, tuple(sentences))
    return plan if render(plan) == text.strip() else None


def _read_sentence(text: str, templates: Sequence[str]) -> tuple[PlannedSentence, str | None] | None:
    for template in templates:
        match = re.fullmatch(_pattern(template), text)
        if match is None:
            continue
        groups = match.groupdict()
        items = _read_list(groups["list"]) if groups.get("list") else ()
        if items is None:
            continue
        return PlannedSentence(template, items), theme_of(groups.get("where") or "")
    return None


def _pattern(template: str) -> str:
    pattern = re.escape(template).replace(r"\{", "{").replace(r"\}", "}")
    for slot in ("{list}", "{List}"):
        pattern = pattern.replace(slot, "(?P<list>.+?)")
    for slot, values in (("{location}", [t.location for t in THEMES]), ("{place}", [t.place for t in THEMES])):
        pattern = pattern.replace(slot, f"(?P<where>{'|'.join(values)})")
    return pattern.replace("{is}", "(?:is|are)").replace("{are}", "(?:is|are)")


def _read_list(text: str) -> tuple[tuple[str, int], ...] | None:
    items = []
    for phrase in re.split(r", | and ", text):
        item = read_phrase(phrase)
        if item is None:
            return None
        items.append(item)
    return tuple(items)


def read_phrase(phrase: str) -> tuple[str, int] | None:
    """What a noun phrase says, "two cups" as ("cup", 2); None for a phrase that is not of this grammar."""
    return _phrases().get(phrase[:1].lower() + phrase[1:])


def theme_of(phrase: str) -> str | None:
    """The theme that a location or a place belongs to, by name."""
    return next((theme.name for theme in THEMES if phrase in (theme.location, theme.place)), None)


@cache
def _phrases() -> Mapping[str, tuple[str, int]]:
    """Every noun phrase of the grammar and what it says."""
    single = {f"{article(name)} {name}": (name, 1) for name in CLASSES}
    return single | {f"{NUMBERS[k]} {plural(name)}": (name, k) for name in CLASSES for k in (2, 3)}


def exists_question(name: str, wording: int = 0) -> str:
    """Whether an object is there, asked in one of three wordings; the first is POPE's."""
    return EXISTS[wording].format(a=article(name), name=name)


def questions(scene: Scene, rng: random.Random) -> Iterator[tuple[str, str]]:
    """Count, position and place questions about a scene with their answers."""
    counts = scene.counts
    name = rng.choice(list(counts))
    yield f"How many {plural(name)} are there?", f"{NUMBERS[counts[name]].capitalize()}."
    single = [o for o in scene.objects if counts[o.name] == 1 and abs(o.x / CANVAS - 0.5) > 0.08]
    if single:
        placed = rng.choice(single)
        side = "left" if placed.x < CANVAS / 2 else "right"
        yield f"Where is the {placed.name}?", f"On the {side}."
    yield "What place is this?", f"{scene.theme.place[:1].upper()}{scene.theme.place[1:]}."
