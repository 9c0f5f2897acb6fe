"""Vega-Lite charts in a page: as SVG in the page's colours, and as specifications that its script makes interactive.

The SVG is what is seen without the script and on paper. Colours are those of the page's style sheet: a chart is drawn
in colours that stand for its variables, which are written in their place.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

# Unlikely enough to be meant as themselves.
INK, MUTED, GRID, BASE, GOOD, BAD = "#010101", "#010102", "#010103", "#010110", "#010121", "#010122"
SERIES = ("#010111", "#010112", "#010113", "#010114")
VARIABLES: Mapping[str, str] = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--line",
    BASE: "--base",
    GOOD: "--good",
    BAD: "--bad",
    **{colour: f"--series-{number}" for number, colour in enumerate(SERIES, 1)},
}
SHAPES = ("square", "diamond", "triangle-up", "triangle-down", "cross", "triangle-left", "triangle-right")
WIDTH = 460
STYLE: Mapping[str, Any] = {
    "background": None,
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": MUTED, "titleColor": MUTED, "gridColor": GRID, "domainColor": GRID, "tickColor": GRID,
        "labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal", "labelLimit": 220, "gridOpacity": 0.7,
    },
    "legend": {"labelColor": INK, "titleColor": MUTED, "labelFontSize": 12, "titleFontWeight": "normal",
               "labelLimit": 240, "orient": "bottom", "columns": 2, "symbolLimit": 60},
    "text": {"color": INK, "fontSize": 12},
}  # fmt: skip


@dataclass(frozen=True)
class VegaChart:
    """A chart with the sentence below it; `spec` is Vega-Lite."""

    id: str
    spec: Mapping[str, Any]
    label: str
    """What a screen reader says in its place."""
    caption: str

    @property
    def svg(self) -> Markup:
        """The chart as an <svg> element."""
        return static(json.dumps(self.spec, sort_keys=True), self.label)


def finished(chart: Any, name: str, label: str, caption: str) -> VegaChart:
    """An Altair chart in the page's style."""
    spec = chart.to_dict()
    spec["config"] = dict(STYLE)
    spec.pop("$schema", None)
    return VegaChart(name, spec, label, caption)


@functools.lru_cache(maxsize=64)
def static(spec: str, label: str) -> Markup:
    """A specification, as JSON, drawn as SVG."""
    import vl_convert

    svg: str = vl_convert.vegalite_to_svg(json.loads(spec))
    head, size, rest = _opened(svg)
    body = re.sub("|".join(VARIABLES), lambda match: f"var({VARIABLES[match[0]]})", rest)
    # An id would be there twice where a page holds two charts.
    body = re.sub(
        r'\bid="(?=[^"]*")|url\(#', lambda match: match[0] + hashlib.sha256(spec.encode()).hexdigest()[:8], body
    )
    return Markup(f'{head} role="img" aria-label="{Markup.escape(label)}" viewBox="{size}">{body}')


def _opened(svg: str) -> tuple[str, str, str]:
    """The beginning of the <svg> tag, its view box, and everything after the tag."""
    end = svg.index(">")
    box = re.search(r'viewBox="([^"]+)"', svg[:end])
    assert box is not None
    return '<svg xmlns="http://www.w3.org/2000/svg"', box[1], svg[end + 1 :]


@functools.cache
def bundle() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script without imports, which sets `window.vegaEmbed`."""
    import vl_convert

    script: str = vl_convert.javascript_bundle()  # type: ignore[call-arg]  # its stub asks for too much
    return script.replace("</script", "<\\/script")


def source_hash(script: str) -> str:
    """What a page's security policy calls a script that it may run."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def embedded(content: Any) -> Markup:
    """JSON inside a <script type=application/json>, which no text in it can end."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))
