"""What `import veridical` offers: the commands as functions over objects, in memory or in run folders.

A run folder is kept where `out` names one; else it is temporary, and goes with the object that was returned. All
raise UserError for what a user can mend.
"""

from __future__ import annotations

import html
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from veridical.errors import UserError
from veridical.files import read_json_lines, read_state
from veridical.pairset import PairSet
from veridical.records import Record

if TYPE_CHECKING:
    from veridical.objectives.base import Objective
    from veridical.protocols.statistics import Estimate
    from veridical.vlm.model.loading import Vlm

_WRAPPED = "in-memory"
"""The name of a model that was never in a file begins so."""


@dataclass(frozen=True)
class Run:
    """A finished training: `result` is the adapter's folder, in PEFT's layout, or that of the whole model."""

    folder: Path
    result: Path
    model: str
    """The base model, as `load` takes it."""
    summary: Mapping[str, Any] = field(repr=False)
    keep: Any = field(default=None, repr=False, compare=False)

    @property
    def log(self) -> list[dict[str, Any]]:
        """A row a step: loss, learning rate, rewards."""
        return read_json_lines(self.folder / "log.jsonl")

    def load(self) -> Vlm:
        """The model that was trained."""
        if self.result.name == "adapter":
            return load(self.model, adapter=self.result)
        return load(str(self.result))

    def __repr__(self) -> str:
        if "rewards" in self.summary:
            return f"Run({self.summary['objective']}, {self.summary['steps']} steps of policy gradient; {self.result})"
        pairs, final = self.summary["pairs"], self.summary["final"]
        return (
            f"Run({self.summary['objective']}, {pairs['used']} pairs, {self.summary['steps']} steps, prefers chosen in "
            f"{final['accuracy']:.0%}; {self.result})"
        )

    def _repr_html_(self) -> str:
        rows = {"result": str(self.result), "steps": self.summary["steps"]}
        rows |= self.summary["last_fifth"] if "rewards" in self.summary else self.summary["final"]
        return _table(["", repr(self)], [[name, _number(value)] for name, value in rows.items()])


@dataclass(frozen=True)
class Evaluation:
    """Measured models: `results` is what results.json holds, with intervals, comparisons and counts."""

    folder: Path
    results: Mapping[str, Any] = field(repr=False)
    keep: Any = field(default=None, repr=False, compare=False)

    @property
    def models(self) -> tuple[str, ...]:
        """Their names in the results, the base first."""
        return tuple(self.results["models"])

    def estimate(self, model: str, metric: str) -> Estimate:
        """A number with its interval. Raises UserError for a model or metric that was not measured."""
        from veridical.protocols.statistics import Estimate

        for name, known in ((model, self.results["models"]), (metric, self.results["models"].get(model, {}))):
            if name not in known:
                raise UserError(f"{name!r} was not measured; there are {', '.join(known)}.")
        found = self.results["models"][model][metric]
        return Estimate(found["value"], found["low"], found["high"])

    def __repr__(self) -> str:
        protocols = ", ".join(self.results["protocols"].values())
        return f"Evaluation({', '.join(self.models)}; {protocols}; {self.folder})"

    def _repr_html_(self) -> str:
        shown = self.results["metrics"]
        rows = [
            [about["label"], *(_interval(self.results["models"][model].get(metric)) for model in self.models)]
            for metric, about in shown.items()
        ]
        return _table(["", *self.models], rows)


@dataclass(frozen=True)
class Scores:
    """Scored answers: `metrics` by name, and all that `veridical score --json` prints in `result`."""

    result: Mapping[str, Any] = field(repr=False)

    @property
    def protocol(self) -> str:
        """The protocol's name with its version; a number means nothing without it."""
        return str(self.result["protocol"])

    @property
    def metrics(self) -> Mapping[str, float | None]:
        """The numbers, unrounded."""
        found: Mapping[str, float | None] = self.result["metrics"]
        return found

    def __repr__(self) -> str:
        return f"Scores({self.protocol}: {', '.join(f'{k} {_number(v)}' for k, v in self.metrics.items())})"

    def _repr_html_(self) -> str:
        return _table(["", self.protocol], [[name, _number(value)] for name, value in self.metrics.items()])


