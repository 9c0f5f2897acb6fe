"""Settings: from flags through the parser to YAML and back, with the objective's own settings and no others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import tyro

from veridical.align.command import AlignConfig, config_type
from veridical.align.defaults import resolved
from veridical.config import flags, read_yaml, save_resolved
from veridical.errors import UserError
from veridical.objectives.dpo import Dpo
from veridical.objectives.dpo_nll import DpoNll
from veridical.objectives.sft import Sft
from veridical.vlm.model.adapters import LoraSettings

REQUIRED = ["--pairs", "p", "--out", "o"]


def test_flags_reach_the_objective_and_the_adapter():
    given = [*REQUIRED, "--objective.name", "dpo", "--objective.beta", "0.2", "--lora.rank", "8"]
    config = tyro.cli(config_type({"objective.name": "dpo"}), args=given)
    assert isinstance(config, AlignConfig)
    assert config.objective == Dpo(beta=0.2)
    assert config.lora == LoraSettings(rank=8)
    assert (config.pairs, config.out, config.model) == (Path("p"), Path("o"), "bundled")


def test_another_objective_has_other_settings(capsys):
    choice = config_type({"objective.name": "sft"})
    assert tyro.cli(choice, args=[*REQUIRED, "--objective.name", "sft"]).objective == Sft()
    with pytest.raises(SystemExit):
        tyro.cli(choice, args=[*REQUIRED, "--objective.beta", "0.2"])
    assert "beta" in capsys.readouterr().err


def test_a_saved_config_gives_the_same_settings(tmp_path):
    given = [*REQUIRED, "--objective.beta", "0.3", "--report-to", "wandb", "mlflow", "--max-grad-norm", "0"]
    config = tyro.cli(config_type({}), args=given)
    save_resolved(config, tmp_path / "config.yaml")
    path = tmp_path / "config.yaml"
    again = tyro.cli(config_type({}), args=flags(read_yaml(path), config_type({}), path))
    assert again == config


def test_help_tells_every_setting_and_needs_no_torch():
    script = (
        "import sys, tyro\n"
        "from veridical.align.command import config_type\n"
        "try:\n"
        "    tyro.cli(config_type({}), args=['--help'])\n"
        "except SystemExit:\n"
        "    pass\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules\n"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    for words in ("--objective.beta", "--lora.rank", "--learning-rate", "mDPO", "never cut"):
        assert words in shown


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"batch_size": 10, "micro_batch": 4}, "micro_batch"),
        ({"epochs": 0}, "epochs"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"warmup": 1.0}, "warmup"),
        ({"keep_checkpoints": 1}, "keep_checkpoints"),
    ],
)
def test_impossible_settings_are_refused_by_name(changes, named):
    with pytest.raises(UserError, match=named):
        AlignConfig(pairs=Path("p"), out=Path("o"), **changes)


@pytest.mark.parametrize(
    ("width", "given", "expected"),
    [
        (10, {}, {"beta": 0.3, "nll_weight": 3.0}),
        (20_000, {}, {"beta": 0.1, "nll_weight": 1.0}),
        (10, {"beta": 0.1}, {"beta": 0.1, "nll_weight": 3.0}),
        (10, {"nll_weight": 0.0}, {"beta": 0.3, "nll_weight": 0.0}),
    ],
)
def test_the_default_objectives_weights_go_by_size_and_what_was_given_stays(tmp_path, width, given, expected):
    config = AlignConfig(pairs=tmp_path, out=tmp_path, objective=DpoNll(**given))
    model = torch.nn.Linear(width, width, device="meta")
    assert resolved(config, model).objective == DpoNll(**expected)
    assert resolved(AlignConfig(pairs=tmp_path, out=tmp_path, objective=Dpo()), model).objective == Dpo()
