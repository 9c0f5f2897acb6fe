"""Merged models and pushed results: they load in plain transformers, to the number; what can't be merged is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from peft import PeftModel
from safetensors.torch import load_file
from tests.align.conftest import make_pairs
from tests.hub import TOKEN, running
from transformers import AutoModelForImageTextToText, AutoProcessor

import veridical as vd
from veridical.align.command import AlignConfig, run
from veridical.align.publishing import PublishConfig
from veridical.align.publishing import run as publish
from veridical.errors import UserError
from veridical.objectives.dpo import Dpo
from veridical.pairs.dataset import write_build
from veridical.vlm.load import attach_lora, load
from veridical.vlm.model.adapters import LoraSettings, save_trained
from veridical.vlm.model.merging import write_merged


@pytest.fixture(scope="module")
def trained(tmp_path_factory, pictures, llava_folder) -> AlignConfig:
    build = write_build(tmp_path_factory.mktemp("build"), make_pairs(pictures, 4))
    config = AlignConfig(
        pairs=build, out=tmp_path_factory.mktemp("runs") / "aligned", model=str(llava_folder), objective=Dpo(),
        epochs=1, batch_size=4, learning_rate=1e-2, device="cpu", workers=0, merge=True,
        lora=LoraSettings(rank=4, alpha=8, train_projector=True),
    )  # fmt: skip
    run(config)
    return config


def logits(model, folder: Path) -> torch.Tensor:
    processor = AutoProcessor.from_pretrained(folder)
    inputs = processor(text="<image>Describe this image.", images=[picture()], return_tensors="pt")
    with torch.no_grad():
        found: torch.Tensor = model.eval()(**inputs).logits
    return found


def picture():
    from PIL import Image

    return Image.radial_gradient("L").resize((96, 96)).convert("RGB")


def test_a_merged_model_answers_in_plain_transformers_as_base_and_adapter_do(trained, llava_folder):
    merged = trained.out / "merged"
    base = AutoModelForImageTextToText.from_pretrained(llava_folder, dtype=torch.float32)
    plain = logits(base, llava_folder)
    wanted = logits(PeftModel.from_pretrained(base, trained.result), llava_folder)
    found = logits(AutoModelForImageTextToText.from_pretrained(merged), merged)
    assert float((wanted - plain).abs().max()) > 1e-3
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    weights = load_file(merged / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    assert all("vision_tower.vision_model." in name for name in weights if "vision_tower" in name)
    card = (merged / "README.md").read_text()
    _, head, text = card.split("---\n", 2)
    assert yaml.safe_load(head)["base_model"] == str(llava_folder)
    assert "lora" not in yaml.safe_load(head)["tags"]
    assert "| training pairs | 4 |" in text
    assert "vllm serve" in text


def test_half_precision_is_rounded_once_and_its_loss_is_told(trained, llava_folder, tmp_path, capsys):
    whole = load_file(trained.out / "merged" / "model.safetensors")
    config = PublishConfig(trained.out, merge=True, merge_dtype="bfloat16", to=tmp_path / "half")
    assert publish(config) == tmp_path / "half"
    told = capsys.readouterr().err
    half = load_file(tmp_path / "half" / "model.safetensors")
    # The sum was made in float32: each weight is the whole one, rounded.
    assert all(torch.equal(half[name], tensor.to(torch.bfloat16)) for name, tensor in whole.items())
    assert 0 < int(told.partition("keeps ")[2].partition(" %")[0]) <= 110
    assert load(tmp_path / "half", device="cpu").fingerprint != load(trained.out / "merged", device="cpu").fingerprint
    # Of an update below the numbers' spacing nearly nothing is kept where each weight falls back to the base's.
    base = load(llava_folder, dtype="float32", device="cpu")
    with torch.no_grad():
        for parameter in base.model.parameters():
            parameter.copy_(parameter.to(torch.bfloat16))
    small = attach_lora(base, LoraSettings(rank=1, alpha=1), seed=0)
    with torch.no_grad():
        for name, parameter in small.model.named_parameters():
            if "lora_B" in name:
                parameter.fill_(1e-7)
    assert write_merged(small, tmp_path / "small", "bfloat16").kept < 0.1


def test_what_cant_be_merged_is_refused_with_the_way_out(trained, llava_folder, tmp_path):
    with pytest.raises(UserError, match="plain LoRA on the same pairs"):
        replace(trained, lora=LoraSettings(acts_on="answers"))
    with pytest.raises(UserError, match="whole model already"):
        replace(trained, train="language", lora=LoraSettings())
    vlm = load(llava_folder, device="cpu")
    save_trained(attach_lora(vlm, LoraSettings(rank=2, acts_on="answers"), seed=0), tmp_path / "answers")
    with pytest.raises(UserError, match="vLLM can't serve it"):
        publish(PublishConfig(tmp_path / "answers", merge=True, model=str(llava_folder)))
    with pytest.raises(UserError, match="whole model already"):
        publish(PublishConfig(trained.out / "merged", merge=True))
    with pytest.raises(UserError, match="neither an adapter nor a model"):
        publish(PublishConfig(tmp_path, merge=True))
    with pytest.raises(UserError, match="OWNER/NAME"):
        PublishConfig(tmp_path, push="me")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="something else than a model"):
        publish(PublishConfig(trained.out, merge=True, to=tmp_path / "full"))


def test_a_plain_adapter_takes_the_scores_of_one_on_answers_only(trained, tmp_path):
    answers = replace(
        trained, merge=False, out=tmp_path / "answers", lora=LoraSettings(rank=4, alpha=8, acts_on="answers")
    )
    run(answers)
    plain = replace(
        trained, out=tmp_path / "plain", lora=LoraSettings(rank=4, alpha=8), reference_cache=answers.reference_folder
    )
    run(plain)
    computed = [json.loads((one.out / "summary.json").read_text())["reference_computed"] for one in (answers, plain)]
    assert computed == [4, 0]
    assert (plain.out / "merged" / "model.safetensors").exists()


_PUSH = """
import sys
import veridical as vd
from veridical.cli import main
run, base, pairs = sys.argv[1:]
try:
    main(["publish", run, "--push", "me/adapter", "--license", "apache-2.0", "--private"])
