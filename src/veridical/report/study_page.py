"""The page about a study: answers first, then a table to sort, filter and compare in, charts, and every cell."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jinja2
import yaml
from markupsafe import Markup

from veridical import __version__
from veridical.errors import UserError
from veridical.pairs.dataset import read_pairs
from veridical.report.page import CaptionCard, PairCard, pair_card
from veridical.report.pictures import inventions, spread, thumbnail
from veridical.report.runs import read_eval
from veridical.report.study_charts import charts, forest
from veridical.report.tables import bounds, number
from veridical.report.vega import VegaChart, bundle, embedded, source_hash

PAIRS, CAPTIONS = 2, 3
"""Shown of each arm."""


@dataclass(frozen=True)
class CellCard:
    """An arm to look into: what it was made with, where its runs are, and some of its pairs and captions."""

    name: str
    settings: str
    seeds: tuple[tuple[int, Mapping[str, str], Mapping[str, float | None], str], ...]
    """Each seed's folders, numbers, and why there are none."""
    pairs: tuple[PairCard, ...]
    captions: tuple[CaptionCard, ...]
    spread: Mapping[str, float] | None


def page(folder: Path, results: Mapping[str, Any]) -> str:
    """The page about the study in `folder`, one file that asks for nothing."""
    templates = jinja2.PackageLoader("veridical.report")
    environment = jinja2.Environment(
        loader=templates, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": number, "bounds": bounds}
    source = {name: templates.get_source(environment, name)[0] for name in ("report.css", "study.css", "study.js")}
    forests = [
        forest(answer, place, _label(results, answer["question"]["metric"]))
        for place, answer in enumerate(results["answers"])
    ]
    # What its marks mean is said below the first.
    known = [place for place, one in enumerate(forests) if one is not None]
    forests = [one and (replace(one, caption="") if place in known[1:] else one) for place, one in enumerate(forests)]
    shown = charts(results)
    vega = bundle()
    return environment.get_template("study.html.j2").render(
        results=results,
        style=Markup(source["report.css"] + source["study.css"]),
        policy=f"{source_hash(vega)} {source_hash(source['study.js'])}",
        vega=Markup(vega),
        script=Markup(source["study.js"]),
        data=embedded(_data(results, [one for one in (*forests, *shown) if one is not None])),
        answers=list(zip(results["answers"], forests, strict=True)),
        charts=shown,
        cells=[_cell_card(folder, results, name) for name in results["arms"]],
        downloads=_downloads(results),
        version=__version__,
        label=lambda metric: _label(results, metric),
        pictures=max((metric["pictures"] for metric in results["metrics"].values()), default=0),
    )


def _label(results: Mapping[str, Any], metric: str) -> str:
    return str(results["metrics"].get(metric, {}).get("label", metric))


def _data(results: Mapping[str, Any], shown: list[VegaChart]) -> dict[str, Any]:
    """What the page's script works with: charts, and every two arms' differences."""
    return {
        "charts": {one.id: one.spec for one in shown},
        "metrics": {key: one["better"] for key, one in results["metrics"].items()},
        "pairs": [
            {
                "first": row["first"],
                "second": row["second"],
                "differences": {
                    metric: [round(difference[key], 3) for key in ("value", "low", "high", "p_bh")]
                    for metric, difference in row["differences"].items()
                },
            }
            for row in results["pairs"]
        ],
    }


def _cell_card(folder: Path, results: Mapping[str, Any], name: str) -> CellCard:
    arm = results["arms"][name]
    seeds = [
        (int(seed), cell["folders"], cell.get("numbers", {}), cell.get("missing", ""))
        for seed, cell in arm["cells"].items()
    ]
    done = next((folders for _, folders, numbers, _ in seeds if numbers), None)
    return CellCard(
        name,
        yaml.safe_dump(dict(arm["settings"]), sort_keys=False, allow_unicode=True),
        tuple(seeds),
        _pairs(folder, done),
        _captions(folder, done),
        arm["spread"],
    )


def _pairs(folder: Path, folders: Mapping[str, str] | None) -> tuple[PairCard, ...]:
    if not folders or "pairs" not in folders:
        return ()
    try:
        return tuple(pair_card(pair) for pair in spread(read_pairs(folder / folders["pairs"]), PAIRS))
    except (UserError, OSError):
        return ()


def _captions(folder: Path, folders: Mapping[str, str] | None) -> tuple[CaptionCard, ...]:
    """Pictures with the base's caption and this run's, those that changed before the others."""
    if not folders:
        return ()
    try:
        run = read_eval(folder / folders["measured"])
    except (UserError, OSError):
        return ()
    if len(run.captions) < 2:
        return ()
    base, model = list(run.captions)[:2]
    ours = {caption.id: caption for caption in run.captions[model]}
    both = [(one, ours[one.id]) for one in run.captions[base] if one.id in ours]
    changed = [pair for pair in both if pair[0].wrong != pair[1].wrong] or both
    return tuple(
        CaptionCard(
            thumbnail(run.picture(before.image)),
            before.id,
            before.truth,
            ((base, inventions(before), before.wrong), (model, inventions(after), after.wrong)),
        )
        for before, after in spread(changed, CAPTIONS)
    )


def _downloads(results: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(file name, words, address) of what can be taken from the page."""
    content = json.dumps(results, indent=1)
    return [("results.json", "all numbers (JSON)", _address("application/json", content))]


def _address(kind: str, content: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content.encode()).decode()}"
