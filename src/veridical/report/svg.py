"""Matplotlib figures as inline SVG that takes its colours and fonts from the page around it."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from xml.etree import ElementTree

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours that stand for the page's CSS variables; unlikely enough to be meant as themselves.
INK, MUTED, GRID = "#010101", "#010102", "#010103"
BASE = "#010110"
SERIES = ("#010111", "#010112", "#010113", "#010114")
_VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--line",
    BASE: "--base",
    **{colour: f"--series-{number}" for number, colour in enumerate(SERIES, 1)},
}
MARKERS = ("s", "D", "^", "v", "P", "X", "*", "<", ">", "p", "h")
DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (5, 2, 1, 2)))

_SVG = "http://www.w3.org/2000/svg"
_LINK = "{http://www.w3.org/1999/xlink}href"
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "veridical",
    "font.size": 9.5,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
    "lines.markersize": 5.5,
}


@contextmanager
def axes(width: float = 4.9, height: float = 3.1) -> Iterator[tuple[Figure, Axes]]:
    """A figure of `width` x `height` inches with one plot in the page's style, closed afterwards."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.add_subplot()


def plain(text: str) -> str:
    """A label that matplotlib takes as it is: no formulas, and not hidden for a leading underscore."""
    return (
        text.replace("\\", "\\\\").replace("$", r"\$")
        if not text.startswith("_")
        else plain(f"\N{ZERO WIDTH SPACE}{text}")
    )


def to_svg(figure: Figure, label: str, prefix: str) -> str:
    """The figure as an <svg> element for a page.

    Args:
        figure: a matplotlib figure drawn in the colours of this module.
        label: what a screen reader says in its place.
        prefix: makes the ids of this figure unique on the page.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    root = ElementTree.fromstring(buffer.getvalue())
    _remove_what_acts_on_the_page(root)
    _rename_ids(root, prefix)
    for element in root.iter():
        _use_page_style(element)
    for size in ("width", "height"):
        del root.attrib[size]
    root.set("role", "img")
    root.set("aria-label", label)
    ElementTree.register_namespace("", _SVG)
    return ElementTree.tostring(root, encoding="unicode")


def _remove_what_acts_on_the_page(root: ElementTree.Element) -> None:
    """Metadata, and a style sheet whose rules would hold for everything around the figure too."""
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                parent.remove(child)


def _rename_ids(root: ElementTree.Element, prefix: str) -> None:
    """Keep only ids that something in the figure refers to, under names that are free on the page."""
    text = ElementTree.tostring(root, encoding="unicode")
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', text))
    names = {name: f"{prefix}-{number}" for number, name in zip(itertools.count(1), sorted(used), strict=False)}
    for element in root.iter():
        if "id" in element.attrib:
            if element.attrib["id"] in names:
                element.set("id", names[element.attrib["id"]])
            else:
                del element.attrib["id"]
        if _LINK in element.attrib:
            element.set("href", f"#{names[element.attrib.pop(_LINK)[1:]]}")
        if "clip-path" in element.attrib:
            name = element.attrib["clip-path"].removeprefix("url(#").removesuffix(")")
            element.set("clip-path", f"url(#{names[name]})")


def _use_page_style(element: ElementTree.Element) -> None:
    style = element.attrib.get("style")
    if style is None:
        return
    for colour, variable in _VARIABLES.items():
        style = style.replace(colour, f"var({variable})")
    element.set("style", re.sub(r"font-family: [^;]*; ?", "", style))
