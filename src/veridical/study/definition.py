"""A study as a file: a base run, axes that change it, seeds, and the questions that it should answer.

Everything is checked when it is read; what a value does to the commands is in `study.settings`.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, cast

from veridical.config import read_yaml
from veridical.errors import UserError

if TYPE_CHECKING:
    from veridical.protocols.inference import Correction

Design = Literal["grid", "one-at-a-time", "list"]
Better = Literal["lower", "higher"]
KEYS = (
    "title", "base", "axes", "arms", "design", "seeds", "seeds_of", "size", "size_matched", "questions", "metric",
    "better", "correction", "budget_hours",
)  # fmt: skip
KINDS = ("factor", "compare", "trend", "between", "interaction", "level")
QUESTION = ("ask", *KINDS, "than", "at", "metric", "better", "expect", "margin")
SHORT: Mapping[str, str] = MappingProxyType(
    {
        "rejected": "construction",
        "signal": "construction",
        "data": "records",
        "prompts": "build.prompt",
        "prompt": "build.prompt",
        "beta": "objective.beta",
        "rate": "align.learning_rate",
        "learning_rate": "align.learning_rate",
        "epochs": "align.epochs",
        "train": "align.train",
        "noise": "construction.view=noise:{}",
        "rho": "construction.view=token-mask:{}",
        "judge": "build.judge.name",
        "writer": "build.writer.name",
    }
)
"""Short names of axes, and the setting that each stands for; {} takes the value."""
PLAIN = (
    "construction", "objective", "records", "model", "limit", "size", "chosen", "loop", "rounds", "label_noise",
    "steps", "measured",
)  # fmt: skip
"""Settings of a run that are no command's own."""
GROUPS = ("construction", "objective", "build", "align", "eval")
MARGIN = 5.0
"""Points within which two models are alike, where nothing else is said."""
GAP = "at equal recall"
"""The default metric: captions that invent, against the other model's captions cut to the same recall."""


@dataclass(frozen=True)
class Arm:
    """One way to do it: a level on each axis, and the settings that follow, by dotted name."""

    name: str
    levels: Mapping[str, str]
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class StudyQuestion:
    """What to find out: which level of a factor is best, whether one beats another, a trend, a best in between, whether
    a difference changes along another axis (`levels` of `axis`, between the levels `across` of `other`), or whether a
    level's own number lies above or below `than`.

    `at` holds other axes at a level. `expect` is what a paper says: of `compare`, that the first is better ("better"),
    worse, different, or alike, which is that the interval of the difference lies within plus and minus `margin`; of
    `trend`, that the metric rises or falls along the axis.
    """

    ask: str
    kind: Literal["factor", "compare", "trend", "between", "interaction", "level"]
    axis: str
    levels: tuple[str, ...] = ()
    other: str = ""
    across: tuple[str, ...] = ()
    than: float = 0.0
    at: Mapping[str, str] = field(default_factory=dict)
    metric: str = GAP
    better: Better = "lower"
    expect: Literal["", "better", "worse", "different", "alike", "rises", "falls"] = ""
    margin: float = MARGIN


@dataclass(frozen=True)
class Study:
    """A study that can be planned."""

    title: str
    arms: tuple[Arm, ...]
    axes: Mapping[str, tuple[str, ...]]
    """Each axis with the names of its levels, in order."""
    values: Mapping[str, tuple[Any, ...]]
    """The values behind these names."""
    seeds: tuple[int, ...]
    seeds_of: Literal["pairs-and-training", "training"]
    size: int | None
    size_matched: bool
    questions: tuple[StudyQuestion, ...]
    metric: str
    better: Better
    correction: Correction
    budget_hours: float | None
    source: Mapping[str, Any]
    """What the file says, to be kept beside the results."""


def study_of(arms: Sequence[Arm], seed: int) -> Study:
    """A study of these arms with one seed, which asks nothing."""
    return Study(
        title="A run",
        arms=tuple(arms),
        axes={"arm": tuple(arm.name for arm in arms)},
        values={},
        seeds=(seed,),
        seeds_of="pairs-and-training",
        size=None,
        size_matched=False,
        questions=(),
        metric=GAP,
        better="lower",
        correction="holm",
        budget_hours=None,
        source={},
    )


