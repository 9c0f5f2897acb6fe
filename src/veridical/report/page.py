"""Puts a report together: numbers, plots and galleries into the page's template."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
from markupsafe import Markup

from veridical import __version__
from veridical.errors import UserError, describe
from veridical.protocols.inference import corrected
from veridical.records import Pair, Provenance
from veridical.report import charts
from veridical.report.captions import SAYS
from veridical.report.pictures import Piece, Thumbnail, inventions, sides, spread, thumbnail
from veridical.report.runs import AlignRun, BuildRun, EvalRun, Runs, warnings_of
from veridical.report.tables import MetricRow, Verdict, bounds, flat, is_main, judge, metric_of, number, rows
from veridical.report.verdict import ShownPicture, covered_of, overview

SIDES = (
    ("words", "words"),
    ("objects", "different objects named"),
    ("invented", "objects invented"),
    ("inventing", "answers that invent something (%)"),
    ("partners", "answers with an object and its usual companion (%)"),
)
_ODD = (KeyError, TypeError, AttributeError, IndexError, ValueError, ArithmeticError, jinja2.UndefinedError)
"""What comes of files that were damaged or edited since they were written."""
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
class ComparedModels:
    """One model against the base at equal recall."""

    model: str
    equal: Mapping[str, Any]
    verdict: Verdict


@dataclass(frozen=True)
class TrainingShown:
    """What a training came to, on its own pairs and on held-out ones, and what is wrong with it."""

    name: str
    rows: tuple[tuple[str, str, str, str], ...]
    warnings: tuple[str, ...]


def render(runs: Runs, title: str, pairs: int, captions: int, seconds: Mapping[str, float] | None = None) -> str:
    """The page about `runs` as HTML.

    Args:
        runs: what it is about.
        title: its heading.
        pairs: how many pairs of each build are shown.
        captions: how many pictures of each evaluation are shown with their captions.
        seconds: wall time by stage, if known.

    Raises UserError that names the run folders whose files hold what no command wrote.
    """
    try:
        return _page(runs, title, pairs, captions, seconds)
    except _ODD as error:
        damaged = {run.folder: wrong for run, alone in _each(runs) if (wrong := _wrong_with(alone, pairs, captions))}
        if not damaged:
            raise
        named = "; ".join(f"{folder}: damaged ({wrong})" for folder, wrong in damaged.items())
        raise UserError(f"{named}; run the command of this folder again.") from error


def _each(runs: Runs) -> Iterator[tuple[BuildRun | AlignRun | EvalRun, Runs]]:
    """Each run, and a report's content that is it alone."""
    yield from ((run, Runs(builds=(run,))) for run in runs.builds)
    yield from ((run, Runs(aligns=(run,))) for run in runs.aligns)
    yield from ((run, Runs(evals=(run,))) for run in runs.evals)


def _wrong_with(runs: Runs, pairs: int, captions: int) -> str | None:
    try:
        _page(runs, "", pairs, captions, None)
    except _ODD as error:
        return describe(error)
    return None


def _page(runs: Runs, title: str, pairs: int, captions: int, seconds: Mapping[str, float] | None) -> str:
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
        overview=overview(runs.evals),
        example=_example_card,
        says=SAYS,
        learnt=[_learnt(run) for run in runs.aligns],
        warnings=sum(
            len(warnings_of(finished))
            for finished in [run.summary for run in runs.builds] + [a.summary for a in runs.aligns]
        ),
        version=__version__,
        style=Markup(templates.get_source(environment, "report.css")[0]),
        evals=[_eval_section(run, captions) for run in runs.evals],
        builds=[_build_section(run, pairs) for run in runs.builds],
        aligns=runs.aligns,
        training=_training_charts(runs.aligns),
        runs=runs,
        seconds=seconds,
    )


def _eval_section(run: EvalRun, captions: int) -> dict[str, Any]:
    results = run.results
    base = next(iter(results["models"]))
    table = rows(results)
    names = {"chair_s": "chair_s", "recall": "recall", **results.get("equal", {}).get(run.shown, {})}
    curve = results["cut_curves"].get(base)
    covered = covered_of(run.shown)
    return {
        "run": run,
        "base": base,
        "tables": _by_protocol([row for row in table if is_main(row.metric, results)]),
        "more": _by_protocol([row for row in table if not is_main(row.metric, results)]),
        "every_two": _every_two(results),
        "comparisons": [
            ComparedModels(one["model"], one["at_equal_recall"], judge(one["at_equal_recall"], "lower", p))
            for one, p in _corrected(
                [comparison for comparison in results["comparisons"] if comparison["at_equal_recall"]]
            )
        ],
        "recall_chart": charts.recall_curve(base, curve, results["models"], names["recall"], names["chair_s"], covered)
        if curve
        else "",
        "charts": list(_eval_charts(run, base)),
        "cards": _caption_cards(run, captions),
        "worse": _worst_cards(run, captions),
        "pictures": results["records"],
        "protocol": results["protocols"].get(run.shown, ""),
        "covered": covered,
        "wrong": metric_of(names["chair_s"], results).label,
        "notes": results.get("notes", []),
    }


@dataclass(frozen=True)
class Against:
    """One model against another where both recall as much; `verdict` is the row's against the column's."""

    label: str
    verdict: Verdict


