"""The card of what was trained: its code loads it, its numbers are the run's, and image limits go with an adapter."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
import torch
import yaml
from tests.align.conftest import make_pairs

from veridical.align.command import AlignConfig, run
from veridical.errors import UserError
from veridical.objectives.dpo import Dpo
from veridical.pairs.dataset import write_build
from veridical.protocols.config import EvalConfig
from veridical.protocols.evaluation import with_trained_limits
from veridical.protocols.models import measured_models
from veridical.vlm.load import load
from veridical.vlm.model.adapters import LoraSettings
from veridical.vlm.model.image_limits import ImageLimits


@pytest.fixture(scope="module")
def build(tmp_path_factory, pictures):
    return write_build(tmp_path_factory.mktemp("build"), make_pairs(pictures, 4))


def settings(build, model, out, **more) -> AlignConfig:
    return AlignConfig(
        pairs=build, out=out, model=str(model), objective=Dpo(), epochs=1, batch_size=4, learning_rate=1e-2,
        lora=LoraSettings(rank=4, alpha=8), device="cpu", workers=0, **more,
    )  # fmt: skip


@pytest.mark.parametrize("train", ["adapter", "language"])
def test_the_card_says_what_it_is_and_its_code_loads_it(build, llava_folder, tmp_path, train):
    config = settings(build, llava_folder, tmp_path / "run", train=train)
    run(config)
    card = (config.result / "README.md").read_text()
    _, front, body = card.split("---\n", 2)
    about = yaml.safe_load(front)
    assert about["base_model"] == str(llava_folder)
    assert {"veridical", "hallucination", "dpo"} <= set(about["tags"])
    final = json.loads((config.out / "summary.json").read_text())["final"]
    assert f"| training pairs | 4 | {100 * final['accuracy']:.1f} [" in body
    assert "| margin, nats |" in body
    blocks = re.findall(r"```python\n(.*?)```", body, re.DOTALL)
    found = {}
    for code in blocks:
        exec(code.replace("this folder", str(config.result)), found)
    expected = load(
        llava_folder if train == "adapter" else config.result,
        adapter=config.result if train == "adapter" else None,
        device="cpu",
    )
    weights = dict(expected.model.named_parameters())
    for made in (found["model"], found["vlm"].model):
        own = dict(made.named_parameters())
        assert own.keys() == weights.keys()
        assert all(torch.equal(own[name].float(), weights[name]) for name in weights)
    shown = yaml.safe_load(re.search(r"```yaml\n(.*?)```", body, re.DOTALL)[1])
    assert (shown["learning_rate"], shown["epochs"], shown["objective"]["name"]) == (1e-2, 1, "dpo")


def test_image_limits_go_with_an_adapter(build, qwen2_vl_folder, tmp_path, capsys):
    """Measured by hand later, without the flags, it sees images as large as in its training, and so does the base."""
    config = settings(build, qwen2_vl_folder, tmp_path / "small", max_image_tokens=4)
    run(config)
    assert "--max-image-tokens 4" in (config.result / "README.md").read_text()
    capsys.readouterr()
    found = load(qwen2_vl_folder, adapter=config.result, device="cpu")
    assert found.limits == ImageLimits(max_image_tokens=4)
    assert "was trained with --max-image-tokens 4, which holds here too" in capsys.readouterr().err
    given = load(qwen2_vl_folder, adapter=config.result, device="cpu", limits=ImageLimits(max_image_tokens=6))
    assert given.limits == ImageLimits(max_image_tokens=6)

    names = (str(qwen2_vl_folder), str(config.out))
    measured = EvalConfig(out=tmp_path / "eval", models=names)
    assert with_trained_limits(measured, measured_models(names)).max_image_tokens == 4
    assert "for all models: --max-image-tokens 4" in capsys.readouterr().err
    chosen = replace(measured, max_image_tokens=9)
    assert with_trained_limits(chosen, measured_models(names)) == chosen
    other = settings(build, qwen2_vl_folder, tmp_path / "whole")
    run(other)
    names = (*names, str(other.out))
    with pytest.raises(UserError, match=r"different sizes \(small --max-image-tokens 4, whole without a limit\)"):
        with_trained_limits(replace(measured, models=names), measured_models(names))