def read(path: Path) -> Study:
    """The study in a YAML file. Raises UserError for what can't be."""
    return parse(read_yaml(path), str(path))


def parse(given: Mapping[str, Any], where: str = "study") -> Study:
    """The study that a mapping describes. Raises UserError that names the place in `where`."""
    _known(given, KEYS, where)
    base = _flat(_mapping(given.get("base", {}), f"{where}: base"), f"{where}: base")
    axes = {
        str(axis): _levels(str(axis), values, f"{where}: axes.{axis}")
        for axis, values in _mapping(given.get("axes", {}), f"{where}: axes").items()
    }
    design = _one_of(given.get("design", "grid"), ("grid", "one-at-a-time", "list"), f"{where}: design")
    arms = _arms(cast("Design", design), base, axes, given.get("arms", ()), where)
    names = {axis: tuple(level.name for level in levels) for axis, levels in axes.items()}
    if extra := _listed(arms, axes):
        names["arm"] = extra
    seeds = _seeds(given.get("seeds", (0, 1, 2)), where)
    metric = str(given.get("metric", GAP))
    better = cast("Better", _one_of(given.get("better", "lower"), ("lower", "higher"), f"{where}: better"))
    questions = given.get("questions")
    return Study(
        title=str(given.get("title", "A study")),
        arms=arms,
        axes=names,
        values={axis: tuple(level.value for level in levels) for axis, levels in axes.items()},
        seeds=seeds,
        seeds_of=cast(
            "Literal['pairs-and-training', 'training']",
            _one_of(
                given.get("seeds_of", "pairs-and-training"), ("pairs-and-training", "training"), f"{where}: seeds_of"
            ),
        ),
        size=_number(given.get("size"), int, f"{where}: size"),
        size_matched=bool(given.get("size_matched", True)),
        questions=_questions(questions, names, metric, better, where),
        metric=metric,
        better=better,
        correction=cast(
            "Correction", _one_of(given.get("correction", "holm"), ("holm", "bh", "none"), f"{where}: correction")
        ),
        budget_hours=_number(given.get("budget_hours"), float, f"{where}: budget_hours"),
        source=dict(given),
    )


@dataclass(frozen=True)
class _Level:
    name: str
    value: Any
    settings: Mapping[str, Any]


def _levels(axis: str, values: Any, where: str) -> tuple[_Level, ...]:
    if not isinstance(values, Sequence) or isinstance(values, str) or not values:
        raise UserError(f"{where}: give a list of levels, such as [bpo-image, bdhs].")
    levels = tuple(_level(axis, value, where) for value in values)
    names = [level.name for level in levels]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"{where}: {', '.join(twice)} is there twice; name each level once, by label or value.")
    return levels


def _level(axis: str, value: Any, where: str) -> _Level:
    """A plain value; a mapping with the value as `name` and settings of it; or any settings, as `label` and `set`."""
    if isinstance(value, Mapping) and "set" in value:
        _known(value, ("label", "set"), where)
        if "label" not in value:
            raise UserError(f"{where}: a level with `set` needs a `label`, by which it is called.")
        return _Level(_slug(value["label"]), value["label"], _flat(_mapping(value["set"], where), where))
    setting = SHORT.get(axis, axis)
    if isinstance(value, Mapping):
        if "name" not in value:
            raise UserError(
                f"{where}: a level is a value, or has a `name`, or a `label` with `set`; got {dict(value)!r}."
            )
        main = setting.partition("=")[0]
        own = {f"{main}.{key}": item for key, item in value.items() if key not in ("name", "label")}
        settings = _flat({setting: value["name"], **own}, where)
        return _Level(_slug(value.get("label", value["name"])), value["name"], settings)
    return _Level(_slug(value), value, _flat({setting: value}, where))