def _every_two(results: Mapping[str, Any]) -> tuple[list[str], dict[str, dict[str, Against]]]:
    """The models but the base, and each against each other: the row's less the column's, corrected for their number."""
    compared = [one for one in results.get("pairs", ()) if one["at_equal_recall"]]
    names = list(dict.fromkeys(name for one in compared for name in (one["base"], one["model"])))
    table: dict[str, dict[str, Against]] = {name: {} for name in names}
    for one, p in _corrected(compared):
        even = one["at_equal_recall"]
        turned = {**even, "difference": -even["difference"], "low": -even["high"], "high": -even["low"]}
        for row, column, shown in ((one["model"], one["base"], even), (one["base"], one["model"], turned)):
            label = f"{number(shown['difference'], signed=True)} {bounds(shown, signed=True)}"
            table[row][column] = Against(label, judge(shown, "lower", p))
    return names, table


def _corrected(comparisons: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Mapping[str, Any], float]]:
    """Comparisons at equal recall, each with its p-value corrected for their number."""
    yield from zip(comparisons, corrected([comparison["at_equal_recall"] for comparison in comparisons]), strict=True)


def _by_protocol(table: Sequence[MetricRow]) -> list[tuple[str, list[MetricRow]]]:
    protocols = dict.fromkeys(row.protocol for row in table)
    return [(protocol, [row for row in table if row.protocol == protocol]) for protocol in protocols]


def _eval_charts(run: EvalRun, base: str) -> list[Chart]:
    drawn = []
    others = [name for name in run.results["models"] if name != base]
    if others and run.results["by_object"]:
        svg = charts.object_rates(base, others, run.results["by_object"])
        drawn.append(
            Chart(svg, "Each object: how often captions name it where it is not. A line to the left is a gain.")
        )
    if run.noise:
        svg = charts.noise_curve(run.noise)
        drawn.append(
            Chart(
                svg,
                f"{run.noise['model']} under noise: the less it can see, the more it falls back on what is usual. "
                "This is what makes rejected answers for the pairs.",
            )
        )
    return drawn


def _caption_cards(run: EvalRun, count: int) -> list[CaptionCard]:
    models = [name for name in run.results["models"] if run.captions.get(name)]
    return [_caption_card(run, item.id) for item in spread(run.captions[models[0]], count)] if models else []


def _worst_cards(run: EvalRun, count: int) -> list[CaptionCard]:
    """The pictures where a model's caption has most more wrong in it than the base's, over all models."""
    base = next(iter(run.results["models"]))
    before = {caption.id: caption.wrong for caption in run.captions.get(base, ())}
    change: dict[str, int] = {}
    for captions in run.captions.values():
        for caption in captions:
            if caption.id in before:
                change[caption.id] = max(change.get(caption.id, 0), caption.wrong - before[caption.id])
    worst = sorted((picture for picture in change if change[picture] > 0), key=lambda picture: -change[picture])
    return [_caption_card(run, picture) for picture in worst[: count // 2]]


def _caption_card(run: EvalRun, record: str) -> CaptionCard:
    captions_of = {
        name: caption for name, captions in run.captions.items() for caption in captions if caption.id == record
    }
    first = next(iter(captions_of.values()))
    return CaptionCard(
        picture=thumbnail(run.picture(first.image)),
        record=record,
        truth=first.truth,
        captions=tuple((name, inventions(one), one.wrong) for name, one in captions_of.items()),
    )


def _example_card(example: ShownPicture) -> CaptionCard:
    both = zip(example.names, (example.base, example.model), strict=True)
    return CaptionCard(
        picture=thumbnail(example.run.picture(example.base.image)),
        record=example.base.id,
        truth=example.base.truth,
        captions=tuple((name, inventions(caption), caption.wrong) for name, caption in both),
    )


def _build_section(run: BuildRun, count: int) -> dict[str, Any]:
    sides = run.summary.get("captions", {})
    return {
        "run": run,
        "warnings": warnings_of(run.summary),
        "cards": [pair_card(pair) for pair in spread(run.pairs, count)],
        "sides": [
            (label, sides["chosen"][key], sides["rejected"][key])
            for key, label in SIDES
            if key in sides.get("chosen", {})
        ],
    }


def pair_card(pair: Pair) -> PairCard:
    """A pair as galleries show it."""
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


def _learnt(run: AlignRun) -> TrainingShown:
    shown = (("training pairs", run.summary.get("final")), ("held-out pairs", run.summary.get("held_out")))
    return TrainingShown(
        run.name,
        tuple(
            (label, str(numbers.get("pairs", "")), _measured(numbers, "accuracy"), _measured(numbers, "margin"))
            for label, numbers in shown
            if numbers
        ),
        warnings_of(run.summary),
    )


def _measured(numbers: Mapping[str, Any], name: str) -> str:
    """A number of `align`'s summary with its interval: a share in percent, or nats."""
    scale, unit = (100, "\N{NO-BREAK SPACE}%") if name == "accuracy" else (1, "")
    if name not in numbers:
        return ""
    value = f"{number(scale * numbers[name])}{unit}"
    ends = numbers.get("intervals", {}).get(name)
    return f"{value} [{number(scale * ends[0])}, {number(scale * ends[1])}]" if ends else value


def _training_charts(aligns: Sequence[AlignRun]) -> list[Chart]:
    wanted = (
        ("loss", "loss", "Loss, step by step: what training pushes down."),
        ("rewards/margins", "margin", "Margin: how far the preferred answer has pulled ahead of the rejected one."),
        ("reward", "reward", "Reward of sampled answers, step by step: what policy gradient pushes up."),
        (
            "oracle/score",
            "score",
            "What annotations say of the same answers. A reward that rises while this falls is hacked.",
        ),
        ("oracle/recall", "recall", "Recall of the same answers: a reward may rise by saying less."),
    )
    return [
        Chart(charts.training(having, key, label), caption)
        for key, label, caption in wanted
        if (having := [run for run in aligns if any(row.get(key) is not None for row in run.log)])
    ]
