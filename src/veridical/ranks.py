"""Several processes of one command: which one this is, by what launched it, and whether the others still live.

torchrun and accelerate (and Ray's trainers) tell a process its place in the environment; Slurm's `srun` does so in
words of its own. The processes find each other at the first one's address, say there every few seconds that they live,
and wait there for each other. One that has died or hangs is noticed within two minutes, whatever the others are doing.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from veridical.errors import UserError

BEAT = 5.0
"""Seconds between two signs of life."""
PATIENCE = 90.0
"""Seconds without a sign of life after which a process counts as gone."""
GRACE = 10.0
"""Seconds for what runs to end by itself once another process is gone; then this one ends."""
STOPPING = 600.0
"""The same where another process was stopped, as by Ctrl-C: this one was too, and may have a checkpoint to write."""
_STOPPED = "it was stopped"
_AGAIN = "run the same command again, in as many processes, to continue"
_DIGITS = re.compile(r"(?P<name>[^\[,]+?)(?:\[(?P<first>\d+)[^\]]*\])?(?:,|$)")


@dataclass(frozen=True)
class Place:
    """This process among those of a command: its number, how many there are, and its number on this machine."""

    index: int = 0
    count: int = 1
    local: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes what there is one of, and talks to the user."""
        return self.index == 0


def adopt(environment: MutableMapping[str, str] = os.environ) -> Place:
    """This process's place. What Slurm says is put into torch's words, which everything below goes by.

    A job's script is no step of it: only what `srun` started is one of several.
    """
    count = environment.get("SLURM_STEP_NUM_TASKS", "1")
    if "WORLD_SIZE" not in environment and int(count) > 1:
        job, step = (int(environment.get(f"SLURM_{name}_ID", "0")) for name in ("JOB", "STEP"))
        environment["RANK"], environment["WORLD_SIZE"] = environment["SLURM_PROCID"], count
        environment["LOCAL_RANK"] = environment.get("SLURM_LOCALID", "0")
        environment.setdefault("MASTER_ADDR", first_host(environment.get("SLURM_STEP_NODELIST", "localhost")))
        environment.setdefault("MASTER_PORT", str(20_000 + (131 * job + step) % 20_000))
    read = {name: int(environment.get(name, default)) for name, default in _TORCH.items()}
    return Place(read["RANK"], read["WORLD_SIZE"], read["LOCAL_RANK"])


_TORCH = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}


def first_host(hosts: str) -> str:
    """The first name of a list as Slurm writes it: gpu003 of "gpu[003-010,17],cpu1"."""
    match = _DIGITS.match(hosts)
    return hosts if match is None else match["name"] + (match["first"] or "")


@dataclass
class Company:
    """The processes of a command; alone, everything here is done at once."""

    place: Place
    store: Any = None
    """Where they meet: torch's key-value store at the first process."""
    lost: list[str] = field(default_factory=list)
    """What to tell the user of a process that is gone."""
    _told: int = 0

    def meet(self) -> None:
        """Wait until all processes are here, however long that takes. Raises UserError where one is gone."""
        if self.place.count > 1:
            meet(self.store, self.place.count, lambda: self.lost[:1])

    def from_first(self, value: Callable[[], str]) -> str:
        """A text that the first process makes, in all of them. Where it raises UserError, so do the others."""
        if self.place.count == 1:
            return value()
        self._told += 1
        key = f"told/{self._told}"
        if self.place.is_first:
            try:
                found = value()
            except UserError as error:
                self.store.set(key, json.dumps({"error": str(error)}))
                self.meet()
                raise
            self.store.set(key, json.dumps({"value": found}))
        self.meet()
        told = json.loads(self.store.get(key))
        if "error" in told:
            raise UserError(f"process 0 said: {told['error']}")
        return str(told["value"])

    def require_same(self, what: str, value: object) -> None:
        """Raise UserError in every process where one has another value than the first."""
        if self.place.count == 1:
            return
        self._told += 1
        digest = hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
        self.store.set(f"same/{self._told}/{self.place.index}", digest)
        self.meet()
        found = [self.store.get(f"same/{self._told}/{index}").decode() for index in range(self.place.count)]
        if others := [index for index, one in enumerate(found) if one != found[0]]:
            raise UserError(
                f"Process {others[0]} has other {what} than process 0; start all with the same command and files, on "
                "a disk that all machines share."
            )


