"""Run folders: one command's settings, work and results, continued by the same command and refused to any other.

run.json     which command started the run, the settings that affect its result, and the hashes of its inputs
config.yaml  all settings, as the same command reads them again
.lock        held by the process that works in the folder, while it does

Settings are marked where they are declared: `field(default=2, metadata=INCIDENTAL)` for one that doesn't affect the
result, `metadata=BY_CONTENT` for a path whose content counts, not its name.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import socket
import sys
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

from veridical import __version__, files
from veridical.bounds import check as check_bounds
from veridical.config import save_resolved, to_plain
from veridical.errors import UserError

ABOUT, LOCK = "run.json", ".lock"
FORMAT = 1
INCIDENTAL: Mapping[str, Any] = MappingProxyType({"affects_result": False})
"""Metadata of a setting that may differ when a run is continued: none of its values changes the result."""
BY_CONTENT: Mapping[str, Any] = MappingProxyType({"by_content": True})
"""Metadata of a setting that may be the path of a file or folder: what is in it is part of the run's identity.
A single word is the name of something that comes with veridical, unless there is a file of that name."""
_OLD = ("manifest.json", "constructions.json", ".work", "key.json", "inputs.json", "reward.json", "round-1")
"""What tells a run folder of version 0.1.0."""
_SHOWN = 8
_PATIENCE = 10.0
"""Seconds to wait for the workers of a process that was killed."""
_WHOLE = 2**24
"""Files of a folder up to this many bytes are hashed whole, larger ones by their size and both ends."""


@dataclass(frozen=True)
class Run:
    """A run folder that this process works in."""

    out: Path

    def settle(self, inputs: Mapping[str, Any]) -> None:
        """Remember what the run works on, such as hashes of its data. Raises UserError if something has changed."""
        about = read(self.out) or {}
        refuse_changes(self.out, about.get("inputs", {}), inputs, "inputs")
        files.write_json(self.out / ABOUT, {**about, "inputs": {**about.get("inputs", {}), **_json(inputs)}})


@contextmanager
def opened(
    out: Path,
    command: str,
    config: Any,
    *,
    more: Mapping[str, Any] | None = None,
    kept: Callable[[], bool] | None = None,
) -> Iterator[Run]:
    """Start a run of `veridical COMMAND` in `out`, or continue the same; while the block lasts, nobody else may.

    Args:
        config: the settings, a dataclass; those that affect the result must be what they were.
        more: what else must be what it was, by name.
        kept: whether the folder holds work worth keeping; where it doesn't, other settings start the run again.

    Raises:
        UserError: `out` holds something else or a run with other settings, can't be written, or is in use.
    """
    check_bounds(config)
    _refuse_foreign(out, command)
    identity = identity_of(config) | dict(more or {})
    with locked(out, command):
        # Again, now that nobody else can start a run here.
        _refuse_foreign(out, command)
        about = read(out)
        continued = about is not None and (kept is None or kept())
        if about is not None and continued:
            refuse_changes(out, about["identity"], identity)
        files.remove_partial(out, skip=is_run)
        if not continued:
            started = {"command": command, "format": FORMAT, "veridical": __version__, "identity": _json(identity)}
            files.write_json(out / ABOUT, started)
        save_resolved(config, out / "config.yaml")
        yield Run(out)


def check(out: Path, command: str, config: Any, *, more: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What run.json of a finished run says. Raises UserError if it is another command's or has other settings."""
    _refuse_foreign(out, command)
    about = read(out) or {}
    refuse_changes(out, about.get("identity", {}), identity_of(config) | dict(more or {}))
    return about


def read(out: Path) -> dict[str, Any] | None:
    """What run.json says: command, identity, inputs. None where there is no run. Raises UserError if it is damaged."""
    path = out / ABOUT
    remedy = f"delete {out} to start it again, or give another folder"
    try:
        about = files.read_json(path, remedy)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UserError(f"{path}: damaged ({error}); {remedy}.") from None
    sound = isinstance(about.get("identity"), dict) and isinstance(about.get("inputs", {}), dict)
    if not sound or "command" not in about:
        raise UserError(f"{path}: damaged (no identity); {remedy}.")
    if about.get("format") != FORMAT:
        raise UserError(
            f"{out}: is a run of veridical {about.get('veridical')}, which this version can't continue. Give --out a "
            "new folder, or continue it with that version."
        )
    return about


def identity_of(config: Any, *, by_content: bool = True) -> dict[str, Any]:
    """The settings that affect the result, as JSON values; with `by_content`, a marked path by what is in it."""
    identity: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if not field.metadata.get("affects_result", True):
            continue
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            identity[field.name] = identity_of(value, by_content=by_content)
        elif by_content and field.metadata.get("by_content") and isinstance(value, tuple):
            identity[field.name] = [
                f"sha256:{found_one}" if (found_one := _content_of(one)) else str(one) for one in value
            ]
        elif by_content and field.metadata.get("by_content") and (digest := _content_of(value)):
            identity[field.name] = f"sha256:{digest}"
        else:
            identity[field.name] = _with_code(to_plain(value)) if by_content else to_plain(value)
    return identity


def _with_code(value: Any) -> Any:
    """A setting that names a user's own method by its file: what is in the file counts too."""
    if isinstance(value, list):
        return [_with_code(item) for item in value]
    match = re.fullmatch(r"(.+\.py)(:[\w.]+)?", value) if isinstance(value, str) else None
    digest = content_digest(Path(match[1]).expanduser()) if match else None
    return f"{value} sha256:{digest}" if digest else value


