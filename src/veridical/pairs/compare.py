"""`veridical data compare`: how several sets of pairs were made, their checks side by side, and subsets of one size."""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from veridical.bounds import Seed
from veridical.errors import UserError
from veridical.files import write_text
from veridical.judges.tokens import words
from veridical.pairs.audit.command import CheckConfig, check_set
from veridical.records import Pair, Provenance

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class CompareConfig:
    """Which sets to compare."""

    sources: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run folders of builds or imports, or files of published sets; NAME=PATH gives one a name."""
    image_root: tuple[Path, ...] = ()
    """Folders that the image paths of published sets start from."""
    lexicon: str | None = None
    """Words by which objects in texts are found: coco80, or a JSON file."""
    json: Path | None = None
    """Write what was found here."""
    subsets: Path | None = None
    """Write a subset of each set to this folder, all of the smallest one's size, drawn with `--seed`."""
    seed: Seed = 0
    """Draws the subsets."""


@dataclass(frozen=True)
class Described:
    """How a set was made, in the study's terms (arXiv 2407.02477, table 1), and numbers about it."""

    name: str
    pairs: int
    images: int
    prompts: int
    prompts_from: Mapping[str, int]
    constructions: Mapping[str, int]
    chosen_from: Mapping[str, int]
    rejected_from: Mapping[str, int]
    judges: Mapping[str, int]
    chosen_words: float
    rejected_words: float
    findings: Mapping[str, str]
    accuracies: Mapping[str, float]


def run(config: CompareConfig) -> list[Described]:
    """Print the sets side by side; write JSON and subsets where asked to. Raises UserError for fewer than two sets."""
    from rich.console import Console

    from veridical.pairs.dataset import read_pairs
    from veridical.pairs.opening import named, pairs_folder

    if len(config.sources) < 2:
        raise UserError("give two sets or more to compare.")
    with tempfile.TemporaryDirectory() as work:
        sets = {
            name: read_pairs(pairs_folder(path, Path(work), config.image_root))
            for name, path in named(config.sources).items()
        }
        described = [describe(name, pairs, config.lexicon, config.seed) for name, pairs in sets.items()]
        Console().print(table(described))
        if config.json:
            import json

            write_text(config.json, json.dumps([asdict(description) for description in described], indent=2) + "\n")
        if config.subsets:
            _write_subsets(config.subsets, sets, config.seed)
    return described


def describe(name: str, pairs: Sequence[Pair], lexicon: str | None = None, seed: int = 0) -> Described:
    """How a set was made, and what `data check` says of it."""
    checked = check_set(pairs, CheckConfig(Path(name), lexicon=lexicon, seed=seed))
    made = [pair.provenance for pair in pairs]
    return Described(
        name=name,
        pairs=len(pairs),
        images=len({image.sha256 for pair in pairs for image in pair.images}),
        prompts=len({pair.prompt for pair in pairs}),
        prompts_from=_counted(map(_prompt_source, made)),
        constructions=_counted(provenance.construction for provenance in made),
        chosen_from=_counted(provenance.chosen_source for provenance in made),
        rejected_from=_counted(provenance.rejected_source for provenance in made),
        judges=_counted(provenance.judge for provenance in made),
        chosen_words=_mean([len(words(pair.chosen)) for pair in pairs]),
        rejected_words=_mean([len(words(pair.rejected)) for pair in pairs]),
        findings={finding.kind: finding.severity for finding in checked.findings if finding.severity != "note"},
        accuracies={
            finding.kind: finding.numbers["accuracy"] for finding in checked.findings if "accuracy" in finding.numbers
        },
    )


def _prompt_source(made: Provenance) -> str:
    """Which set a pair's prompt and image come from, as far as its own set says."""
    names = ("origin_dataset", "dataset", "part", "source", "category", "records")
    return next((str(made.parameters[name]) for name in names if made.parameters.get(name)), "")


def _counted(values: Any) -> dict[str, int]:
    return dict(Counter(value or "not said" for value in values).most_common(4))


def _mean(values: Sequence[int]) -> float:
    return sum(values) / len(values) if values else 0.0


def table(found: Sequence[Described]) -> Table:
    """A column a set, a row a fact."""
    from rich.table import Table

    shown = Table("", *(description.name for description in found), box=None, pad_edge=False)
    for label, value in _ROWS:
        shown.add_row(label, *(value(description) for description in found))
    return shown


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} ({count})" for name, count in counts.items())


_ROWS: tuple[tuple[str, Any], ...] = (
    ("pairs", lambda one: str(one.pairs)),
    ("images", lambda one: str(one.images)),
    ("prompts", lambda one: str(one.prompts)),
    ("prompts from", lambda one: _listed(one.prompts_from)),
    ("construction", lambda one: _listed(one.constructions)),
    ("chosen from", lambda one: _listed(one.chosen_from)),
    ("rejected from", lambda one: _listed(one.rejected_from)),
    ("signal", lambda one: _listed(one.judges)),
    ("words, chosen", lambda one: f"{one.chosen_words:.1f}"),
    ("words, rejected", lambda one: f"{one.rejected_words:.1f}"),
    ("length tells, %", lambda one: _accuracy(one, "length-tells")),
    ("beginning tells, %", lambda one: _accuracy(one, "beginning-tells")),
    ("words tell, %", lambda one: _accuracy(one, "words-tell")),
    ("faults", lambda one: ", ".join(f"{kind} ({severity})" for kind, severity in one.findings.items()) or "none"),
)


def _accuracy(one: Described, kind: str) -> str:
    return f"{one.accuracies[kind]:.1f}" if kind in one.accuracies else ""


def _write_subsets(folder: Path, sets: Mapping[str, Sequence[Pair]], seed: int) -> None:
    from veridical.pairs.dataset import write_build

    size = min(map(len, sets.values()))
    for name, pairs in ((name.replace("/", "-"), pairs) for name, pairs in sets.items()):
        if (folder / name).exists():
            raise UserError(f"{folder / name}: is there already; give --subsets a new folder.")
        write_build(folder / name, subset(pairs, size, seed))
    print(f"{size} pairs of each set in {folder}")


def subset(pairs: Sequence[Pair], size: int, seed: int) -> list[Pair]:
    """`size` of the pairs in their order, the same ones for the same seed."""
    kept = set(random.Random(f"{seed}/subset").sample(range(len(pairs)), min(size, len(pairs))))
    return [pair for place, pair in enumerate(pairs) if place in kept]
