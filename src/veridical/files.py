"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import glob
import json
import os
import re
import shutil
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from veridical.errors import UserError, describe

_PARTIAL = re.compile(r"\.(?P<name>.*?)(?:\.(?P<process>\d+)-\d+)?\.partial|\.partial-.*|.*\.part", re.DOTALL)
"""Names of what is being written: ours, and those of version 0.1.0."""


def partial_name(path: Path) -> Path:
    """The name beside `path` under which it is written; one name a process and thread, and never `path`'s suffix."""
    return path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.partial")


@contextmanager
def whole(path: Path, *, lasting: bool = True) -> Iterator[Path]:
    """Write a file by way of another name in the same folder, so that no reader ever sees half of it.

    Gives that other name; when the block ends without an error, the file takes its place. Processes may write the same
    file at the same time. `lasting` waits until it is safe from a power failure.
    """
    _make_folder(path.parent)
    partial = partial_name(path)
    try:
        yield partial
        if lasting:
            with partial.open("rb+") as file:
                os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"{folder}: is not a folder; give another place.") from None


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Write a folder under a temporary name next to it, and replace an existing one at the end."""
    _make_folder(path.parent)
    partial = partial_name(path)
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        yield partial
        if path.exists():
            shutil.rmtree(path)
        partial.rename(path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def write_whole(path: Path, content: bytes, *, lasting: bool = True) -> None:
    """Write a file whole, as `whole` does."""
    with whole(path, lasting=lasting) as partial:
        partial.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, whole."""
    write_whole(path, text.encode())


def write_json(path: Path, content: Mapping[str, Any], *, allow_nan: bool = True) -> None:
    """Write a mapping as readable JSON, whole; without `allow_nan`, ValueError for what other programs can't read."""
    write_whole(path, _json(content, indent=2, allow_nan=allow_nan) + b"\n")


def _json(content: Any, **how: Any) -> bytes:
    """JSON in UTF-8, as readable as can be: half of a character, which UTF-8 can't hold, is written as its escape."""
    try:
        return json.dumps(content, ensure_ascii=False, **how).encode()
    except UnicodeEncodeError:
        return json.dumps(content, **how).encode()


def write_json_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write mappings as JSON lines, whole."""
    write_whole(path, b"".join(_json(row) + b"\n" for row in rows))


AGAIN = "run the command of this folder again"
"""What to do about a damaged file, where nothing else is known."""


class DamagedError(UserError, ValueError):
    """A file that we wrote holds something else now."""


def read_json(path: Path, remedy: str = AGAIN) -> dict[str, Any]:
    """The mapping in a JSON file that we wrote. Raises DamagedError, with the remedy, where it holds anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{path}: damaged ({error}); {remedy}.") from None
    if not isinstance(content, dict):
        raise DamagedError(f"{path}: damaged (no JSON object); {remedy}.")
    return content


_ANYTHING: Mapping[str, type] = MappingProxyType({})


def read_state(path: Path, kinds: Mapping[str, type] = _ANYTHING, remedy: str = AGAIN) -> dict[str, Any]:
    """The mapping in a JSON file of a run folder, which may have been damaged or edited since it was written.

    `kinds` are what it must hold, by name. Raises UserError, with the remedy, where it is missing or something else.
    """
    try:
        content = read_json(path, remedy)
    except FileNotFoundError:
        raise UserError(f"{path}: is missing; {remedy}.") from None
    except OSError as error:
        raise UserError(f"{path}: damaged ({error}); {remedy}.") from None
    if wrong := [name for name, kind in kinds.items() if not isinstance(content.get(name), kind)]:
        raise UserError(f"{path}: damaged ({', '.join(wrong)} missing or no {kinds[wrong[0]].__name__}); {remedy}.")
    return content


@contextmanager
def naming(path: Path, remedy: str = AGAIN) -> Iterator[None]:
    """Turn what comes of using a damaged file's content into a UserError that names the file and the remedy."""
    try:
        yield
    except UserError:
        raise
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, ArithmeticError, RecursionError) as error:
        raise UserError(f"{path}: damaged ({describe(error)}); {remedy}.") from error


def read_json_lines(path: Path, remedy: str = AGAIN) -> list[dict[str, Any]]:
    """The mappings in a file of JSON lines, split at line feeds alone: a text may hold U+2028 and its like.

    Raises UserError, with the remedy, where it is missing or holds anything else.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror or error}); {remedy}.") from None
    numbered = [(number, line) for number, line in enumerate(content.split(b"\n"), 1) if line]
    return [_row(line, f"{path}, line {number}", remedy) for number, line in numbered]


def _row(line: bytes, place: str, remedy: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place}: not JSON ({error}); {remedy}.") from None
    if not isinstance(row, dict):
        raise UserError(f"{place}: no JSON object; {remedy}.")
    return row


def try_lock(descriptor: int) -> bool:
    """Lock an open file for this process, until it is closed; whether that worked, as it doesn't while another has it.

    Raises OSError on disks that know no locks.
    """
    if sys.platform == "win32":
        import msvcrt

        # Windows lets nobody read what is locked: a byte after the text that names the holder.
        place = os.lseek(descriptor, 0, os.SEEK_CUR)
        os.lseek(descriptor, 2**20, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        finally:
            os.lseek(descriptor, place, os.SEEK_SET)
        return True
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_partial(name: str) -> bool:
    """Whether a file or folder of this name is one that was being written."""
    return _PARTIAL.fullmatch(name) is not None


def final_name(path: Path) -> Path:
    """The name that a file gets once it is whole; any other path as it is."""
    match = _PARTIAL.fullmatch(path.name)
    return path.with_name(match["name"]) if match and match["name"] else path


def remove_partial(folder: Path, skip: Callable[[Path], bool] = lambda _: False) -> None:
    """Remove what killed processes left half-written in a folder and below it.

    What a process that still lives is writing stays, as do folders below for which `skip` is true.
    """
    for place, folders, names in os.walk(folder):
        inside = Path(place)
        for name in [*folders, *names]:
            if is_partial(name) and not _being_written(name):
                shutil.rmtree(inside / name) if name in folders else (inside / name).unlink(missing_ok=True)
        folders[:] = [name for name in folders if not is_partial(name) and not skip(inside / name)]


def remove_partial_of(path: Path) -> None:
    """Remove what killed processes left of one file on its way to its name."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        if is_partial(leftover.name) and not _being_written(leftover.name):
            leftover.unlink(missing_ok=True)


def is_alive(process: int) -> bool:
    """Whether a process of this machine lives."""
    if sys.platform == "win32":  # where `os.kill` ends what it is asked about
        import psutil

        return bool(psutil.pid_exists(process))
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _being_written(name: str) -> bool:
    match = _PARTIAL.fullmatch(name)
    process = int(match["process"] or 0) if match else 0
    # Our own number is a killed process's: containers give the same one again.
    return process not in (0, os.getpid()) and is_alive(process)