def _flat(settings: Mapping[str, Any], where: str, prefix: str = "") -> dict[str, Any]:
    """Settings by dotted name, short names written out. Raises UserError for one that nothing has."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        name = f"{prefix}{key}".replace("-", "_")
        if not prefix and name in SHORT:
            target, _, form = SHORT[name].partition("=")
            flat[target] = form.format(value) if form else value
        elif not prefix and "=" in name:
            target, _, form = name.partition("=")
            flat[target.replace("_", "-") if target == "construction" else target] = form.replace("_", "-").format(
                value
            )
        elif isinstance(value, Mapping) and (name in GROUPS or prefix):
            inner = dict(value)
            if name in ("construction", "objective") and "name" in inner:
                flat[name] = inner.pop("name")
            flat |= _flat(inner, where, f"{name}.")
        else:
            _check_setting(name, where)
            flat[name] = list(value) if isinstance(value, tuple) else value
    return flat


def _check_setting(name: str, where: str) -> None:
    group = name.partition(".")[0]
    if name in PLAIN or (group in GROUPS and "." in name):
        return
    known = [*PLAIN, *SHORT, *(f"{one}.…" for one in GROUPS)]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}."
    raise UserError(f"{where}: nothing is called {name!r}; {hint}")


def _arms(
    design: Design, base: Mapping[str, Any], axes: Mapping[str, tuple[_Level, ...]], listed: Any, where: str
) -> tuple[Arm, ...]:
    found = []
    if axes and design != "list":
        found = [_arm(base, chosen) for chosen in _combinations(design, axes)]
    for number, one in enumerate(listed or ()):
        place = f"{where}: arms[{number}]"
        given = dict(_mapping(one, place))
        label = given.pop("label", None)
        if label is None:
            raise UserError(f"{place}: give it a label, by which it is called.")
        settings = _over(base, _flat(given, place))
        found.append(Arm(_slug(label), {"arm": _slug(label)}, settings))
    if not found:
        raise UserError(f"{where}: no arms; give axes with levels, or arms with design list.")
    names = [arm.name for arm in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"{where}: two arms are called {', '.join(twice)}; label them apart.")
    return tuple(found)


def _combinations(design: Design, axes: Mapping[str, tuple[_Level, ...]]) -> list[dict[str, _Level]]:
    if design == "grid":
        return [dict(zip(axes, levels, strict=True)) for levels in product(*axes.values())]
    # One at a time: the first level of each axis, then each other level alone.
    first = {axis: levels[0] for axis, levels in axes.items()}
    return [first, *({**first, axis: level} for axis, levels in axes.items() for level in levels[1:])]


def _arm(base: Mapping[str, Any], chosen: Mapping[str, _Level]) -> Arm:
    settings = _over(base, {key: value for level in chosen.values() for key, value in level.settings.items()})
    name = ".".join(level.name for level in chosen.values())
    return Arm(name, {axis: level.name for axis, level in chosen.items()}, settings)


def _over(base: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings over the base's; another method has other settings, so those of the base's method don't go with it."""
    kept = dict(base)
    for group in ("construction", "objective"):
        if group in settings and settings[group] != base.get(group):
            kept = {key: value for key, value in kept.items() if not key.startswith(f"{group}.")}
    return {**kept, **settings}