except SystemExit as ended:
    assert ended.code == 0, ended.code
again = vd.align(pairs, model=base, out=run, **SETTINGS)
print(again.push("me/merged", merged=True, dtype="bfloat16"))
adapted, merged = vd.load(base, adapter="hf://me/adapter", device="cpu"), vd.load("me/merged", device="cpu")
from veridical.protocols.models import measured_models
_, one = measured_models([base, "hf://me/adapter"])
print("FOUND", adapted.fingerprint, merged.family, one.name)
"""


@pytest.mark.end_to_end
def test_adapters_and_models_go_to_the_hub_and_come_back_by_name(trained, llava_folder, tmp_path):
    settings = (
        "dict(objective='dpo', epochs=1, batch_size=4, learning_rate=1e-2, device='cpu', workers=0,"
        "lora=__import__('veridical.vlm.model.adapters', fromlist=['x']).LoraSettings(4, 8, train_projector=True))"
    )
    with running() as hub:
        given = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        environment = given | {
            "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1",
            "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1",
        }  # fmt: skip
        code = _PUSH.replace("SETTINGS", settings)
        command = [sys.executable, "-c", code, trained.out, llava_folder, trained.pairs]
        done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    adapter, merged = hub.sets["me/adapter"], hub.sets["me/merged"]
    assert (hub.private["me/adapter"], hub.private["me/merged"]) == (True, False)
    assert {"README.md", "adapter_config.json", "adapter_model.safetensors"} <= set(adapter)
    assert {"README.md", "config.json", "model.safetensors", "processor_config.json"} <= set(merged)
    # A folder of this machine is no name for others.
    assert json.loads(adapter["adapter_config.json"])["base_model_name_or_path"] is None
    assert json.loads((trained.result / "adapter_config.json").read_text())["base_model_name_or_path"]
    _, head, text = adapter["README.md"].decode().split("---\n", 2)
    assert "base_model" not in yaml.safe_load(head)
    assert yaml.safe_load(head)["license"] == "apache-2.0"
    assert '"me/adapter"' in text
    mine = vd.load(str(llava_folder), adapter=trained.out, device="cpu").fingerprint
    assert done.stdout.splitlines()[-1] == f"FOUND {mine} llava adapter"
    assert "me/merged" in done.stdout
