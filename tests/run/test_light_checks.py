"""What is looked at before the work begins: without seconds of imports, what is wrong with a model's files is found."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from veridical.errors import UserError
from veridical.vlm.model.loading import check_files
from veridical.world.bundled import bundled_model_path

PROGRAM = """
import sys
from veridical.config import parse
from veridical.run.checks import check
from veridical.run.command import config_type, filled
from veridical.run.plan import run_plan
given = ["--model", "bundled", "--records", "world", "--limit", "4", "--out", sys.argv[1]]
config = filled(parse(config_type({}), given, "veridical run", ""))
check(config)
assert len(run_plan(config).steps) == 3
assert not {"torch", "transformers", "datasets", "peft", "scipy", "accelerate"} & set(sys.modules), sys.modules.keys()
"""


def test_nothing_heavy_is_imported_before_the_first_step(tmp_path):
    subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path / "out")], check=True)


@pytest.fixture
def model(tmp_path) -> Path:
    shutil.copytree(bundled_model_path(), tmp_path / "model")
    return tmp_path / "model"


def test_a_whole_model_passes(model):
    check_files(model)
    check_files("bundled")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda model: (model / "config.json").unlink(), "holds no model: there is no config.json"),
        (lambda model: (model / "config.json").write_text("{"), "can't be loaded"),
        (lambda model: (model / "config.json").write_text("[]"), "config.json is no JSON object"),
        (lambda model: (model / "config.json").write_text("{}"), "names no model_type"),
        (lambda model: (model / "processor_config.json").unlink(), "has no processor"),
        (lambda model: (model / "tokenizer_config.json").write_text("\xff"), "can't be loaded"),
        (lambda model: (model / "model.safetensors").unlink(), "holds no weights"),
    ],
)
def test_what_is_wrong_with_a_model_is_said(model, change, says):
    change(model)
    with pytest.raises(UserError, match=says):
        check_files(model)


def test_a_model_with_code_of_its_own_needs_no_known_type(model):
    (model / "config.json").write_text(json.dumps({"auto_map": {"AutoConfig": "own.Config"}}))
    check_files(model, allow_remote_code=True)
    with pytest.raises(UserError, match="names no model_type"):
        check_files(model)
