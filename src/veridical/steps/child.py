"""Runs one `veridical` command as a step of a longer path: it ends when the process that started it does.

The parent keeps the other end of this process's standard input open and writes nothing to it. The operating system
closes that end however the parent ends, by SIGKILL too, and then this process ends with all that it started. Every
command may be killed and continued, so nothing is lost.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading


def main() -> None:
    """Run the command line given as arguments, for as long as the parent lives."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    runpy.run_module("veridical", run_name="__main__", alter_sys=True)


def _end_with_parent() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    if hasattr(os, "killpg") and os.getpgid(0) == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


if __name__ == "__main__":
    main()
