"""Runs targets on mutated inputs and watches what comes of each: what it raises, opens, starts, takes and loses.

A *target* prepares good inputs once, and then tries mutated ones: each try tells how its mutations ended, by name.
Whatever it raises but a UserError is a traceback that a user would have seen.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import resource
import shutil
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from veridical.errors import UserError

SECONDS = 20.0
"""What a try may take at most."""
SECRETS = ("/etc/passwd", "/etc/shadow", "/etc/hostname", "/proc/self/environ", "/dev/zero", "outside/secret")
"""What no input may have read: a file is known by a part of its path."""

_STARTS = ("pickle.find_class", "os.system", "subprocess.Popen", "socket.connect")

Good = Any
Try = Callable[[Good, random.Random, Path], Mapping[str, int]]


@dataclass(frozen=True)
class Target:
    """One kind of input. `tries` make up a whole campaign, `prepare` makes the good input in a folder."""

    name: str
    tries: int
    prepare: Callable[[Path], Good]
    attempt: Try


@dataclass
class Outcome:
    """What came of a target's tries."""

    mutations: Counter[str] = field(default_factory=Counter)
    """How mutations ended: used, refused, rejected, ..."""
    faults: list[str] = field(default_factory=list)
    """What must never happen, with the place, as a sentence."""
    seconds: float = 0.0
    slowest: float = 0.0
    mebibytes: float = 0.0
    """How much the most memory of this process grew."""


class LostError(Exception):
    """Something that came in is neither used nor named."""


class TooSlowError(BaseException):
    """A try took too long. No gate for errors may swallow it."""


def run(target: Target, work: Path, seed: int, share: float = 1.0, first: int = 0) -> Outcome:
    """Make `share` of a target's tries, from number `first` on, and watch them."""
    good = target.prepare(work / "good")
    outside = work / "outside"
    outside.mkdir(parents=True, exist_ok=True)
    (outside / "secret.png").write_bytes(b"nobody reads this")
    outcome, began, before = Outcome(), time.monotonic(), _most_memory()
    watch = _watched()
    for number in range(first, first + max(1, round(target.tries * share))):
        place = work / "try"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        at = time.monotonic()
        watch.active = True
        try:
            with _limited(), _quiet():
                outcome.mutations.update(target.attempt(good, random.Random(f"{seed}/{target.name}/{number}"), place))
        except UserError:
            outcome.mutations["refused"] += 1
        except SystemExit as ended:
            outcome.mutations["refused"] += 1
            if ended.code not in (0, 1, 2):
                outcome.faults.append(f"{target.name} {number}: exit status {ended.code}")
        except LostError as error:
            outcome.faults.append(f"{target.name} {number}: lost: {error}")
        except TooSlowError:
            outcome.faults.append(f"{target.name} {number}: still running after {SECONDS:.0f} s")
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            outcome.faults.append(f"{target.name} {number}: {_told(error)}")
        finally:
            watch.active = False
        outcome.faults += [f"{target.name} {number}: {what}" for what in dict.fromkeys(watch.seen)]
        watch.seen.clear()
        outcome.slowest = max(outcome.slowest, time.monotonic() - at)
    outcome.seconds = time.monotonic() - began
    outcome.mebibytes = max(0.0, _most_memory() - before)
    return outcome


def _told(error: BaseException) -> str:
    """An unforeseen error by its type, message and the last place in veridical."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "veridical" in frame.filename]
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"traceback: {type(error).__name__}: {' '.join(str(error).split())[:160]}{place}"


def _most_memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise TooSlowError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield


class _Watch:
    """What the interpreter says is opened, started or unpickled while a try runs."""

    def __init__(self) -> None:
        self.active = False
        self.seen: list[str] = []

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.active:
            return
        if event == "open" and isinstance(arguments[0], str | bytes):
            path = os.fsdecode(arguments[0])
            if any(secret in path for secret in SECRETS):
                self.seen.append(f"read outside: {path}")
        # Python itself asks `ldconfig` where libraries are, when one of ours is first imported.
        elif event in _STARTS and "ldconfig" not in str(arguments[0]):
            self.seen.append(f"{event}: {str(arguments)[:80]}")


_WATCHES: list[_Watch] = []


def _watched() -> _Watch:
    """The one hook of this process: the interpreter never lets go of one."""
    if not _WATCHES:
        _WATCHES.append(_Watch())
        sys.addaudithook(_WATCHES[0])
    return _WATCHES[0]
