"""Puts a report together: numbers, plots and galleries into the page's template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
from markupsafe import Markup

from veridical import __version__
from veridical.protocols.chair import ChairItem
from veridical.records import Pair, Provenance
from veridical.report import charts
from veridical.report.pictures import Piece, Thumbnail, inventions, sides, spread, thumbnail
from veridical.report.runs import AlignRun, BuildRun, EvalRun, Runs
from veridical.report.tables import METRICS, Row, bounds, flat, judge, number, rows

SIDES = (
    ("words", "words"),
    ("objects", "different objects named"),
    ("invented", "objects invented"),
    ("inventing", "answers that invent something (%)"),
    ("partners", "answers with an object and its usual companion (%)"),
)
TURNS = {"user": "asked", "assistant": "answered before", "system": "told beforehand"}


@dataclass(frozen=True)
class Chart:
    """A plot with the sentence below it."""

    svg: Markup
    caption: str


@dataclass(frozen=True)
class PairCard:
    """A pair of the gallery, with what differs between the sides marked; `made` says how this one came to be."""

    pictures: tuple[Thumbnail, ...]
    record: str
    kind: str
    turns: tuple[tuple[str, str], ...]
    chosen: list[Piece]
    rejected: list[Piece]
    made: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class CaptionCard:
    """A picture with every model's caption, inventions marked."""

    picture: Thumbnail
    record: str
    truth: tuple[str, ...]
    captions: tuple[tuple[str, list[Piece], int], ...]


@dataclass(frozen=True)
class Comparison:
    """One model against the base in words and numbers."""

    base: str
    model: str
    before: str
    after: str
    recall_before: str
    recall_after: str
    equal: Mapping[str, Any]
    equal_verdict: str


def render(runs: Runs, title: str, pairs: int, captions: int, seconds: Mapping[str, float] | None = None) -> str:
    """The page about `runs` as HTML.

    Args:
        runs: what it is about.
        title: its heading.
        pairs: how many pairs of each build are shown.
        captions: how many pictures of each evaluation are shown with their captions.
        seconds: wall time by stage, if known.
    """
    templates = jinja2.PackageLoader("veridical.report")
    environment = jinja2.Environment(
        loader=templates,
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "bounds": bounds, "flat": flat}
    return environment.get_template("report.html.j2").render(
        title=title,
        version=__version__,
        style=Markup(templates.get_source(environment, "report.css")[0]),
        evals=[_eval_section(run, place, captions) for place, run in enumerate(runs.evals)],
        builds=[_build_section(run, pairs) for run in runs.builds],
        aligns=runs.aligns,
        training=_training_charts(runs.aligns),
        runs=runs,
        seconds=seconds,
    )


def _eval_section(run: EvalRun, place: int, captions: int) -> dict[str, Any]:
    results = run.results
    base = next(iter(results["models"]))
    table = rows(results)
    return {
        "run": run,
        "base": base,
        "tables": _by_protocol([row for row in table if row.metric in METRICS]),
        "more": _by_protocol([row for row in table if row.metric not in METRICS]),
        "comparisons": [_comparison(results, one) for one in results["comparisons"] if one["at_equal_recall"]],
        "recall_chart": Markup(
            charts.recall_curve(base, results["cut_curves"][base], results["models"], f"recall{place}")
            if results["cut_curves"]
            else ""
        ),
        "charts": list(_eval_charts(run, base, place)),
        "cards": _caption_cards(run, captions),
        "pictures": results["records"],
    }


def _by_protocol(table: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    protocols = dict.fromkeys(row.protocol for row in table)
    return [(protocol, [row for row in table if row.protocol == protocol]) for protocol in protocols]


def _comparison(results: Mapping[str, Any], comparison: Mapping[str, Any]) -> Comparison:
    base, model = comparison["base"], comparison["model"]
    metrics = results["models"]
    equal = comparison["at_equal_recall"]
    return Comparison(
        base=base,
        model=model,
        before=number(metrics[base]["chair_s"]["value"]),
        after=number(metrics[model]["chair_s"]["value"]),
        recall_before=number(metrics[base]["recall"]["value"]),
        recall_after=number(metrics[model]["recall"]["value"]),
        equal=equal,
        equal_verdict=judge(equal, "lower"),
    )


def _eval_charts(run: EvalRun, base: str, place: int) -> list[Chart]:
    found = []
    others = [name for name in run.results["models"] if name != base]
    if others and run.results["by_object"]:
        svg = charts.object_rates(base, others[0], run.results["by_object"], f"objects{place}")
        found.append(
            Chart(Markup(svg), "Each object: how often captions name it where it is not. A line to the left is a gain.")
        )
    if run.noise:
        svg = charts.noise_curve(run.noise, f"noise{place}")
        found.append(
            Chart(
                Markup(svg),
                f"{run.noise['model']} under noise: the less it can see, the more it falls back on what is usual. "
                "This is what makes rejected answers for the pairs.",
            )
        )
    return found


def _caption_cards(run: EvalRun, count: int) -> list[CaptionCard]:
    models = [name for name in run.results["models"] if name in run.captions]
    if not models:
        return []
    by_id = {name: {item.id: item for item in run.captions[name]} for name in models}
    return [
        CaptionCard(
            picture=thumbnail(run.picture(item.image)),
            record=item.id,
            truth=item.truth,
            captions=tuple(_caption(name, by_id[name][item.id]) for name in models if item.id in by_id[name]),
        )
        for item in spread(run.captions[models[0]], count)
    ]


def _caption(model: str, item: ChairItem) -> tuple[str, list[Piece], int]:
    return model, inventions(item), len({mention.name for mention in item.mentions if mention.invented})


def _build_section(run: BuildRun, count: int) -> dict[str, Any]:
    sides = run.summary.get("captions", {})
    return {
        "run": run,
        "cards": [_pair_card(pair) for pair in spread(run.pairs, count)],
        "sides": [
            (label, sides["chosen"][key], sides["rejected"][key])
            for key, label in SIDES
            if key in sides.get("chosen", {})
        ],
    }


def _pair_card(pair: Pair) -> PairCard:
    chosen, rejected = sides(pair)
    return PairCard(
        pictures=tuple(thumbnail(image.path) for image in pair.images),
        record=pair.record_id,
        kind=pair.provenance.variant or pair.provenance.construction,
        turns=tuple((TURNS.get(turn.role, turn.role), turn.text) for turn in pair.prompt),
        chosen=chosen,
        rejected=rejected,
        made=_made(pair.provenance),
    )


def _made(provenance: Provenance) -> tuple[tuple[str, str], ...]:
    """What sets this pair apart from others of its build: (what, value)."""
    facts = [
        ("preferred", provenance.chosen_source),
        ("rejected", provenance.rejected_source),
        ("judge", provenance.judge),
        ("tries", str(provenance.attempts) if provenance.attempts > 1 else ""),
        *((name.replace("_", " "), f"{score:.3g}") for name, score in provenance.scores.items()),
    ]
    return tuple((name, value) for name, value in facts if value)


def _training_charts(aligns: Sequence[AlignRun]) -> list[Chart]:
    wanted = (
        ("loss", "loss", "Loss, step by step: what training pushes down."),
        ("rewards/margins", "margin", "Margin: how far the preferred answer has pulled ahead of the rejected one."),
    )
    return [
        Chart(Markup(charts.training(having, key, label, f"training-{label}")), caption)
        for key, label, caption in wanted
        if (having := [run for run in aligns if any(row.get(key) is not None for row in run.log)])
    ]