@dataclass(frozen=True)
class JudgeEvaluation:
    """A measured judge: `results` is what judge.json holds: counts, accuracy, groups, position, length."""

    folder: Path
    results: Mapping[str, Any] = field(repr=False)
    keep: Any = field(default=None, repr=False, compare=False)

    @property
    def accuracy(self) -> Estimate:
        """The share of pairs that it judges right, a tie counted half, with its interval, from 0 to 1."""
        from veridical.protocols.statistics import Estimate

        return Estimate(self.results["accuracy"], *self.results["interval"])

    def __repr__(self) -> str:
        found = self.accuracy
        return (
            f"JudgeEvaluation({self.results['judge']}, {self.results['pairs']} pairs, accuracy {found.value:.1%} "
            f"[{found.low:.1%}, {found.high:.1%}]; {self.folder})"
        )


@dataclass(frozen=True)
class StudyResult:
    """A finished study: `results` is what results.json holds; its page is in `folder`."""

    folder: Path
    results: Mapping[str, Any] = field(repr=False)
    keep: Any = field(default=None, repr=False, compare=False)

    @property
    def answers(self) -> Mapping[str, str]:
        """Each question with its answer in a sentence."""
        return {one["question"]["ask"]: one["sentence"] for one in self.results["answers"]}

    @property
    def table(self) -> list[dict[str, Any]]:
        """A row for each arm and metric, with its interval over pictures and seeds."""
        return [
            {"arm": name, **arm["levels"], "metric": metric, **{key: found[key] for key in ("value", "low", "high")}}
            for name, arm in self.results["arms"].items()
            for metric, found in arm["numbers"].items()
            if found is not None
        ]

    @property
    def report(self) -> Report:
        """The page about it."""
        return Report((self.folder / "report.html").read_text(encoding="utf-8"))

    def __repr__(self) -> str:
        told = "".join(f"\n  {question} {answer}" for question, answer in self.answers.items())
        return f"StudyResult({self.results['title']}; {len(self.results['arms'])} arms; {self.folder}){told}"

    def _repr_html_(self) -> str:
        rows = [[one["arm"], one["metric"], _interval(one)] for one in self.table]
        return _table(["", *self.answers], [["", *self.answers.values()]]) + _table(["arm", "metric", ""], rows)


@dataclass(frozen=True)
class Report:
    """A page about runs, one file that needs nothing else."""

    html: str = field(repr=False)

    def save(self, path: str | Path) -> Path:
        """Write the page and return its path."""
        from veridical.files import write_text

        where = Path(path).expanduser()
        if where.is_dir():
            raise UserError(f"{where}: is a folder; give the name of a file, such as report.html.")
        write_text(where, self.html)
        return where

    def __repr__(self) -> str:
        return f"Report({len(self.html) // 1024} KiB)"

    def _repr_html_(self) -> str:
        return f'<iframe style="width:100%;height:40em" srcdoc="{html.escape(self.html)}"></iframe>'


