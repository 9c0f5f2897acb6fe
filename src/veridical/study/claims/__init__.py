"""What papers claim, each as a small study, and the ledger of verdicts.

A claim is supported where every question of its study comes out as the paper says: the interval of the difference lies
on that side of zero, over the study's seeds, corrected for the number of its comparisons, at equal recall where
captions are compared. It is contradicted where one comes out the other way, and undecided otherwise.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml

from veridical import files
from veridical.errors import UserError
from veridical.progress import clock
from veridical.study import definition

Verdict = Literal["supported", "contradicted", "undecided", "failed", "not run"]
TESTED: tuple[Verdict, ...] = ("supported", "contradicted", "undecided", "failed")
LEDGER, TABLE = "claims.json", "claims.md"
SUPPORT = "the 95 % interval of the paired difference excludes 0 in the stated direction, over three seeds, after Holm"
BASE: Mapping[str, Any] = {
    "model": "bundled",
    "records": "world:sft",
    "limit": 480,
    "size": 360,
    "objective": {"name": "dpo", "beta": 0.3, "nll_weight": 3},
    "align": {"learning_rate": 1e-3, "micro_batch": 16, "held_out": 0},
    "eval": {"limit": 250, "protocols": ["world-chair"]},
}
"""What all claims have in common where they say nothing else: as many pairs in every set, so that claims share runs,
and 500 held-out pictures, half of each split."""


@dataclass(frozen=True)
class Claim:
    """A sentence of a paper, with its source and the study that puts it to the test."""

    number: int
    name: str
    claim: str
    source: str
    small_model: str
    """Why the bundled model may differ from a 7B, in a sentence."""
    study: Mapping[str, Any]


def claims() -> list[Claim]:
    """All claims, by number."""
    found = [
        Claim(**yaml.safe_load(one.read_text(encoding="utf-8")))
        for one in resources.files(__name__).iterdir()
        if one.name.endswith(".yaml")
    ]
    return sorted(found, key=lambda claim: claim.number)


def chosen(names: Sequence[str]) -> list[Claim]:
    """The claims of some names or numbers, all of them without. Raises UserError for one that there is not."""
    every = claims()
    known = {key: claim for claim in every for key in (claim.name, str(claim.number))}
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, [claim.name for claim in every], n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(claim.name for claim in every)}."
            raise UserError(f"no claim {name!r}; {hint}")
    return [known[name] for name in names] if names else every


def study_of(claim: Claim, limit: int | None = None) -> definition.Study:
    """The study that puts a claim to the test, on `limit` records instead of its own number where that is given."""
    own = dict(claim.study)
    base = {**BASE, **own.pop("base", {}), **({} if limit is None else {"limit": limit})}
    return definition.parse({"title": claim.claim, "seeds": [0, 1, 2], **own, "base": base}, f"claim {claim.name}")


def run_claims(names: Sequence[str], out: Path, processes: int, dry_run: bool, limit: int | None = None) -> Path:
    """Put claims to the test and write the ledger; returns its path."""
    wanted = chosen(names)
    if dry_run:
        return _shown(wanted, out, processes, limit)
    for claim in wanted:
        row = _tested(claim, out, processes, limit)
        rows = ledger({**known(out), claim.name: row})
        files.write_json(out / LEDGER, rows)
        files.write_text(out / TABLE, table(rows))
    print(table(known(out)))
    print(f"ledger: {out / TABLE}")
    return out / TABLE


def _shown(wanted: Sequence[Claim], out: Path, processes: int, limit: int | None) -> Path:
    """Print what each claim takes once those before it are done."""
    from veridical.steps.stamps import is_done
    from veridical.study.checks import check, estimate
    from veridical.study.plan import plan

    whole = 0.0
    done: set[str] = set()
    for claim in wanted:
        study = study_of(claim, limit)
        made = plan(study, out / "work")
        check(study, made, processes)
        done |= {step.name for step in made.steps if is_done(made, step)}
        left = [step for step in made.steps if step.name not in done]
        seconds = estimate(made, processes, frozenset(done)) or 0.0
        print(f"{claim.number:2} {claim.name}: {len(left)} of {len(made.steps)} steps, about {clock(seconds)}")
        whole += seconds
        done |= {step.name for step in left}
    print(f"{len(wanted)} claim{'s' * (len(wanted) > 1)}: about {clock(whole)}")
    return out


def _tested(claim: Claim, out: Path, processes: int, limit: int | None) -> dict[str, Any]:
    """Run a claim's study; all claims share one folder, so that what two need is made once."""
    from veridical.steps.execute import execute
    from veridical.steps.lock import locked
    from veridical.study.measure import measure
    from veridical.study.plan import plan
    from veridical.study.results import collect

    study = study_of(claim, limit)
    made = plan(study, out / "work")
    print(f"claim {claim.number}, {claim.name}: {len(made.cells)} cells", flush=True)
    with locked(out / "work") as lock:
        execute(made, processes, lock)
    try:
        results = collect(study, made, measure(made))
    except UserError as error:
        return {**_row(claim), "verdict": "failed", "numbers": str(error)}
    files.write_json(out / f"{claim.number:02}-{claim.name}.json", results, allow_nan=False)
    found = verdict(results)
    if limit is not None:
        found["numbers"] = f"Tried on {limit} records only. {found['numbers']}"
    return {**_row(claim), **found, "seeds": results["seeds"]}


def verdict(results: Mapping[str, Any]) -> dict[str, Any]:
    """What a claim's study says of it, and its numbers in a sentence."""
    found: Verdict
    holds = [answer["holds"] for answer in results["answers"]]
    measured = [answer["verdict"] != "not measured" for answer in results["answers"]]
    if not all(measured):
        found = "failed"
    else:
        found = "contradicted" if False in holds else "undecided" if None in holds else "supported"
    return {"verdict": found, "numbers": " ".join(answer["sentence"] for answer in results["answers"])}


def _row(claim: Claim) -> dict[str, Any]:
    return {"number": claim.number, "name": claim.name, "claim": claim.claim, "source": claim.source,
            "support": SUPPORT, "small_model": claim.small_model}  # fmt: skip


def known(out: Path) -> dict[str, Any]:
    """The rows that a folder's ledger has, by claim."""
    return files.read_json(out / LEDGER) if (out / LEDGER).exists() else {}


def ledger(rows: Mapping[str, Any]) -> dict[str, Any]:
    """All claims in order, with what was measured; others are not run."""
    tested = {name: row for name, row in rows.items() if row["verdict"] in TESTED}
    return {
        claim.name: tested.get(claim.name, {**_row(claim), "verdict": "not run", "numbers": ""}) for claim in claims()
    }


def table(rows: Mapping[str, Any]) -> str:
    """A ledger as a table."""
    lines = [
        f"A claim is supported where {SUPPORT}; captions at equal recall. Command: `veridical study --claims`.",
        "",
        "| | claim | source | verdict | in numbers | why a small model may differ |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows.values():
        cells = [
            row["number"],
            row["claim"],
            row["source"],
            f"**{row['verdict']}**",
            row["numbers"],
            row["small_model"],
        ]
        lines.append(f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join([*lines, ""])
