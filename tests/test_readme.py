"""Every `veridical` command in the README is one that the command line takes."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

import pytest
import tyro

from veridical.cli import COMMANDS, _choices, _pick, _with_subject

README = Path(__file__).parents[1] / "README.md"


def commands() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", README.read_text(), re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").split("\n")]
    return [" ".join(line.split()) for line in lines if line.startswith("veridical ")]


def test_the_way_from_a_folder_comes_first():
    own = README.read_text().split("## Your own images and model")[1]
    assert re.search(r"```sh\n(veridical \w+)", own)[1] == "veridical run"


@pytest.mark.parametrize("line", commands())
def test_it_is_understood(line):
    arguments = shlex.split(line, comments=True)[1:]
    name, given = _pick(arguments)
    command = COMMANDS[name]
    given = _with_subject(command, given)
    if given and given[0].endswith(".yaml"):
        assert f"--write-config {given[0]}" in README.read_text()
        return
    module = importlib.import_module(command.module)
    kind = module.config_type(_choices(given)) if hasattr(module, "config_type") else getattr(module, command.config)
    tyro.cli(kind, args=given)