def load(
    model: str | Path = "bundled",
    *,
    adapter: str | Path | None = None,
    dtype: str = "auto",
    device: str = "auto",
    allow_remote_code: bool = False,
    max_pixels: int | None = None,
    max_image_tokens: int | None = None,
) -> Vlm:
    """Load an image-text-to-text model: `bundled`, a folder, or a name on the Hugging Face hub.

    Args:
        model: which one.
        adapter: a folder in PEFT's layout, or that of a finished alignment.
        dtype: auto (bfloat16 on a GPU, else float32), float32, bfloat16 or float16.
        device: auto (a GPU if there is one), cpu, cuda, ....
        allow_remote_code: let the model bring its own Python code.
        max_pixels: the most pixels that an image is scaled to, for families that scale images or cut them into tiles.
        max_image_tokens: the most tokens that an image takes, for the same families.

    Raises:
        UserError: a model that isn't there or isn't of this kind, an adapter that doesn't fit, and limits that the
            model's family doesn't have.
    """
    from veridical.vlm.load import load as load_model
    from veridical.vlm.model.image_limits import ImageLimits

    place = None if adapter is None else Path(adapter).expanduser()
    if place is not None and (place / "adapter").is_dir():
        place /= "adapter"
    return load_model(
        str(model),
        adapter=place,
        dtype=dtype,
        device=device,
        allow_remote_code=allow_remote_code,
        limits=ImageLimits(max_pixels, max_image_tokens),
    )


def wrap(model: Any, processor: Any, *, name: str = "model") -> Vlm:
    """Take a transformers model and its processor that are in memory.

    To train or to measure it, a copy is written to a temporary folder, since both put adapters on a model of their own.
    """
    from veridical.vlm.load import assemble

    return assemble(f"{_WRAPPED}-{name}", model.eval(), processor)


@overload
def build(construction: str | Callable[..., Any] = ..., **given: Any) -> PairSet: ...
@overload
def build(construction: Sequence[str | Callable[..., Any]], **given: Any) -> dict[str, PairSet]: ...
def build(
    construction: str | Callable[..., Any] | Sequence[str | Callable[..., Any]] = "bpo-image",
    *,
    records: str | Path | Sequence[Record] = "world",
    model: str | Path | Vlm = "bundled",
    out: str | Path | None = None,
    judge: Any = None,
    writer: Any = None,
    settings: Any = None,
    **more: Any,
) -> PairSet | dict[str, PairSet]:
    """Make preference pairs that expose what a model makes up.

    Args:
        construction: a name (`veridical list constructions`), a function, or the place of one (`path/file.py:name`);
            or several of these, over the same records.
        records: world, a folder of images, a file of records, or a sequence of `Record`s.
        model: a loaded model, or what `load` takes.
        out: the run folder; the same call continues what is there. A temporary one by default.
        judge: who says what is true, by name or by its settings.
        writer: who makes texts, likewise; the judge by default.
        settings: those of the construction, or a mapping of some of them; of several, a mapping from their names.
        more: further settings of `veridical build`, such as `limit`, `seed` or `batch_size`.

    Returns:
        The pairs, with everything that was left out in `rejects`; of several constructions, those of each by its name.
        With `length_matched` or `size_matched` the part that these make, where there is one.

    Raises:
        UserError: settings that can't be, a folder of another run, and where no pair came out.
    """
    from veridical.constructions.registry import CONSTRUCTIONS
    from veridical.pairs.config import BuildConfig, settings_of
    from veridical.pairs.produce import produce

    several = not isinstance(construction, str) and isinstance(construction, Sequence)
    made = [one if isinstance(one, str) else CONSTRUCTIONS.name_of(one) for one in _listed(construction)]
    chosen = {"constructions": tuple(made)} if several else {"construction": made[0]}
    loaded = None if isinstance(model, str | Path) else model
    given = None if isinstance(records, str | Path) else list(records)
    with _folder(out, "pairs") as (where, keep):
        config = _made(
            BuildConfig,
            more,
            out=where,
            **{"construction": made[0], "constructions": ()} | chosen,
            records="in memory" if given is not None else str(records),
            model=str(model) if loaded is None else loaded.name,
            settings=settings_of(made, several, settings),
            judge=_judge(judge),
            writer=_judge(writer),
        )
        if loaded is not None:
            config = _like(config, loaded)
            if config.processes > 1:
                raise UserError("processes is above 1: several processes load the model by its name; give that.")
        sets = {name: _pairs_of(folder, keep) for name, folder in produce(config, loaded, given).items()}
    return sets if several else sets[made[0]]


