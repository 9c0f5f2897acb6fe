"""Files and folders from outside that a plan's steps read: photographs, models, sets of pairs.

Steps are known by their settings, which name a folder and not what is in it. So what is in it is kept beside the steps,
and a folder that was changed under its old name is refused where results of the old one would be taken for its own.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from veridical import files, runs
from veridical.errors import UserError
from veridical.steps.stamps import read_stamp

if TYPE_CHECKING:
    from veridical.steps.step import Steps

KEPT = "inputs.json"
NAMED = ("records", "held_out", "model", "models", "adapter", "pairs")
"""Settings that name a source in words or as a path; others are paths by their type or known by their content."""
SEVERAL = ("models", "pairs")
"""Those that may be given as NAME=PATH."""
COMPRESSED = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".avif", ".heic")
"""Images whose size tells one from another: reading a folder of photographs whole takes too long."""
BESIDE = (".yaml", ".yml", ".ini", ".db", ".log", ".html", ".md")
"""Files that may lie beside data or weights and are no part of them."""


def settle_inputs(plan: Steps) -> None:
    """Keep what the steps' inputs hold.

    Raises UserError for one that was changed since a step that names it was done.
    """
    before, now = _kept(plan.out / KEPT), {}
    for source, users in sorted(_sources(plan).items()):
        held = now[source] = contents(Path(source).expanduser(), plan.out)
        then = before.get(source, held)
        done = [name for name in users if (stamp := read_stamp(plan.out, plan.step(name))) and stamp.state == "done"]
        if held != then and done:
            counts = f"holds {held['files']:,} files, and held {then['files']:,}"
            how = "holds other content" if held["files"] == then["files"] else counts
            raise UserError(
                f"{source}: {how} when `{done[0]}` was done. Give the changed one another name in the settings, and "
                f"only what needs it is made anew; or give --out a new folder than {plan.out}."
            )
    if now:
        files.write_json(plan.out / KEPT, {**before, **now})


def _kept(path: Path) -> dict[str, dict[str, Any]]:
    """What the file says; what is damaged in it is not known."""
    try:
        found = files.read_json(path)
    except (OSError, ValueError, UserError):
        return {}
    whole = found.items() if isinstance(found, dict) else ()
    return {name: one for name, one in whole if isinstance(one, dict) and one.keys() >= {"files", "sha256"}}


def contents(path: Path, made: Path | None = None) -> dict[str, Any]:
    """How many files there are, and a hash of their names and contents, of photographs' sizes instead of contents.

    Hidden files don't count, nor what lies beside data, nor folders that commands have made in there, such as `made`.
    """
    if path.is_file():
        return {"files": 1, "sha256": runs.content_digest(path)}
    root = path.resolve()
    found = sorted(file for file in root.rglob("[!.]*") if file.is_file() and not _is_beside(file, root))
    own = {made.resolve()} if made else set()
    own |= {file.parent for file in found if file.name in (KEPT, runs.ABOUT) and file.parent != root}
    inside = [file for file in found if own.isdisjoint(file.parents)]
    digest = hashlib.sha256()
    for file in inside:
        what = file.stat().st_size if file.suffix.lower() in COMPRESSED else runs.content_digest(file)
        digest.update(f"{file.relative_to(root)}\n{what}\n".encode("utf-8", "surrogateescape"))
    return {"files": len(inside), "sha256": digest.hexdigest()}


def _is_beside(file: Path, root: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(root).parts)
    return hidden or file.suffix.lower() in BESIDE


def _sources(plan: Steps) -> dict[str, list[str]]:
    """Inputs by the name that the settings give them, with the steps that name them; not what other steps make."""
    from veridical.world.bundled import is_bundled

    found: dict[str, list[str]] = {}
    for step in plan.steps:
        for source in (*_named(step.settings), *_named(step.more)):
            if not is_bundled(source) and _is_outside(source, plan.out):
                found.setdefault(source, []).append(step.name)
    return found


def _is_outside(source: str, out: Path) -> bool:
    path = _path(source)
    return path is not None and not path.resolve().is_relative_to(out.resolve())


def _path(source: str) -> Path | None:
    """Where a source is; None for one that is no path to anything."""
    try:
        path = Path(source).expanduser()
        return path if path.exists() else None
    except (OSError, RuntimeError, ValueError):
        return None


def _named(settings: Any) -> Iterator[str]:
    """What settings that change results name as a source, inside other settings too."""
    if isinstance(settings, Mapping):
        for name, value in settings.items():
            yield from _of_value(str(name), value, path=False)
    elif dataclasses.is_dataclass(settings):
        for field in dataclasses.fields(settings):
            if field.name in NAMED or field.metadata.get("affects_result", True):
                known = bool(field.metadata.get("by_content"))
                yield from _of_value(field.name, getattr(settings, field.name), path=True, known=known)


def _of_value(name: str, value: Any, *, path: bool, known: bool = False) -> Iterator[str]:
    for one in value if isinstance(value, tuple | list) else (value,):
        if (isinstance(one, Path) and path) or (isinstance(one, str) and one and (known or name in NAMED)):
            label, equals, rest = str(one).partition("=")
            yield rest if equals and label and name in SEVERAL and _path(str(one)) is None else str(one)
        else:
            yield from _named(one)
