"""Files and folders from outside that a plan's steps read: photographs, models, sets of pairs.

Steps are known by their settings, which name a folder and not what is in it. So what is in it is kept beside the steps,
and a folder that was changed under its old name is refused, where results of the old one would be taken for its own.
"""

from __future__ import annotations

import dataclasses
import hashlib
import mimetypes
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from veridical import files
from veridical.errors import UserError
from veridical.runs import content_digest

if TYPE_CHECKING:
    from veridical.steps.step import Steps

KEPT = "inputs.json"
NAMED = ("records", "held_out", "model", "models", "adapter", "pairs")
"""Settings that name a source in words or as a path; others are paths by their type."""


def settle_inputs(plan: Steps) -> None:
    """Keep what the steps' inputs hold, the first time that each is used.

    Raises UserError for one that was changed since.
    """
    kept = plan.out / KEPT
    before: Mapping[str, Any] = files.read_json(kept) if kept.exists() else {}
    now = {source: contents(Path(source).expanduser(), plan.out) for source in sorted(_sources(plan))}
    for source, held in now.items():
        if source in before and before[source] != held:
            count, then = held["files"], before[source]["files"]
            how = "holds other content" if count == then else f"holds {count:,} files, and held {then:,}"
            raise UserError(
                f"{source}: {how} since {plan.out} was begun. Give the changed one another name in the settings, and "
                "only what needs it is made anew; or give --out a new folder."
            )
    if now:
        files.write_json(kept, {**before, **now})


def contents(path: Path, made: Path | None = None) -> dict[str, Any]:
    """How many files there are, and a hash of their names and contents, of images' sizes instead of contents.

    Hidden files don't count, nor what is in the folder `made`, which the plan itself fills.
    """
    if path.is_file():
        return {"files": 1, "sha256": content_digest(path)}
    root, own = path.resolve(), made and made.resolve()
    inside = sorted(file for file in root.rglob("[!.]*") if _counts(file, root, own))
    digest = hashlib.sha256()
    for file in inside:
        digest.update(f"{file.relative_to(root)}\n{_content(file)}\n".encode("utf-8", "surrogateescape"))
    return {"files": len(inside), "sha256": digest.hexdigest()}


def _counts(file: Path, root: Path, own: Path | None) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(root).parts)
    return not hidden and not (own is not None and file.is_relative_to(own)) and file.is_file()


def _content(file: Path) -> str | int | None:
    kind = mimetypes.guess_type(file.name)[0] or ""
    return file.stat().st_size if kind.startswith("image/") else content_digest(file)


def _sources(plan: Steps) -> set[str]:
    """Inputs by the name that the settings give them; not what other steps make."""
    from veridical.world.bundled import is_bundled

    out = plan.out.resolve()
    named = {source for step in plan.steps for source in _named(step.settings)}
    there = {source for source in named if not is_bundled(source) and Path(source).expanduser().exists()}
    return {source for source in there if not Path(source).expanduser().resolve().is_relative_to(out)}


def _named(settings: Any) -> Iterator[str]:
    """What settings that change results name as a source, inside other settings too."""
    if not dataclasses.is_dataclass(settings):
        return
    for field in dataclasses.fields(settings):
        if not field.metadata.get("affects_result", True):
            continue
        value = getattr(settings, field.name)
        for one in value if isinstance(value, tuple | list) else (value,):
            if isinstance(one, Path) or (isinstance(one, str) and one and field.name in NAMED):
                # Models may be given as NAME=PATH.
                name, equals, path = str(one).partition("=")
                yield path if equals and not Path(name).exists() else str(one)
            else:
                yield from _named(one)