def _listed(given: Any) -> list[Any]:
    """Several things as a list, and one as a list of one."""
    return list(given) if not isinstance(given, str) and isinstance(given, Sequence) else [given]


def _pairs_of(folder: Path, keep: Any) -> PairSet:
    found = PairSet.load(folder)
    return PairSet(found, folder=folder, rejects=found.rejects, keep=keep)


def align(
    pairs: PairSet | str | Path | Sequence[PairSet | str | Path],
    *,
    model: str | Path | Vlm = "bundled",
    objective: str | Objective | None = None,
    out: str | Path | None = None,
    **more: Any,
) -> Run:
    """Train an adapter, or the language model itself, on pairs.

    Args:
        pairs: what `build` gave, or a run folder, file or Hub name of pairs; several are joined, as `mix` says.
        model: a loaded model, or what `load` takes; it stays as it is, and is the reference.
        objective: such as `veridical.objectives.Dpo(beta=0.1)`, or a name; DPO with a likelihood term by default.
        out: the run folder; the same call continues what is there. A temporary one by default.
        more: further settings of `veridical align`, such as `learning_rate`, `epochs`, `lora` or
            `mix={"weights": (2, 1)}`.

    Raises:
        UserError: settings that can't be, pairs that can't be used, a folder of another run.
    """
    from veridical.align import command
    from veridical.align.config import AlignConfig
    from veridical.objectives.registry import objective_type
    from veridical.pairs.joining import MixSettings

    chosen = objective_type(objective)() if isinstance(objective, str) else objective
    with _folder(out, "run") as (where, keep), _source(model) as (source, held):
        several = [pairs] if isinstance(pairs, PairSet | str | Path) else list(pairs)
        folders = [_pairs_folder(one) for one in several]
        if len(several) > 1:  # where temporary folders lie must not decide what a set is called
            named = [isinstance(one, PairSet) for one in several]
            folders = [
                (Path(f"set-{number}={folder}") if own else folder, kept)
                for number, (own, (folder, kept)) in enumerate(zip(named, folders, strict=True), start=1)
            ]
        mix = more.pop("mix", None)
        if mix is not None:
            more["mix"] = MixSettings(**mix) if isinstance(mix, Mapping) else mix
        config = _made(
            AlignConfig,
            {**more, **({} if chosen is None else {"objective": chosen})},
            pairs=folders[0][0] if len(folders) == 1 else tuple(folder for folder, _ in folders),
            out=where,
            model=source,
        )
        command.run(config if isinstance(model, str | Path) else _like(config, model))
        summary = read_state(where / "summary.json")
        return Run(where, config.result, source, summary, (keep, held, [kept for _, kept in folders]))


def rl(
    records: str | Path | Sequence[Record] = "world",
    *,
    model: str | Path | Vlm = "bundled",
    kind: str = "grpo",
    rewards: Sequence[str] = ("precision", "coverage", "format"),
    judge: Any = None,
    settings: Any = None,
    out: str | Path | None = None,
    **more: Any,
) -> Run:
    """Train by policy gradient on rewards of the model's own answers.

    Args:
        records: the prompts: world, a folder of images, a file of records, or a sequence of `Record`s.
        model: a loaded model, or what `load` takes; it stays as it is, and is the reference.
        kind: grpo, rloo or ppo.
        rewards: names with weights, such as "precision" and "coverage=0.5" (`veridical list rewards`).
        judge: who says what is true, by name or by its settings.
        settings: those of the algorithm, or a mapping of some of them.
        out: the run folder; the same call continues what is there. A temporary one by default.
        more: further settings of `veridical rl`, such as `groups`, `learning_rate` or `watch`.

    Raises:
        UserError: settings that can't be, records that no reward can judge, a folder of another run.
    """
    from veridical.rl import command
    from veridical.rl.algorithms import algorithm_type
    from veridical.rl.config import RlConfig

    given = None if isinstance(records, str | Path) else list(records)
    with _folder(out, "rl") as (where, keep), _source(model) as (source, held):
        own = algorithm_type(kind)(**settings) if isinstance(settings, Mapping) else settings
        config = _made(
            RlConfig,
            more,
            out=where,
            records="in memory" if given is not None else str(records),
            model=source,
            kind=kind,
            rewards=tuple(rewards),
            settings=own,
            judge=_judge(judge),
        )
        command.run(config if isinstance(model, str | Path) else _like(config, model), given)
        summary = json.loads((where / "summary.json").read_text(encoding="utf-8"))
        return Run(where, config.result, source, summary, (keep, held))