def _listed(arms: Sequence[Arm], axes: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(arm.name for arm in arms if "arm" in arm.levels and "arm" not in axes)


def _questions(
    given: Any, axes: Mapping[str, tuple[str, ...]], metric: str, better: Better, where: str
) -> tuple[StudyQuestion, ...]:
    """The questions asked; without any, which level of each axis is best."""
    if given is None:
        return tuple(
            StudyQuestion(
                f"Which {axis.replace('_', ' ')} is best?", "factor", axis, levels, metric=metric, better=better
            )
            for axis, levels in axes.items()
            if len(levels) > 1
        )
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise UserError(f"{where}: questions: give a list.")
    return tuple(
        _question(_mapping(one, f"{where}: questions[{number}]"), axes, metric, better, f"{where}: questions[{number}]")
        for number, one in enumerate(given)
    )


def _question(
    given: Mapping[str, Any], axes: Mapping[str, tuple[str, ...]], metric: str, better: Better, where: str
) -> StudyQuestion:
    _known(given, QUESTION, where)
    kinds = [kind for kind in KINDS if kind in given]
    if len(kinds) != 1:
        raise UserError(
            f"{where}: ask one of factor: AXIS, compare: {{AXIS: [A, B]}}, trend: AXIS, between: AXIS, interaction: "
            "{AXIS: [A, B], OTHER: [C, D]}, level: {AXIS: A} with than: NUMBER."
        )
    [kind] = kinds
    asked = _asked_of(kind, given[kind], axes, where)
    (axis, levels), (other, across) = asked[0], asked[1] if len(asked) > 1 else ("", ())
    for name, some in asked:
        _one_of(name, tuple(axes), f"{where}: {kind}")
        for level in some:
            # `base` is the model before training.
            _one_of(level, (*axes[name], "base") if kind == "compare" else axes[name], f"{where}: {name}")
    if (kind == "level") != ("than" in given):
        raise UserError(f"{where}: level and than go together: level: {{AXIS: A}}, than: NUMBER.")
    at = {str(key): _slug(value) for key, value in _mapping(given.get("at", {}), where).items()}
    for key, value in at.items():
        _one_of(value, axes[_one_of(key, tuple(axes), f"{where}: at")], f"{where}: at.{key}")
    expect = str(given.get("expect", ""))
    allowed = ("", "rises", "falls") if kind == "trend" else ("", "better", "worse", "different", "alike")
    return StudyQuestion(
        ask=str(given.get("ask", _asked(kind, axis, levels, across))),
        kind=cast("Any", kind),
        axis=axis,
        levels=levels,
        other=other,
        across=across,
        than=float(given.get("than", 0.0)),
        at=at,
        metric=str(given.get("metric", metric)),
        better=cast("Better", _one_of(given.get("better", better), ("lower", "higher"), f"{where}: better")),
        expect=cast("Any", _one_of(expect, allowed, f"{where}: expect")),
        margin=_number(given.get("margin", MARGIN), float, f"{where}: margin"),
    )


def _asked_of(
    kind: str, given: Any, axes: Mapping[str, tuple[str, ...]], where: str
) -> list[tuple[str, tuple[str, ...]]]:
    """The axes that a question is about, each with its levels."""
    wanted = {"compare": [2], "interaction": [2, 2], "level": [1]}.get(kind)
    if wanted is None:
        return [(str(given), axes.get(str(given), ()))]
    found = [
        (str(axis), (_slug(some),) if isinstance(some, str | int | float) else tuple(map(_slug, some)))
        for axis, some in _mapping(given, f"{where}: {kind}").items()
    ]
    if [len(some) for _, some in found] != wanted:
        example = {
            "compare": "one axis with two levels, such as compare: {objective: [dpo, sft]}",
            "interaction": "two axes with two levels each",
            "level": "one axis with one level",
        }
        raise UserError(f"{where}: {kind} takes {example[kind]}.")
    return found


def _asked(kind: str, axis: str, levels: Sequence[str], across: Sequence[str]) -> str:
    return {
        "interaction": f"Does the difference of {' and '.join(levels)} change between {' and '.join(across)}?",
        "level": f"What is the number of {' '.join(levels)}?",
        "factor": f"Which {axis} is best?",
        "compare": f"Is {levels[0]} better than {levels[1]}?" if len(levels) == 2 else "",
        "trend": f"Does it change along {axis}?",
        "between": f"Does the best {axis} lie in between?",
    }[kind]


def _seeds(given: Any, where: str) -> tuple[int, ...]:
    seeds = [given] if isinstance(given, int) else given
    if not isinstance(seeds, Sequence) or not seeds or not all(isinstance(s, int) and s >= 0 for s in seeds):
        raise UserError(f"{where}: seeds: give whole numbers from 0, such as [0, 1, 2].")
    if len(set(seeds)) < len(seeds):
        raise UserError(f"{where}: seeds: {list(seeds)} has one twice; a seed counts once.")
    return tuple(seeds)


def _slug(value: Any) -> str:
    """A level's name as file names and tables can hold it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "+".join(map(_slug, value))
    text = Path(str(value)).name if str(value).count("/") > 1 else str(value)
    return re.sub(r"[^\w.+-]+", "-", text).strip("-.") or "empty"


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise UserError(f"{where}: give names with values, not {type(value).__name__}.")
    return value


def _known(given: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}."
            raise UserError(f"{where}: unknown {key!r}; {hint}")


def _one_of(value: Any, known: Sequence[str], where: str) -> str:
    if value not in known:
        near = difflib.get_close_matches(str(value), known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(filter(None, known)) or 'none'}."
        raise UserError(f"{where}: no {value!r}; {hint}")
    return str(value)


def _number(value: Any, kind: type, where: str) -> Any:
    if value is None:
        return None
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number or value <= 0 or kind(value) != value:
        raise UserError(f"{where}: {value!r} is no {'whole ' if kind is int else ''}number above 0.")
    return kind(value)
