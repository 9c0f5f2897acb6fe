"""Run folders on object storage: `--out s3://bucket/run`, or any other URL that fsspec can write.

Such storage knows neither locks nor renaming nor appending, which a run folder that survives a crash is made of. So the
work goes on in a folder of this machine, and every few seconds what is new there is copied up, in the order in which it
was written: a finished shard before the mark that says so. What is up there can be continued on any machine, which
first copies it down. One process at a time may hold a place.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shutil
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from veridical import files, ranks
from veridical.errors import UserError
from veridical.store import default_folder

Config = TypeVar("Config")
EVERY = 20.0
"""Seconds between two copies of what is new."""
HELD = 120.0
"""Seconds after its last sign for which a place counts as held."""
STATE = ".veridical-place.json"
# One slash where the name went through a Path; a single letter is a disk of Windows.
_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.\-]+):/{1,2}(?P<rest>.+)", re.DOTALL)
_NO_STORAGE = ("hf", "http", "https")
FOLDERS = ("run", "demo", "build", "align", "loop", "rl", "eval")
"""Commands whose `out` is a folder that may be on object storage."""


def is_url(place: str | Path) -> bool:
    """Whether a place is on object storage, and not on a disk, the Hub or a web server."""
    match = _URL.fullmatch(str(place))
    return match is not None and match["scheme"].lower() not in _NO_STORAGE


def url_of(place: str | Path) -> str:
    """The URL of a place, as it was before it went through a Path."""
    match = _URL.fullmatch(str(place))
    assert match is not None
    slashes = ":///" if match["scheme"].lower() in ("file", "local") else "://"
    return f"{match['scheme']}{slashes}{match['rest'].lstrip('/')}".rstrip("/")


@contextmanager
def working(config: Config, command: str) -> Iterator[Config]:
    """The settings of `veridical COMMAND` with a folder of this machine in the place of an `out` on object storage.

    What the command writes there is copied up while it works and when it ends, however it does. Raises UserError for
    other settings that are such places, since nothing else is read from there but pairs.
    """
    values: Any = config
    out = getattr(config, "out", None)
    _refuse_others(config)
    if not isinstance(out, Path) or not is_url(out):
        yield config
        return
    if command not in FOLDERS:
        able = ", ".join(FOLDERS)
        raise UserError(f"out {url_of(out)}: `veridical {command}` writes to a disk; only {able} write to such places.")
    with local(out) as folder:
        yield dataclasses.replace(values, out=folder)


def _refuse_others(config: Any, prefix: str = "") -> None:
    for one in dataclasses.fields(config):
        value = getattr(config, one.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            _refuse_others(value, f"{prefix}{one.name}.")
        paths = value if isinstance(value, tuple) else (value,)
        if prefix + one.name in ("out", "pairs"):
            continue
        if wrong := [path for path in paths if isinstance(path, Path) and is_url(path)]:
            raise UserError(
                f"{prefix}{one.name} {url_of(wrong[0])}: only --out, and --pairs of align, may be on object storage; "
                "copy it to a disk, or mount it there."
            )


@contextmanager
def local(out: str | Path) -> Iterator[Path]:
    """The folder of this machine in which a run at a URL is worked on, kept up to date there while the block lasts.

    Raises UserError for storage that can't be reached or written, and for a place where another process is at work.
    """
    if ranks.adopt().count > 1:
        raise UserError(f"{url_of(out)}: several processes need an --out on a disk that all of them share.")
    mirror = _opened(url_of(out))
    mirror.take()
    ended = threading.Event()
    thread = threading.Thread(target=_keep_up, args=(mirror, ended), name="object storage", daemon=True)
    thread.start()
    try:
        yield mirror.folder
    finally:
        ended.set()
        thread.join()
        mirror.push(release=True)
        print(f"{mirror.folder} is copied to {mirror.url}", file=sys.stderr)


def fetched(place: str | Path) -> Path:
    """A copy on this machine of a finished run folder at a URL; any other place as it is. Raises UserError where there
    is none."""
    if not is_url(place):
        return Path(place)
    mirror = _opened(url_of(place))
    if not mirror.pull():
        raise UserError(f"{mirror.url}: holds nothing.")
    return mirror.folder


@dataclass
class Mirror:
    """A place on object storage and its copy on this machine."""

    url: str
    system: Any
    root: str
    folder: Path
    known: dict[str, list[int]] = field(default_factory=dict)
    """What is up there, by path: size and time of the file here that it was copied from."""
    mine: str = field(default_factory=lambda: f"process {os.getpid()} on {socket.gethostname()}")
    _told: bool = False

    @property
    def note(self) -> Path:
        """What this machine knows of the place, beside the copy."""
        return self.folder.with_name(f"{self.folder.name}.json")

    def take(self) -> None:
        """Copy down what is there unless it is here already, and hold the place. Raises UserError where it is held."""
        state = self._state()
        if _lives(str(state.get("holder") or "")) and time.time() - state.get("at", 0) < HELD:
            raise UserError(
                f"{self.url}: {state['holder']} is at work here. Wait until it has ended, or give --out another place."
            )
        self.pull()
        self._say(self.mine)

    def pull(self) -> bool:
        """Make the copy here what is up there, unless it is that or newer; whether anything is there."""
        state = self._state()
        if not state:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.known = {}
        elif state["id"] != self._noted().get("id"):
            with _said(self.url):
                found = [path for path in self.system.find(self.root) if not path.endswith(STATE)]
                with files.whole_folder(self.folder) as fresh:
                    for path in found:
                        target = fresh / self._name(path)
                        target.parent.mkdir(parents=True, exist_ok=True)
                        self.system.get_file(path, str(target))
            self.known = {name: _look(path) for name, path in self._here().items()}
            self._note(state["id"])
        else:
            self.known = self._noted()["files"]
        self.folder.mkdir(parents=True, exist_ok=True)
        return bool(state)

    def push(self, *, release: bool = False) -> None:
        """Copy up what is new here, the oldest first, and take away what is gone."""
        here = {name: (path, _look(path)) for name, path in self._here().items()}
        changed = [name for name, (_, look) in here.items() if self.known.get(name) != look]
        with _said(self.url, self.folder):
            for name in sorted(changed, key=lambda name: here[name][1][1]):
                path, look = here[name]
                target = f"{self.root}/{name}"
                try:
                    self.system.makedirs(target.rpartition("/")[0], exist_ok=True)
                    self.system.put_file(str(path), target)
                except FileNotFoundError:
                    if path.exists():
                        raise
                    continue  # it was there a moment ago
                self.known[name] = look
            for name in [name for name in self.known if name not in here]:
                if self.system.exists(f"{self.root}/{name}"):
                    self.system.rm_file(f"{self.root}/{name}")
                del self.known[name]
        self._say("" if release else self.mine)

    def _say(self, holder: str) -> None:
        state = {"id": uuid.uuid4().hex, "holder": holder, "at": time.time()}
        with _said(self.url, self.folder):
            self.system.makedirs(self.root, exist_ok=True)
            self.system.pipe_file(f"{self.root}/{STATE}", json.dumps(state).encode())
        self._note(str(state["id"]))

    def _state(self) -> dict[str, Any]:
        with _said(self.url):
            try:
                found: dict[str, Any] = json.loads(self.system.cat_file(f"{self.root}/{STATE}"))
            except FileNotFoundError:
                if self.system.exists(self.root) and self.system.find(self.root):
                    raise UserError(f"{self.url}: holds something that is no run; give --out another place.") from None
                return {}
            except (ValueError, AttributeError) as error:
                raise UserError(f"{self.url}/{STATE}: damaged ({error}); give --out another place.") from None
        return found

    def _name(self, path: str) -> str:
        """A file's path below the place. Raises UserError for one that would lie elsewhere."""
        name = path.removeprefix(self.root.rstrip("/")).lstrip("/")
        if ".." in Path(name).parts or Path(name).is_absolute():
            raise UserError(f"{self.url}: holds a file of the name {name!r}, which would lie outside of the folder.")
        return name

    def _here(self) -> dict[str, Path]:
        found = {}
        for place, folders, names in os.walk(self.folder):
            folders[:] = [name for name in folders if not files.is_partial(name)]
            for name in names:
                path = Path(place) / name
                if not files.is_partial(name) and name not in (".lock", STATE):
                    found[path.relative_to(self.folder).as_posix()] = path
        return found

    def _noted(self) -> dict[str, Any]:
        try:
            return files.read_json(self.note) if self.folder.is_dir() else {}
        except (OSError, ValueError):
            return {}

    def _note(self, state: str) -> None:
        files.write_json(self.note, {"url": self.url, "id": state, "files": self.known})