def evaluate(
    models: str | Path | Vlm | Run | Sequence[str | Path | Vlm | Run],
    protocols: Sequence[Any] = (),
    *,
    records: str | Path | None = None,
    out: str | Path | None = None,
    **more: Any,
) -> Evaluation:
    """Measure what models make up and what they leave out, with intervals, paired, and at equal recall.

    Args:
        models: the base first, then runs, adapters or other models: loaded ones, what `align` gave, names or folders.
        protocols: names (`veridical list protocols`), or published benchmarks with their files, such as
            `veridical.protocols.Pope(questions=..., images=...)`. By default what the records allow.
        records: the pictures to measure on, as `veridical eval --records` takes them.
        out: the run folder; the same call continues what is there. A temporary one by default.
        more: further settings of `veridical eval`, such as `limit` or `seed`.

    Raises:
        UserError: models, files or settings that can't be, a folder of another run.
    """
    from veridical.protocols.config import config_type
    from veridical.protocols.evaluation import evaluate as measure
    from veridical.protocols.registry import block_name

    several: list[Any] = list(models) if isinstance(models, list | tuple) else [models]
    blocks = {str(one.protocol): one for one in protocols if not isinstance(one, str)}
    names = [one if isinstance(one, str) else str(one.protocol) for one in protocols]
    settings: dict[str, Any] = {**more, **({} if records is None else {"records": str(records)})}
    if names:
        settings |= {"protocols": tuple(names)} | {block_name(name): block for name, block in blocks.items()}
    with _folder(out, "eval") as (where, keep):
        given = _measured(several)
        config = _made(
            config_type({"protocols": " ".join(names)}), settings, out=where, models=tuple(name for name, _ in given)
        )
        first = next((one for one in several if not isinstance(one, str | Path | Run)), None)
        results = measure(config if first is None else _like(config, first))
        return Evaluation(where, results, (keep, given))


def evaluate_judge(
    judge: Any, pairs: PairSet | str | Path, *, out: str | Path | None = None, **more: Any
) -> JudgeEvaluation:
    """Measure how often a judge or a reward prefers the better side of labelled pairs.

    Args:
        judge: a name (`veridical list judges`) or a judge's settings, such as
            `RewardModelSettings(model="runs/reward")`.
        pairs: what `build` gave, a run folder, or a file or folder of a published set.
        out: the folder to keep; the same call continues what is there. A temporary one by default.
        more: further settings of `veridical judge eval`, such as `by`, `group` or `limit`.

    Raises:
        UserError: pairs that can't be read, a judge that can't say which side is better.
    """
    from veridical.files import read_json
    from veridical.judge_eval.command import RESULTS, JudgeEvalConfig, measure

    source, held = _pairs_folder(pairs)
    with _folder(out, "judge-eval") as (where, keep):
        measure(_made(JudgeEvalConfig, more, judge=_judge(judge), pairs=source, out=where))
        return JudgeEvaluation(where, read_json(where / RESULTS), (keep, held))


