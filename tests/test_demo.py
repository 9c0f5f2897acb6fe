"""The demo's steps: all of them commands that exist."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import tyro

from veridical.cli import COMMANDS
from veridical.config import dotted, flags, to_plain
from veridical.demo import DemoConfig, run, steps
from veridical.errors import UserError


def test_every_step_is_a_command_with_settings_that_it_knows(tmp_path):
    found = steps(DemoConfig(out=tmp_path, decoding=("vdd", "m3id")), 3)
    assert len({step.name for step in found}) == len(found)
    for place, step in enumerate(found):
        assert set(step.after) <= {before.name for before in found[:place]}
        module, settings = importlib.import_module(COMMANDS[step.kind].module), to_plain(step.settings)
        kind = module.config_type(dotted(settings))
        assert tyro.cli(kind, args=flags(settings, kind, Path(step.file))).out.is_relative_to(tmp_path / "seed-3")


def test_a_method_of_decoding_that_is_not_there_is_named_before_anything_runs(tmp_path):
    for names, said in ((("vdx",), "did you mean 'vdd'"), (("vdd", "vdd"), "vdd is named twice")):
        with pytest.raises(UserError, match=said):
            run(DemoConfig(out=tmp_path / "demo", decoding=names))
    assert not (tmp_path / "demo").exists()
