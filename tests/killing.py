"""A process that kills itself right before one of its changes to a file: no test waits for the moment, however busy
the machine is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

HOOK = """
import os, re, sys
def die_before(pattern, number, how):
    seen = 0
    def hook(event, arguments):
        nonlocal seen
        changes = event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir")
        if event == "open" and isinstance(arguments[0], (str, bytes, os.PathLike)):
            changes = bool(arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        if changes and re.search(pattern, event + " " + os.fsdecode(arguments[0])):
            seen += 1
            if seen == number:
                os.kill(os.getpid(), how)
    sys.addaudithook(hook)
"""


def run_until(code: str, pattern: str, number: int, how: int = signal.SIGKILL, *arguments: str) -> int:
    """Run Python code that sends itself a signal before the change with that number that `pattern` finds.

    A change is "EVENT PATH", as in "os.rename FOLDER/.a.json.1-2.partial". Returns the exit status.
    """
    begin = f"{HOOK}\ndie_before({pattern!r}, {number}, {int(how)})\n"
    ended = subprocess.run(
        [sys.executable, "-c", begin + code, *map(str, arguments)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False, env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip
    return ended.returncode


def command(*words: str | Path) -> str:
    """Code that runs a `veridical` command."""
    return f"from veridical.cli import main; main({[str(word) for word in words]!r})"
