"""Runs steps as forks of one process that has imported everything heavy, so that none spends seconds on that again.

`Warm` starts this module as a process. It imports, then reads orders from its standard input, a line of JSON each, and
forks: {"id": 1, "arguments": [...], "log": PATH, "environment": {...}}. It answers "began ID PID", "ended ID STATUS".
When its input ends it kills what still runs; when it ends, however that is, its forks end too (see `child`).

Only where forks are cheap and safe: on Linux, and without a GPU, whose driver doesn't outlive a fork. Elsewhere, or
when this process dies, steps are started one by one.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HEAVY = (
    "torch",
    "datasets",
    "peft",
    "accelerate",
    "scipy.stats",
    "transformers.trainer",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.processing_auto",
    "transformers.models.llava.modeling_llava",
    "transformers.models.llava.processing_llava",
    "veridical.pairs.command",
    "veridical.align.command",
    "veridical.loops.command",
    "veridical.protocols.command",
)
"""What most commands import; one that is not installed is left out."""
GPUS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg", "/dev/accel")
"""Devices of drivers that don't outlive a fork."""
LEAST_STEPS = 3
"""Fewer than that are not worth it."""


class Forked:
    """A step that runs as a fork, with what is used of `subprocess.Popen`."""

    stdin = None

    def __init__(self) -> None:
        self.pid = 0
        self.status: int | None = None
        self.began, self.ended = threading.Event(), threading.Event()

    def wait(self) -> int:
        """Its status once it has ended: negative is the signal that ended it."""
        self.ended.wait()
        return self.status if self.status is not None else -signal.SIGKILL

    def send_signal(self, number: int) -> None:
        """Send it a signal if it still runs."""
        if not self.ended.is_set():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


class Warm:
    """The process that forks, started by the first step that asks for it."""

    def __init__(
        self, log: Path, lock: int | None, environment: Mapping[str, str], imports: Sequence[str] = HEAVY
    ) -> None:
        self._log, self._lock, self._environment, self._imports = log, lock, environment, imports
        self._guard = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._forks: dict[int, Forked] = {}
        self._dead = not sys.platform.startswith("linux") or any(map(os.path.exists, GPUS))

    def start(self, arguments: Sequence[str], log: Path, environment: Mapping[str, str]) -> Forked | None:
        """Run `veridical ARGUMENTS` as a fork; None where that can't be, so that the caller starts it otherwise."""
        fork = Forked()
        order = {"arguments": [*arguments], "log": str(log), "environment": dict(environment)}
        with self._guard:
            if self._dead:
                return None
            self._process = self._process or self._started()
            number = len(self._forks)
            self._forks[number] = fork
            try:
                assert self._process.stdin is not None
                self._process.stdin.write(json.dumps({"id": number, **order}).encode() + b"\n")
                self._process.stdin.flush()
            except OSError:
                self._dead = True
                return None
        fork.began.wait()
        return fork if fork.pid else None

    def close(self) -> None:
        """End the process."""
        with self._guard:
            self._dead = True
            if self._process is not None and self._process.stdin is not None:
                with contextlib.suppress(OSError):
                    self._process.stdin.close()
        if self._process is not None:
            self._process.wait()

    def _started(self) -> subprocess.Popen[bytes]:
        with self._log.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-u", "-m", "veridical.steps.warm", *self._imports],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, **self._environment},
                start_new_session=True,
                pass_fds=() if self._lock is None else (self._lock,),
            )
        threading.Thread(target=self._listen, args=(process,), daemon=True).start()
        return process

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            word, number, value = line.decode().split()
            fork = self._forks[int(number)]
            if word == "began":
                fork.pid = int(value)
                fork.began.set()
            else:
                fork.status = int(value)
                fork.ended.set()
        with self._guard:
            self._dead = True
            for fork in self._forks.values():
                fork.began.set()
                fork.ended.set()


def main() -> None:
    """Import what the arguments name, and fork what is ordered; returns in each fork as the step that it is."""
    for name in sys.argv[1:]:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    # Collections of garbage would copy the memory that forks share.
    gc.freeze()
    order = _serve()
    if order is not None:
        from veridical.steps import child

        sys.argv = ["veridical", *order["arguments"]]
        child.main()


def _serve() -> dict[str, Any] | None:
    """Fork for every order; gives the order in the fork, and None here once the input has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    alive, held = os.pipe()
    woken, waker = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(waker, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(waker)
    running: dict[int, int] = {}
    rest = b""
    while True:
        ready, _, _ = select.select([0, woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
            _reap(running)
        if 0 not in ready:
            continue
        if not (chunk := os.read(0, 65536)):
            break
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            order: dict[str, Any] = json.loads(line)
            if not (pid := os.fork()):
                signal.set_wakeup_fd(-1)
                for one in (held, woken, waker):
                    os.close(one)
                _become(order, alive)
                return order
            running[pid] = order["id"]
            print("began", order["id"], pid, flush=True)
    for pid in running:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
    return None


def _reap(running: dict[int, int]) -> None:
    """Tell of the forks that have ended."""
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        print("ended", running.pop(pid), os.waitstatus_to_exitcode(status), flush=True)


def _become(order: Mapping[str, Any], alive: int) -> None:
    """Make a fork a process as the step would have been started: its own session, output, and environment."""
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Its end of file says that the process that forked is gone.
    os.dup2(alive, 0)
    output = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.update(order["environment"])
    # Read when torch was imported, which is done already.
    if "OMP_NUM_THREADS" in order["environment"] and "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(int(order["environment"]["OMP_NUM_THREADS"]))


if __name__ == "__main__":
    main()