def content_digest(path: Path) -> str | None:
    """A hash of a file, or of all files in a folder with their names; None where neither is there."""
    try:
        if path.is_file():
            return _file_digest(path)
        if not path.is_dir():
            return None
        digest = hashlib.sha256()
        for file in sorted(path_inside for path_inside in path.rglob("[!.]*") if path_inside.is_file()):
            digest.update(f"{file.relative_to(path)}\n{_file_digest(file)}\n".encode())
        return digest.hexdigest()
    except (OSError, ValueError):
        return None


def _content_of(value: Any) -> str | None:
    if isinstance(value, tuple):
        digests = [_content_of(item) for item in value]
        return hashlib.sha256("\n".join(map(str, digests)).encode()).hexdigest() if any(digests) else None
    if value is None or (isinstance(value, str) and os.sep not in value and not Path(value).is_file()):
        return None
    return content_digest(Path(value))


def refuse_changes(out: Path, before: Mapping[str, Any], now: Mapping[str, Any], what: str = "settings") -> None:
    """Raise UserError that names each setting that is not what it was. Of inputs, compares those that both know."""
    old, new = _flat(before), _flat(_json(now))
    names = old.keys() & new.keys() if what == "inputs" else old.keys() | new.keys()
    changed = [name for name in sorted(names) if old.get(name) != new.get(name)]
    if changed:
        # Another method has other settings; naming each would hide which one it was.
        other_kind = {group for group in before if _names_in(before, group) != _names_in(now, group)}
        told = [n for n in changed if n.partition(".")[0] not in other_kind or n.endswith(".name")] or changed
        lines = [f"{name} was {_shown(old.get(name))}, now {_shown(new.get(name))}" for name in told[:_SHOWN]]
        rest = f"; and {len(told) - _SHOWN} more" if len(told) > _SHOWN else ""
        raise UserError(
            f"{out}: was made with other {what}: {'; '.join(lines)}{rest}. "
            f"Give --out a new folder, or the old {what} to continue."
        )


def _names_in(settings: Mapping[str, Any], group: str) -> set[str]:
    inside = settings.get(group)
    return set(inside) - {"name"} if isinstance(inside, Mapping) else set()


@contextmanager
def locked(out: Path, command: str) -> Iterator[None]:
    """Hold a run folder for this process. Raises UserError, naming the holder, while another one does."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        file = _take(out / LOCK, out)
        _sign(file, command)
    except OSError as error:
        raise UserError(f"{out}: can't be written ({error.strerror or error}); give --out another folder.") from None
    _close_in_children(file)
    with file:
        try:
            yield
        finally:
            with suppress(OSError):
                (out / LOCK).unlink(missing_ok=True)


def _take(path: Path, out: Path) -> IO[str]:
    patience = time.monotonic() + _PATIENCE
    while True:
        file = path.open("a+", encoding="utf-8")
        try:
            free = files.try_lock(file.fileno())
        except OSError:
            print(f"{out}: this disk knows no locks; let no second command use this folder.", file=sys.stderr)
            return file
        if not free:
            file.seek(0)
            holder = file.read().strip()
            file.close()
            if _is_gone(holder) and time.monotonic() < patience:
                time.sleep(0.05)  # a worker of a killed process is about to notice
                continue
            raise UserError(
                f"{out}: {holder or 'another process'} is at work here. Wait until it has ended, or give --out a new "
                "folder."
            )
        # The holder before us may have removed the file between our opening and locking it.
        if path.exists() and os.fstat(file.fileno()).st_ino == path.stat().st_ino:
            return file
        file.close()


def _sign(file: IO[str], command: str) -> None:
    started = datetime.now(UTC).astimezone().strftime("%H:%M on %Y-%m-%d")
    file.truncate(0)
    file.write(f"`veridical {command}` (process {os.getpid()} on {socket.gethostname()}, since {started})\n")
    file.flush()


def _is_gone(holder: str) -> bool:
    """Whether the process that a lock names was one of this machine and has ended; an empty lock is being written."""
    match = re.search(r"\(process (\d+) on (.*), since", holder)
    if match is None:
        return not holder
    return match[2] == socket.gethostname() and not files.is_alive(int(match[1]))


def _close_in_children(file: IO[str]) -> None:
    """A forked worker must not hold the lock after its parent was killed."""
    held = weakref.ref(file)

    def close() -> None:
        if (inherited := held()) is not None:
            inherited.close()

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=close)


def _refuse_foreign(out: Path, command: str) -> None:
    """Raise UserError where `out` is not free for a run of this command."""
    about = read(out)
    if about is None:
        try:
            there = [entry.name for entry in out.iterdir()] if out.is_dir() else [out.name] if out.exists() else []
        except OSError as error:
            raise UserError(f"{out}: can't be read ({error.strerror}); give --out another folder.") from None
        if any(name in _OLD for name in there):
            raise UserError(
                f"{out}: holds a run of an earlier version, which can be read but not continued. Give --out a new "
                "folder, or continue it with veridical 0.1.0."
            )
        if any(name != LOCK and not files.is_partial(name) for name in there):
            raise UserError(f"{out}: exists and is not a run of `veridical {command}`; give --out a new folder.")
    elif about["command"] != command:
        raise UserError(f"{out}: is a run of `veridical {about['command']}`; give --out a new folder.")


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a run, which removes its own leftovers when it is continued."""
    return (folder / ABOUT).exists()


def _file_digest(path: Path) -> str:
    digest, size = hashlib.sha256(), path.stat().st_size
    with path.open("rb") as file:
        if size <= _WHOLE:
            digest.update(file.read())
        else:
            digest.update(f"{size}\n".encode() + file.read(2**20))
            file.seek(-(2**20), os.SEEK_END)
            digest.update(file.read())
    return digest.hexdigest()


def _json(value: Mapping[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(to_plain(value)))
    return plain


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat |= _flat(item, f"{prefix}{key}.") if isinstance(item, Mapping) and item else {f"{prefix}{key}": item}
    return flat
