"""The words of a run: how texts name objects, and which objects usually come together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from veridical.judges.lexicon import Lexicon, read_lexicon
from veridical.records import Record


@dataclass(frozen=True)
class Words:
    """A lexicon, for objects that have one their usual partner (both ways), and how texts name scenes.

    `scenes` maps a scene to its phrases ("on the table", "a dinner table"), the same kinds of phrases for every scene.
    """

    lexicon: Lexicon
    partner: Mapping[str, str]
    scenes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def find_words(name: str, world: bool, records: Iterable[Record]) -> Words | None:
    """The words that `name` stands for: `world`, `coco80`, a JSON file, or `auto`.

    `auto` is the world's for records of the world; else every annotated class is named by its name; None where nothing
    is annotated. Raises UserError for a file that is no lexicon.
    """
    if name == "world" or (name == "auto" and world):
        from veridical.world.vocabulary import PARTNER, THEMES

        return Words(world_lexicon(), PARTNER, {theme.name: (theme.location, theme.place) for theme in THEMES})
    if name == "coco80":
        return coco80()
    if name != "auto":
        return Words(*read_lexicon(Path(name)))
    names = {o.name for record in records if record.annotations for o in record.annotations.objects}
    return Words(Lexicon({name.lower(): name for name in sorted(names)}), {}) if names else None


def world_lexicon() -> Lexicon:
    """The surface forms by which texts about the picture world name its objects."""
    from veridical.world.vocabulary import CLASSES, plural

    return Lexicon({name: name for name in CLASSES}, {plural(name): name for name in CLASSES})


def coco80() -> Words:
    """COCO's 80 classes with the words that usually name them; our own list, not the one that CHAIR published."""
    with resources.as_file(resources.files("veridical.judges").joinpath("coco80.json")) as path:
        return Words(*read_lexicon(path))
