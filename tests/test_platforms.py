"""The package on systems that lack modules of Unix, such as Windows."""

from __future__ import annotations

import subprocess
import sys

IMPORT_ALL = """
import builtins, importlib, pkgutil

UNIX = {"fcntl", "grp", "pwd", "resource", "termios", "tty"}
imported = builtins.__import__

def without_unix(name, globals=None, *more, **named):
    # Hidden from our own modules only: on Windows other packages import what is there.
    if (globals or {}).get("__name__", "").startswith("veridical") and name.partition(".")[0] in UNIX:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    return imported(name, globals, *more, **named)

builtins.__import__ = without_unix
import veridical

found = [module.name for module in pkgutil.walk_packages(veridical.__path__, "veridical.")]
for name in found:
    if name != "veridical.__main__":
        importlib.import_module(name)
print(len(found))
try:
    exec("import fcntl", {"__name__": "veridical.some"})
except ModuleNotFoundError:
    print("hidden")
"""


def test_every_module_can_be_imported_without_unix_modules():
    done = subprocess.run([sys.executable, "-c", IMPORT_ALL], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    count, hidden = done.stdout.split()
    assert int(count) > 300
    assert hidden == "hidden"