def study(
    file: str | Path | Mapping[str, Any] | None = None,
    *,
    out: str | Path | None = None,
    processes: int = 1,
    **given: Any,
) -> StudyResult:
    """Run a grid of runs that differ in one thing at a time, and answer which choice made the difference.

    Args:
        file: a study's file, or what is in one; or give its parts: `base`, `axes`, `arms`, `design`, `seeds`,
            `questions`, ....
        out: the study's folder; the same call continues what is there. A temporary one by default.
        processes: steps that run side by side.
        given: the parts of a study, where no file is given.

    Raises:
        UserError: axes, settings or questions that can't be, before the first run.
    """
    from veridical.config import read_yaml
    from veridical.study import definition
    from veridical.study.command import StudyConfig, run_study

    if file is not None and given:
        raise UserError(f"a study is in its file or in {', '.join(given)}, not in both.")
    content = given if file is None else file if isinstance(file, Mapping) else read_yaml(Path(file).expanduser())
    with _folder(out, "study") as (where, keep):
        run_study(definition.parse(content), where, StudyConfig(processes=processes))
        results = json.loads((where / "results.json").read_text(encoding="utf-8"))
    return StudyResult(where, results, keep)


def score(protocol: str, **given: Any) -> Scores:
    """Score answers that are there already, by a benchmark's official rules.

    Args:
        protocol: its name (`veridical list protocols`), or the place of one's own.
        given: its settings. What names files may be given as what is in them: a mapping from ids to answers or to
            objects, or a sequence of rows. Or `questions` are `veridical.protocols.types.Question`s and `answers` a
            mapping from their ids to texts: then they are counted as they are, without files.

    Raises:
        UserError: answers that don't belong to the questions, and whatever can't be read.
    """
    from veridical.protocols.benchmarks.registry import benchmark
    from veridical.protocols.in_memory import are_questions, count_answers
    from veridical.protocols.score import config_type, result_of

    fields = {one.name for one in _fields(benchmark(protocol).Settings)}
    if are_questions(given.get("questions")):
        return Scores(count_answers(benchmark(protocol), **given))
    with tempfile.TemporaryDirectory(prefix="veridical-score-") as work:
        settings = {name: _as_file(name, value, Path(work)) for name, value in given.items()}
        kind = config_type({"protocol": protocol})
        many = {one.name for one in _fields(kind) if "tuple" in str(one.type)}
        for name, value in settings.items():
            if name in fields and name in many and not isinstance(value, tuple | list):
                settings[name] = (value,)
        return Scores(result_of(_made(kind, settings)))


def report(runs: Any, *, title: str | None = None, pairs: int = 8, captions: int = 12) -> Report:
    """Make one page about any number of pair sets, trainings and evaluations, or their folders.

    Raises UserError for a folder that is no finished run.
    """
    from veridical.report.command import DEFAULT_TITLE
    from veridical.report.page import render
    from veridical.report.runs import read_runs

    several = list(runs) if isinstance(runs, list | tuple) else [runs]
    folders = [Path(one) if isinstance(one, str | Path) else one.folder for one in several]
    if not folders or None in folders:
        raise UserError("report: give finished runs; pairs that are in memory only are saved first, by .save(folder).")
    return Report(render(read_runs(folders), title or DEFAULT_TITLE, pairs, captions))


@contextmanager
def _folder(out: str | Path | None, name: str) -> Iterator[tuple[Path, Any]]:
    """The run folder, and what keeps a temporary one alive."""
    if out is not None:
        yield Path(out).expanduser(), None
        return
    kept = tempfile.TemporaryDirectory(prefix="veridical-")
    yield Path(kept.name) / name, kept


@contextmanager
def _source(model: str | Path | Vlm) -> Iterator[tuple[str, Any]]:
    """A model as commands name it; one that is in memory only is written to a folder, which is kept."""
    if isinstance(model, str | Path):
        yield str(model), None
        return
    if hasattr(model.model, "peft_config"):
        raise UserError(f"{model.name} has an adapter on it; give its base and, to `evaluate`, the adapter's folder.")
    if not model.name.startswith(_WRAPPED):
        yield model.name, None
        return
    kept = tempfile.TemporaryDirectory(prefix="veridical-model-")
    folder = Path(kept.name) / model.name
    model.model.save_pretrained(folder)
    model.processor.save_pretrained(folder)
    yield str(folder), kept