def _lives(holder: str) -> bool:
    """Whether who holds a place may still be at work: not where it was a process of this machine that has ended."""
    match = re.fullmatch(r"process (\d+) on (.*)", holder)
    if match is None or match[2] != socket.gethostname():
        return bool(holder)
    return int(match[1]) != os.getpid() and files.is_alive(int(match[1]))


def _keep_up(mirror: Mirror, ended: threading.Event) -> None:
    while not ended.wait(EVERY):
        try:
            mirror.push()
        except UserError as error:
            if not mirror._told:
                print(f"Warning: {error} It is tried again.", file=sys.stderr)
            mirror._told = True


def _look(path: Path) -> list[int]:
    try:
        about = path.stat()
    except OSError:
        return [0, 0]
    return [about.st_size, about.st_mtime_ns]


def _opened(url: str) -> Mirror:
    import fsspec  # type: ignore[import-untyped]

    folder = default_folder() / "places" / hashlib.sha256(url.encode()).hexdigest()[:16]
    with _said(url):
        try:
            system, root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise UserError(f"{url}: this kind of place can't be used ({error}).") from error
    return Mirror(url, system, str(root).rstrip("/"), folder)


@contextmanager
def _said(url: str, folder: Path | None = None) -> Iterator[None]:
    """Say what the storage's client raises, whichever that is, in a sentence."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        kept = f" What was made is kept in {folder}." if folder else ""
        raise UserError(
            f"{url}: can't be read or written ({str(error)[:200] or type(error).__name__}). Check the place and who "
            f"you are there, and run the same command again.{kept}"
        ) from error
