"""`veridical data check`: what is wrong with a set of pairs, as text, JSON and a page, and a cleaned copy of it."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from veridical.bounds import Positive, Seed
from veridical.errors import UserError
from veridical.files import write_json_lines, write_text
from veridical.pairs.audit.finding import Checked, Finding
from veridical.records import Pair


@dataclass(frozen=True)
class CheckConfig:
    """Which pairs, and what to check them against."""

    source: Annotated[Path, tyro.conf.Positional]
    """Run folder of a build or an import, or a file or folder of a published set or in TRL's shape."""
    image_root: tuple[Path, ...] = ()
    """Folders that a published set's image paths start from."""
    evaluated: tuple[Path, ...] = ()
    """Folders or files of images that models will be measured on: none of them may be in the set."""
    lexicon: str | None = None
    """Words by which objects in texts are found: coco80, or a JSON file."""
    annotations: Path | None = None
    """A JSON file {record id: [object names]}: what is really in the images, to tell what the texts invent."""
    json: Path | None = None
    """Write all findings here, with the ids of the pairs."""
    page: Path | None = None
    """Write a page with pictures of the pairs found here."""
    fix: Path | None = None
    """Write the set without the pairs at fault to this folder, with `left_out.jsonl` for the others and the reasons."""
    warnings_too: bool = False
    """Let `--fix` leave out what only a warning is about, and the exit status tell of warnings."""
    seed: Seed = 0
    """Decides which pairs a classifier is tested on."""
    model: str = ""
    """A model, by name or folder, or `bundled`, to tell by its implicit reward which side it prefers; with --adapter,
    against itself without it, else against --reference."""
    adapter: str | None = None
    """The adapter of --model."""
    reference: str = ""
    """What --model was trained from, where it has no adapter."""
    margin_pairs: Positive = 500
    """Pairs that the model reads, evenly spread over the set."""

    def __post_init__(self) -> None:
        if self.model and (self.adapter is None) == (not self.reference):
            raise UserError("model: give --adapter, or --reference: an implicit reward compares two models.")
        if not self.model and (self.adapter or self.reference):
            raise UserError("adapter and reference go with --model.")


def run(config: CheckConfig) -> Checked:
    """Check a set and print what was found. Exits 1 where an error was, for use in scripts.

    Raises UserError where there are no pairs to check.
    """
    from veridical.pairs.dataset import read_pairs
    from veridical.pairs.opening import pairs_folder

    with tempfile.TemporaryDirectory() as work:
        folder = pairs_folder(config.source, Path(work), config.image_root)
        pairs = read_pairs(folder)
        unread = _rejects(folder)
        checked = check_set(pairs, config, tuple(_import_findings(folder, unread)))
        _show(config.source, checked)
        if config.json:
            write_text(config.json, json.dumps(_plain(checked), indent=2, ensure_ascii=False) + "\n")
        if config.page:
            from veridical.pairs.audit.page import render

            write_text(config.page, render(str(config.source), checked, pairs))
            print(f"page: {config.page}")
        if config.fix:
            _fix(config, pairs, checked, unread)
    if not checked.ok(config.warnings_too):
        sys.exit(1)
    return checked


def check_set(pairs: Sequence[Pair], config: CheckConfig, before: Sequence[Finding] = ()) -> Checked:
    """All findings about some pairs. `before` are findings of how they were read."""
    from veridical.pairs.audit.content import check_content
    from veridical.pairs.audit.images import check_images
    from veridical.pairs.audit.shortcuts import check_shortcuts
    from veridical.pairs.audit.texts import check_texts

    lexicon, present = _words(config)
    problems = [
        *before,
        *check_texts(pairs),
        *check_images(pairs, _evaluated(config.evaluated)),
        *check_shortcuts(pairs, config.seed),
        *check_content(pairs, lexicon, present),
        *_margins(pairs, config),
    ]
    order = ("error", "warning", "note")
    return Checked(len(pairs), tuple(sorted(problems, key=lambda one: order.index(one.severity))))


def _margins(pairs: Sequence[Pair], config: CheckConfig) -> Iterator[Finding]:
    if config.model:
        from veridical.pairs.audit.margins import check_margins

        yield from check_margins(pairs, config.model, config.adapter, config.reference, config.margin_pairs)


def _imported(folder: Path) -> dict[str, Any]:
    """What the manifest of an imported set says; empty for what veridical built itself."""
    from veridical.files import read_state

    path = folder / "manifest.json"
    about = read_state(path) if path.exists() else {}
    return about if "import" in about else {}