def _measured(models: Sequence[str | Path | Vlm | Run]) -> list[tuple[str, Any]]:
    """Each model as `--models` names it, and what it needs to stay there."""
    found: list[tuple[str, Any]] = []
    runs = sum(isinstance(one, Run) for one in models)
    for number, one in enumerate(models):
        if isinstance(one, Run):
            label = "aligned" if runs == 1 else f"aligned-{number}"
            found.append((f"{label}={one.result}" if one.keep[0] is not None else str(one.result), one))
        else:
            with _source(one) as (source, held):
                found.append((source, held))
    return found


def _pairs_folder(pairs: PairSet | str | Path) -> tuple[Path, Any]:
    if isinstance(pairs, str | Path):
        return Path(pairs).expanduser(), None
    if pairs.folder is not None:
        return pairs.folder, pairs
    kept = tempfile.TemporaryDirectory(prefix="veridical-pairs-")
    return Path(kept.name) / "pairs", (kept, pairs.save(Path(kept.name) / "pairs"))


def _judge(given: Any) -> Any:
    from veridical.judges.registry import settings_type

    return settings_type(given, "judge")() if isinstance(given, str) else given


def _like(config: Any, model: Any) -> Any:
    """Settings with number format, device and image limits of a model in memory, unless they say otherwise."""
    from dataclasses import replace

    found = {}
    if config.dtype == "auto":
        found["dtype"] = str(model.model.dtype).removeprefix("torch.")
    if config.device == "auto":
        found["device"] = str(model.model.device)
    if model.limits and config.max_pixels is None and config.max_image_tokens is None:
        found |= {"max_pixels": model.limits.max_pixels, "max_image_tokens": model.limits.max_image_tokens}
    return replace(config, **found)


def _made(kind: type[Any], given: Mapping[str, Any], /, **own: Any) -> Any:
    """Settings of a command, with bounds checked. Raises UserError for one that there is not."""
    import difflib

    from veridical.bounds import check
    from veridical.config import home_expanded

    known = {one.name for one in _fields(kind)}
    for name in given:
        if name not in known or name in own:
            near = difflib.get_close_matches(name, known - own.keys(), n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(known - own.keys()))}."
            raise UserError(f"no setting {name!r}; {hint}")
    try:
        made = home_expanded(kind(**given, **own))
    except TypeError as error:
        raise UserError(f"{str(error).partition(') ')[2] or error}.") from None
    check(made)
    return made


def _fields(kind: type[Any]) -> tuple[Any, ...]:
    import dataclasses

    return dataclasses.fields(kind)


def _as_file(name: str, value: Any, folder: Path) -> Any:
    """What is given in memory as a file that the benchmark reads; anything else as it is."""
    if isinstance(value, Mapping):
        texts = bool(value) and all(isinstance(one, str) for one in value.values())
        content: Any = [_row(name, key, text) for key, text in value.items()] if texts else dict(value)
    elif isinstance(value, Sequence) and value and all(isinstance(one, Mapping) for one in value):
        content = [dict(row) for row in value]
    else:
        return Path(value) if isinstance(value, str) and Path(value).is_file() else value
    path = folder / f"{name}.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def _row(name: str, key: Any, text: str) -> dict[str, Any]:
    return {"image_id": key, "caption": text} if name == "captions" else {"question_id": key, "text": text}


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _interval(found: Mapping[str, Any] | None) -> str:
    if not found or found["value"] is None:
        return ""
    return f"{found['value']:.1f} [{found['low']:.1f}, {found['high']:.1f}]"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def cells(row: Sequence[str], kind: str) -> str:
        return f"<tr>{''.join(f'<{kind}>{html.escape(cell)}</{kind}>' for cell in row)}</tr>"

    return f"<table>{cells(heads, 'th')}{''.join(cells(row, 'td') for row in rows)}</table>"
