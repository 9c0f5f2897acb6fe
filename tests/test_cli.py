"""The command line as a user meets it: quick, and clear when something is wrong."""

from __future__ import annotations

import dataclasses
import errno
import importlib
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from veridical import __version__
from veridical.cli import COMMANDS, main

COMMAND = [sys.executable, "-m", "veridical"]


def veridical(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, cwd=cwd, timeout=120, check=False)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_there(name):
    command = COMMANDS[name]
    module = importlib.import_module(command.module)
    assert dataclasses.is_dataclass(getattr(module, command.config))
    assert callable(module.run)


HEAVY = ("torch", "transformers", "datasets", "peft", "pyarrow", "sklearn", "matplotlib", "pandas", "scipy")
HELP = f"""
import sys
from veridical.cli import main
try:
    main(sys.argv[1:])
finally:
    print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_imports_nothing_that_takes_long(name):
    """What makes `--help` slow is what it imports; seconds depend on what else runs on the machine."""
    shown = subprocess.run(
        [sys.executable, "-c", HELP, *name.split(), "--help"], capture_output=True, text=True, check=True
    )
    assert "usage: veridical" in shown.stdout
    assert shown.stderr.splitlines()[-1] == "[]"


def test_help_lists_the_commands():
    shown = veridical("--help").stdout
    assert all(f"  {name} " in shown and command.summary in shown for name, command in COMMANDS.items())
    assert veridical().stdout == shown


def test_version():
    assert veridical("--version").stdout == f"veridical {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("aling",), "no command 'aling'; did you mean `veridical align`?"),
        (("data", "exprot"), "no command 'data'; did you mean `veridical data export`?"),
        (
            ("judge", "train", "--help"),
            "`veridical judge train` needs another word: `veridical judge train reward`, `veridical judge train "
            "reward-probe` or `veridical judge train verifier`.",
        ),
        (("zzz",), "no command 'zzz'; `veridical --help` lists the commands."),
        (("report", "absent"), "absent: no such run folder; check the path."),
        (("report", "absent.yaml"), "absent.yaml: no such settings file; check the path."),
        (("build", "--construction", "bpo-imag", "--out", "x"), "did you mean 'bpo-image'?"),
        (("align", "--objective.name=dop", "--out", "x", "--pairs", "y"), "no objective 'dop'"),
    ],
)
def test_a_mistake_gets_one_clear_line(arguments, message, tmp_path):
    ended = veridical(*arguments, cwd=tmp_path)
    assert ended.returncode == 2
    assert ended.stderr.startswith("veridical: ")
    assert message in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert ended.stdout == ""


def test_a_setting_that_is_not_there_is_refused_in_flags_and_files(tmp_path):
    flag = veridical("world", "--out", "x", "--cuont", "3", cwd=tmp_path)
    assert flag.returncode == 2
    assert "--cuont" in flag.stderr
    (tmp_path / "world.yaml").write_text("out: x\ncuont: 3\n")
    file = veridical("world", "world.yaml", cwd=tmp_path)
    assert file.returncode == 2
    assert file.stderr == "veridical: world.yaml: unknown setting 'cuont'; did you mean 'count'?\n"


def test_a_file_and_flags_over_it_run_a_command(tmp_path):
    (tmp_path / "world.yaml").write_text("out: pictures\ncount: 9\nsplit: dev\n")
    ended = veridical("world", "world.yaml", "--count", "2", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert len(list((tmp_path / "pictures").glob("*.png"))) == 2


def test_a_choice_in_the_file_decides_which_settings_there_are(tmp_path):
    (tmp_path / "build.yaml").write_text("construction: ha-dpo\nsettings:\n  view: blank\n")
    ended = veridical("build", "build.yaml", "--out", "x", cwd=tmp_path)
    assert "unknown setting 'settings.view'" in ended.stderr
    (tmp_path / "build.yaml").write_text("construction: bpo-image\nsettings:\n  view: blank\nrecords: absent\n")
    ended = veridical("build", "build.yaml", "--out", "x", cwd=tmp_path)
    assert "absent: no such folder or file" in ended.stderr


def test_ctrl_c_ends_with_one_line_that_says_how_to_go_on(tmp_path):
    child = subprocess.Popen(
        [*COMMAND, "world", "--out", "pictures", "--count", "100000"], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("pictures/*.png")) and time.monotonic() < deadline:
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 130
    assert said.strip() == (
        "Interrupted. Finished work is kept; to continue, run again: veridical world --out pictures --count 100000"
    )


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "out/.a.json.12-345.partial"),
            "out/a.json: can't be read or",
        ),
        (OSError(errno.EROFS, "Read-only file system", b"out/b"), r"out/b: .*Read-only file system"),
        (
            FileNotFoundError(errno.ENOENT, "No such file", "/proc/.a.json.1-2.partial"),
            r"/proc/a\.json: .*No such file",
        ),
        (RuntimeError("SafetensorError: I/O error: No space left on device (os error 28)"), "No space left on device"),
    ],
)
def test_what_a_full_or_read_only_disk_says_is_one_sentence(monkeypatch, capsys, error, said):
    def fail(*_):
        raise error

    monkeypatch.setattr("veridical.vlm.command.run", fail)
    with pytest.raises(SystemExit) as ended:
        main(["models"])
    assert ended.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert re.search(said, line)


def test_other_errors_keep_their_traceback(monkeypatch):
    def fail(*_):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr("veridical.vlm.command.run", fail)
    with pytest.raises(OSError, match="Invalid argument"):
        main(["models"])
