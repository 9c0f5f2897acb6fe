"""`veridical score`: scores answers on disk in the benchmarks' own file formats; needs no model."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from veridical.errors import UserError
from veridical.protocols.benchmarks.registry import BENCHMARKS, Benchmark, benchmark
from veridical.protocols.judging import read_judgements, write_prompts

if TYPE_CHECKING:
    from veridical.protocols.scored import Answers, Question, Scored

SHOWN = 3
MOST_TRUTHS = 10
"""With more, answers are texts rather than labels."""


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """Scores answers on disk: `veridical score PROTOCOL`; `veridical score PROTOCOL --help` lists its files."""

    protocol: str
    """Which benchmark; `veridical score PROTOCOL --help` shows its own settings."""
    out: Path | None = None
    """Save the result as JSON in this file."""
    json: bool = False
    """Print the result as JSON: protocol, metrics, intervals, counts, items."""
    check: bool = False
    """Only read and check the files: counts, categories, missing answers, duplicates."""
    images: Path | None = None
    """With --check: a folder that should hold the images."""
    seed: int = 0
    """Of the resamples behind the intervals."""


def config_type(choices: Mapping[str, str]) -> type[ScoreConfig]:
    """ScoreConfig with the settings of the chosen protocol. Raises UserError for an unknown one."""
    name = choices.get("protocol")
    if name is None:
        return _without_protocol()
    settings = benchmark(name).Settings
    made: type[ScoreConfig] = dataclasses.make_dataclass(
        "ScoreConfig",
        [("protocol", str, field(default=name, kw_only=True))],
        bases=(settings, ScoreConfig),
        frozen=True,
        kw_only=True,
        namespace={"__doc__": BENCHMARKS[name].summary},
    )
    return made


def run(config: ScoreConfig) -> None:
    """Score, print the table or JSON, and save it where asked.

    Raises:
        UserError: a file that is absent, broken or of another form.
    """
    protocol = benchmark(config.protocol)
    questions = protocol.ask(config)
    if config.check:
        _print_check(config, questions)
        return
    answers = protocol.answers(config, questions)
    judged = hasattr(protocol, "prompts") and getattr(protocol, "wants_judge", lambda _: True)(config)
    scored = (_judged if judged else _counted)(config, protocol, questions, answers)
    if scored is None:
        return
    result = scored.to_json(config.seed)
    text = json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    if config.out:
        _save(config.out, text)
    if config.json:
        print(text, end="")
    else:
        show(result)


def _counted(config: Any, protocol: Benchmark, questions: Sequence[Question], answers: Answers) -> Scored:
    return protocol.count(config, questions, answers)


def _judged(config: Any, protocol: Any, questions: Sequence[Question], answers: Answers) -> Scored | None:
    """The score by the judge's texts; None where only the prompts are made."""
    made_from, prompts = protocol.judge_template(config), protocol.prompts(config, questions, answers)
    if config.make_prompts:
        write_prompts(config.make_prompts, prompts, made_from, protocol.JUDGE_MAX_TOKENS, protocol.JUDGE_TEMPERATURE)
        print(f"{len(prompts)} prompts: {config.make_prompts} (template {made_from.hash})")
        return None
    found: Scored = protocol.count(config, questions, answers, read_judgements(config, prompts, made_from))
    return found


def show(result: Mapping[str, Any]) -> None:
    """Print a result as a table, with what was wrong with the answers below."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(result["protocol"]), box=None, padding=(0, 2), pad_edge=False)
    table.add_column("", no_wrap=True)
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("95 %", justify="right", no_wrap=True)
    for name, value in result["metrics"].items():
        low, high = result["intervals"][name]
        table.add_row(
            name, _number(value), "" if low is None or value is None else f"{_number(low)} to {_number(high)}"
        )
    console = Console()
    console.print(table)
    console.print(", ".join(f"{count} {kind}" for kind, count in result["counts"].items()), highlight=False)
    for line in [*_judge(result), *_faults(result["faults"]), *result["notes"]]:
        console.print(f"- {line}", highlight=False, markup=False)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _judge(result: Mapping[str, Any]) -> list[str]:
    return [f"{key}: {value}" for key, value in result.get("judge", {}).items()]


def _faults(faults: Mapping[str, Sequence[str]]) -> list[str]:
    return [
        f"{kind}: {'; '.join(found[:SHOWN])}{f' and {len(found) - SHOWN} more' if len(found) > SHOWN else ''}"
        for kind, found in faults.items()
    ]


def _print_check(config: ScoreConfig, questions: Sequence[Question]) -> None:
    report = check(config, questions)
    print(json.dumps(report, indent=1, ensure_ascii=False) if config.json else _plain(report))


def check(config: ScoreConfig, questions: Sequence[Question]) -> dict[str, Any]:
    """What the files hold: questions, images, categories, truths; and, with answers, what is wrong with them."""
    images = {question.image for question in questions if question.image}
    truths = Counter(str(q.truth) for q in questions if isinstance(q.truth, str))
    report: dict[str, Any] = {
        "questions": len(questions),
        "images": len(images),
        "kinds": dict(Counter(question.kind for question in questions)),
    }
    if len(truths) <= MOST_TRUTHS:
        report["truths"] = dict(truths)
    if config.images:
        report["images_missing"] = sorted(name for name in images if not (config.images / name).is_file())
    if getattr(config, "answers", None):
        found = benchmark(config.protocol).answers(config, questions)
        report["answers"] = len(found.texts)
        report["unanswered"] = [question.id for question in questions if question.id not in found.texts]
        report.update({kind: list(faults) for kind, faults in found.faults.items()})
    return report


def _plain(report: Mapping[str, Any]) -> str:
    lines = []
    for name, value in report.items():
        if isinstance(value, list):
            lines.append(f"{name}: {len(value)}" + (f" ({', '.join(value[:SHOWN])} ...)" if value else ""))
        elif isinstance(value, dict):
            lines.append(f"{name}: " + ", ".join(f"{key or '-'} {number}" for key, number in value.items()))
        else:
            lines.append(f"{name}: {value}")
    return "\n".join(lines)


def _save(path: Path, text: str) -> None:
    from veridical.files import write_whole

    if path.is_dir():
        raise UserError(f"--out {path}: is a folder; give the name of a file.")
    write_whole(path, text.encode())


def _without_protocol() -> type[ScoreConfig]:
    """For `veridical score --help`, which shows the protocols there are."""
    names: Any = Literal[tuple(BENCHMARKS)]
    made: type[ScoreConfig] = dataclasses.make_dataclass(
        "ScoreConfig", [("protocol", names, field(kw_only=True))], bases=(ScoreConfig,), frozen=True, kw_only=True
    )
    return made