def _rejects(folder: Path) -> list[dict[str, Any]]:
    """The rows of an imported set that can't be used."""
    from veridical.files import read_json_lines

    path = folder / "rejects.jsonl"
    return list(read_json_lines(path)) if _imported(folder) and path.exists() else []


def _import_findings(folder: Path, unread: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    """What reading the set left out; nothing for what veridical built itself."""
    about = _imported(folder)
    by_reason: dict[str, list[Mapping[str, Any]]] = {}
    for one in unread:
        by_reason.setdefault(str(one["reason"]), []).append(one)
    for reason, rows in by_reason.items():
        first = str(rows[0]["detail"] or reason)
        text = f"{len(rows)} rows can't be used: {reason} (the first: {first[:160]})"
        yield Finding(f"row-{reason}", "error", text, str(rows[0]["remedy"]), tuple(str(one["id"]) for one in rows))
    if not about:
        return
    if unknown := about["import"]["unknown_fields"]:
        listed = ", ".join(f"{name} ({count})" for name, count in unknown.items())
        yield Finding("unknown-fields", "note", f"fields that {about['import']['format']} doesn't define: {listed}")


def _words(config: CheckConfig) -> tuple[Any, dict[str, frozenset[str]]]:
    from veridical.judges.lexicon_sources import find_words

    lexicon = None
    if config.lexicon is not None:
        words = find_words(config.lexicon, False, ())
        lexicon = words.lexicon if words else None
    if config.annotations is None:
        return lexicon, {}
    if lexicon is None:
        raise UserError("--annotations needs --lexicon, which says what objects are called in texts.")
    try:
        listed = json.loads(config.annotations.read_text(encoding="utf-8"))
        return lexicon, {str(name): frozenset(map(str, objects)) for name, objects in listed.items()}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise UserError(f"{config.annotations}: not a JSON object of lists of names ({error}).") from None


def _evaluated(sources: Sequence[Path]) -> Iterator[Path]:
    from veridical.formats.folder import IMAGE_SUFFIXES

    for source in sources:
        if source.is_file():
            yield source
        elif source.is_dir():
            yield from sorted(path for path in source.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
        else:
            raise UserError(f"{source}: no such folder or file of evaluation images.")


def _show(source: Path, checked: Checked) -> None:
    print(f"{source}: {checked.pairs} pairs")
    for finding in checked.findings:
        print(f"  {finding.severity:<8} {finding.text}" + (f". Remedy: {finding.remedy}" if finding.remedy else ""))
        if finding.pairs:
            more = f" and {len(finding.pairs) - 3} more" if len(finding.pairs) > 3 else ""
            print(f"{'':11}{', '.join(finding.pairs[:3])}{more}")


def _plain(checked: Checked) -> dict[str, Any]:
    findings = [{**asdict(finding), "leave_out": sorted(finding.leave_out)} for finding in checked.findings]
    return {"pairs": checked.pairs, "ok": checked.ok(), "findings": findings}


def _fix(config: CheckConfig, pairs: Sequence[Pair], checked: Checked, unread: Sequence[Mapping[str, Any]]) -> None:
    from veridical.pairs.dataset import write_build

    assert config.fix is not None
    if config.fix.exists() and any(config.fix.iterdir()):
        raise UserError(f"{config.fix}: isn't empty; give --fix a new folder.")
    reasons = _left_out(checked, config.warnings_too)
    kept = [pair for pair in pairs if pair.id not in reasons]
    if not kept:
        raise UserError(f"{config.source}: no pair is without a fault; nothing was written.")
    write_build(config.fix, kept)
    left = [{"id": name, "reasons": why} for name, why in reasons.items()]
    left += [
        {"id": one["id"], "reasons": [f"row-{one['reason']}"], "detail": one["detail"], "remedy": one["remedy"]}
        for one in unread
    ]
    write_json_lines(config.fix / "left_out.jsonl", left)
    print(f"{len(kept)} pairs in {config.fix}, {len(left)} left out (left_out.jsonl says why)")


def _left_out(checked: Checked, warnings_too: bool) -> Mapping[str, list[str]]:
    reasons: dict[str, list[str]] = {}
    for finding in checked.findings:
        if finding.severity == "error" or warnings_too:
            for name in sorted(finding.leave_out):
                reasons.setdefault(name, []).append(finding.kind)
    return reasons
