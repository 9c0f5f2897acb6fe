"""What the functions of the Python API return: objects that show themselves in a REPL and a notebook."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from veridical.api.models import load
from veridical.errors import UserError
from veridical.files import read_json_lines

if TYPE_CHECKING:
    from veridical.protocols.statistics import Estimate
    from veridical.vlm.model.loading import Vlm
    from veridical.vlm.model.merging import MergedType


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

    def merge(self, to: str | Path | None = None, *, dtype: MergedType = "float32") -> Path:
        """Write the whole model with the adapter in it; returns its folder, which loads without PEFT, in vLLM too.

        Args:
            to: the folder; `merged` in the run by default.
            dtype: its number type, float32, bfloat16 or float16; the sum is made in float32.

        Raises:
            UserError: a training of the whole model, or an adapter that acts on answers only.
        """
        from veridical.align import publishing

        if not publishing.is_adapter(self.result):
            raise UserError(f"{self.result} is a whole model already.")
        out = self.folder / publishing.MERGED if to is None else Path(to).expanduser()
        return publishing.merge(self.model, self.result, out, dtype)

    def push(
        self,
        repo: str,
        *,
        merged: bool = False,
        dtype: MergedType = "float32",
        private: bool = False,
        license: str = "",
    ) -> str:
        """Push the result with its card to the Hugging Face Hub; returns its address there.

        Args:
            repo: OWNER/NAME, made unless it exists.
            merged: push the whole model with the adapter in it, in the place of the adapter.
            dtype: of the merged model.
            private: make a new repository private.
            license: in the Hub's words, such as apache-2.0.

        Raises:
            UserError: what `merge` refuses, and what the Hub refuses.
        """
        from veridical.align import publishing

        result = self.merge(dtype=dtype) if merged else self.result
        return publishing.push(result, repo, private=private, licence=license)

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
        number = self.results["models"][model][metric]
        return Estimate(number["value"], number["low"], number["high"])

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
        numbers: Mapping[str, float | None] = self.result["metrics"]
        return numbers

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
        accuracy = self.accuracy
        return (
            f"JudgeEvaluation({self.results['judge']}, {self.results['pairs']} pairs, accuracy {accuracy.value:.1%} "
            f"[{accuracy.low:.1%}, {accuracy.high:.1%}]; {self.folder})"
        )

    def _repr_html_(self) -> str:
        rows = [[name, f"{group['accuracy']:.1%}"] for name, group in self.results["groups"].items()]
        return _table(["", repr(self)], rows)


@dataclass(frozen=True)
class StudyResult:
    """A finished study: `results` is what results.json holds; its page is in `folder`."""

    folder: Path
    results: Mapping[str, Any] = field(repr=False)
    keep: Any = field(default=None, repr=False, compare=False)

    @property
    def answers(self) -> Mapping[str, str]:
        """Each question with its answer in a sentence."""
        return {answer["question"]["ask"]: answer["sentence"] for answer in self.results["answers"]}

    @property
    def table(self) -> list[dict[str, Any]]:
        """A row for each arm and metric, with its interval over pictures and seeds."""
        return [
            {"arm": name, **arm["levels"], "metric": metric, **{key: number[key] for key in ("value", "low", "high")}}
            for name, arm in self.results["arms"].items()
            for metric, number in arm["numbers"].items()
            if number is not None
        ]

    @property
    def report(self) -> Report:
        """The page about it."""
        return Report((self.folder / "report.html").read_text(encoding="utf-8"))

    def __repr__(self) -> str:
        told = "".join(f"\n  {question} {answer}" for question, answer in self.answers.items())
        return f"StudyResult({self.results['title']}; {len(self.results['arms'])} arms; {self.folder}){told}"

    def _repr_html_(self) -> str:
        rows = [[row["arm"], row["metric"], _interval(row)] for row in self.table]
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