def meet(store: Any, count: int, lost: Callable[[], list[str]] = list) -> None:
    """Wait at a store until `count` processes do; all must come equally often. Raises UserError for what is `lost`."""
    number = store.add("met", 1)
    wanted = -(-number // count) * count
    pause = 0.002
    while store.add("met", 0) < wanted:
        if told := lost():
            raise UserError(told[0])
        time.sleep(pause)
        pause = min(2 * pause, 0.2)


@contextmanager
def joined() -> Iterator[Company]:
    """The processes that this one was started with, while the block lasts; alone where nothing launched several.

    Raises UserError where the first process can't be found. However the block ends, the others are told.
    """
    place = adopt()
    if place.count == 1:
        yield Company(place)
        return
    company = Company(place, _found(place))
    left = threading.Event()
    watch = threading.Thread(target=_watch, args=(company, company.store.clone(), left), name="ranks", daemon=True)
    watch.start()
    said = "it failed"
    try:
        yield company
        said = ""
    except (KeyboardInterrupt, SystemExit):
        said = _STOPPED
        raise
    except UserError as error:
        said = str(error)
        raise
    finally:
        left.set()
        watch.join(BEAT)
        _leave(company, said)


def _leave(company: Company, said: str) -> None:
    """Tell the others; the first process, at whose address they meet, waits a moment for them to leave too."""
    others = [f"left/{index}" for index in range(1, company.place.count)]
    until = time.monotonic() + 2 * BEAT
    try:
        company.store.set(f"left/{company.place.index}", said)
        while company.place.is_first and time.monotonic() < until and not company.store.check(others):
            time.sleep(0.05)
    except RuntimeError:
        return  # the first process is gone, and nobody is left to tell


def require_alone(what: str, instead: str) -> None:
    """Raise UserError where a launcher started several processes of a command that is one."""
    if adopt().count > 1:
        raise UserError(f"{what} runs in one process; start it without a launcher{instead}.")


def _found(place: Place) -> Any:
    """The store of these processes; a part of its own for each time that they come together."""
    from torch.distributed.distributed_c10d import PrefixStore

    store = _store(place)
    time_of = (store.add("together", 1) - 1) // place.count
    return PrefixStore(f"together-{time_of}", store)


@functools.cache
def _store(place: Place) -> Any:
    """The store at the first process, which stays as long as that does: another command may come together there."""
    from torch.distributed.rendezvous import rendezvous

    try:
        patience = timedelta(seconds=300)
        store, _, _ = next(iter(rendezvous("env://", place.index, place.count, timeout=patience)))
    except (RuntimeError, ValueError) as error:
        where = f"{os.environ.get('MASTER_ADDR', '?')}:{os.environ.get('MASTER_PORT', '?')}"
        raise UserError(
            f"Process {place.index} of {place.count} can't find the first one at {where} ({str(error)[:200]}). Set "
            "MASTER_ADDR and MASTER_PORT to an address that all machines reach."
        ) from error
    return store


def _watch(company: Company, store: Any, left: threading.Event) -> None:
    """Say that this process lives, and listen to the others; where one is gone, end this one unless it ends itself."""
    place = company.place
    others = [index for index in range(place.count) if index != place.index]
    heard = dict.fromkeys(others, ("", time.monotonic()))
    beat = 0
    while not company.lost:
        try:
            beat += 1
            store.set(f"beat/{place.index}", str(beat))
            wrong = next((told for index in others if (told := _wrong_with(store, index, heard))), "")
        except RuntimeError:
            wrong = "process 0 is gone"
        if wrong:
            company.lost.append(f"{wrong}. Finished work is kept: {_AGAIN}.")
        if left.wait(BEAT):
            return
    if not left.wait(STOPPING if _STOPPED in company.lost[0] else GRACE):
        print(f"veridical: {company.lost[0]}", file=sys.stderr, flush=True)
        os._exit(2)


def _wrong_with(store: Any, index: int, heard: dict[int, tuple[str, float]]) -> str:
    """What is wrong with another process; empty where it lives, or is done."""
    if store.check([f"left/{index}"]):
        said = store.get(f"left/{index}").decode()
        return f"process {index} ended: {said.rstrip('.')}" if said else ""
    beat = store.get(f"beat/{index}").decode() if store.check([f"beat/{index}"]) else ""
    before, since = heard[index]
    if beat != before:
        heard[index] = beat, time.monotonic()
        return ""
    return f"process {index} is gone or hangs" if time.monotonic() - since > PATIENCE else ""
