"""The words of the picture world: 36 object classes in 6 themes, in pairs that usually come together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Theme:
    """A kind of scene. In each pair the first object is the trigger and the second its usual partner."""

    name: str
    location: str
    place: str
    pairs: tuple[tuple[str, str], ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """The six classes of this theme."""
        return tuple(name for pair in self.pairs for name in pair)


THEMES: tuple[Theme, ...] = (
    Theme("table", "on the table", "a dinner table", (("fork", "knife"), ("cup", "spoon"), ("burger", "glass"))),
    Theme("desk", "on the desk", "an office desk", (("laptop", "mouse"), ("book", "pencil"), ("phone", "clock"))),
    Theme("street", "on the street", "a city street",
          (("car", "motorcycle"), ("bus", "bicycle"), ("truck", "barrier"))),
    Theme("farm", "on the farm", "a quiet farm", (("cow", "pig"), ("horse", "sheep"), ("tractor", "rooster"))),
    Theme("beach", "on the beach", "a sunny beach", (("umbrella", "bucket"), ("boat", "shell"), ("palm", "crab"))),
    Theme("bathroom", "in the bathroom", "a clean bathroom",
          (("bathtub", "duck"), ("mirror", "toothbrush"), ("shower", "sponge"))),
)  # fmt: skip

CLASSES: tuple[str, ...] = tuple(name for theme in THEMES for name in theme.classes)

PARTNER: Mapping[str, str] = MappingProxyType(
    {a: b for theme in THEMES for pair in theme.pairs for a, b in (pair, pair[::-1])}
)

THEME_OF: Mapping[str, Theme] = MappingProxyType({name: theme for theme in THEMES for name in theme.classes})

COLOURS: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "fork": ("grey",), "knife": ("white", "grey"), "cup": ("white",), "spoon": ("grey",),
    "laptop": ("blue",), "mouse": ("white",), "book": ("red",), "pencil": ("yellow",), "phone": ("black",),
    "clock": ("white", "red"), "car": ("red",), "bus": ("blue",), "bicycle": ("grey", "blue"), "truck": ("orange",),
    "barrier": ("yellow", "black"), "cow": ("grey", "white"), "sheep": ("white", "grey"), "bucket": ("blue",),
    "boat": ("red",), "shell": ("white",), "palm": ("green",), "crab": ("orange",), "bathtub": ("white", "blue"),
    "toothbrush": ("orange",), "shower": ("grey",), "sponge": ("yellow",),
})  # fmt: skip
"""The colours of the classes whose sprites have clear ones."""

_IRREGULAR: Mapping[str, str] = MappingProxyType({"knife": "knives", "mouse": "mice", "sheep": "sheep"})


def plural(name: str) -> str:
    """The plural of a class name."""
    if name in _IRREGULAR:
        return _IRREGULAR[name]
    return name + ("es" if name.endswith(("s", "sh", "ch", "x")) else "s")


def article(name: str) -> str:
    """The indefinite article that goes before a class name."""
    return "an" if name[0] in "aeiou" else "a"
