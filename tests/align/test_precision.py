"""What trains is float32 and computed in bfloat16: both types learn the same, from the very first step's agreement."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.align.conftest import adapted, make_pairs
from tests.families.catalogue import FAMILIES
from tests.families.tiny import random_model

from veridical.align.command import AlignConfig, run
from veridical.errors import UserError
from veridical.objectives.dpo import Dpo
from veridical.pairs.dataset import write_build
from veridical.vlm.load import load
from veridical.vlm.model.adapters import LoraSettings


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    folder, tiny = tmp_path_factory.mktemp("qwen2-vl"), FAMILIES["qwen2_vl"]()
    random_model(tiny).save_pretrained(folder)
    tiny.processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def build(tmp_path_factory, pictures):
    return write_build(tmp_path_factory.mktemp("build"), make_pairs(pictures, 8))


def settings(build, model, out, **changes) -> AlignConfig:
    return AlignConfig(
        pairs=build,
        out=out,
        model=str(model),
        objective=Dpo(),
        batch_size=8,
        micro_batch=8,
        scheduler="constant_with_warmup",
        warmup=0.0,
        workers=0,
        device="cpu",
        **changes,
    )


def margin(config) -> float:
    run(config)
    return json.loads((config.out / "summary.json").read_text())["final"]["rewards/margins"]


@pytest.mark.parametrize("model", ["bundled", "qwen"])
def test_bfloat16_learns_what_float32_does(model, build, request, tmp_path):
    """At rates at which most updates of bfloat16 weights would be rounded away.

    The weights start on bfloat16's grid, so products see an update once it has grown to half a step of that: the first
    steps lag behind, by less the longer training is.
    """
    folder = request.getfixturevalue("qwen") if model == "qwen" else model
    chosen = {"train": "language", "learning_rate": 2e-5 if model == "bundled" else 1e-4, "epochs": 24}
    found = {
        dtype: margin(settings(build, folder, tmp_path / dtype, dtype=dtype, **chosen))
        for dtype in ("float32", "bfloat16")
    }
    assert found["float32"] > 0.05
    assert found["bfloat16"] == pytest.approx(found["float32"], rel=0.05)
    before = load(folder, dtype="bfloat16", device="cpu").model.state_dict()
    saved = load_file(tmp_path / "bfloat16" / "model" / "model.safetensors")
    assert {tensor.dtype for tensor in saved.values()} == {torch.float32}
    after = load(tmp_path / "bfloat16" / "model", dtype="float32", device="cpu").model.state_dict()
    layers = [name for name in after if "language_model.layers" in name and name.endswith("proj.weight")]
    moved = torch.cat([(before[name].float() != after[name]).flatten() for name in layers])
    assert moved.float().mean() > 0.9


def test_a_projector_trains_in_float32_beside_a_half_precision_model(build, llava_folder, tmp_path):
    lora = LoraSettings(rank=4, alpha=8, train_projector=True)
    config = settings(build, llava_folder, tmp_path / "run", dtype="bfloat16", learning_rate=1e-5, epochs=4, lora=lora)
    run(config)
    before = load(llava_folder, dtype="bfloat16", device="cpu").model.state_dict()
    after = load_file(config.result / "adapter_model.safetensors")
    names = [name for name in after if "projector" in name]
    assert names
    assert all(tensor.dtype == torch.float32 for tensor in after.values())
    for name in names:
        old = next(value for key, value in before.items() if name.endswith(key.removeprefix("model.")))
        assert (old.float() != after[name]).float().mean() > 0.9


def test_float16_is_refused(build, llava_folder, tmp_path):
    with pytest.raises(UserError, match="bfloat16 or float32"):
        settings(build, llava_folder, tmp_path, dtype="float16")


def test_a_reference_that_is_not_the_policy_is_refused_before_the_first_step(build, llava_folder, tmp_path):
    """Here the cached scores are another model's: half a nat a token off."""
    config = settings(build, llava_folder, tmp_path / "first", reference_cache=tmp_path / "shared", epochs=1)
    run(config)
    for shard in (tmp_path / "shared").rglob("*.safetensors"):
        save_file({name: tensor - 0.5 for name, tensor in load_file(shard).items()}, shard)
    with pytest.raises(UserError, match=r"differ by 0\.5 nats a token") as error:
        run(replace(config, out=tmp_path / "second"))
    assert str(tmp_path / "shared") in str(error.value)
    assert not (tmp_path / "second" / "log.jsonl").exists()


def test_an_adapter_that_goes_on_is_compared_without_itself(build, llava_folder, tmp_path):
    lora = LoraSettings(rank=4, alpha=8)
    config = settings(build, llava_folder, tmp_path / "first", epochs=4, learning_rate=5e-3, lora=lora)
    run(config)
    later = replace(config, out=tmp_path / "second", start=config.result, epochs=1)
    run(later)
    assert json.loads((later.out / "summary.json").read_text())["start_check"]["difference"] < 1e-5


def test_trained_weights_are_float32_whatever_the_model_is(llava_folder):
    vlm = adapted(llava_folder, train_projector=True)
    assert all(p.dtype == torch.float32 for p in vlm.model.parameters() if p.requires_grad)
