"""Training the language model itself: against the model before, continued after Ctrl-C, written as a whole model."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from tests.align.test_command import build, config, interrupting, rows, steps_logged, summary  # noqa: F401 - fixtures
from transformers import AutoModelForImageTextToText

from veridical.align.command import run
from veridical.objectives.dpo import Dpo
from veridical.protocols.models import measured_models
from veridical.vlm.load import load
from veridical.vlm.model.adapters import save_trained, unfreeze
from veridical.vlm.model.loading import automatic_dtype


@pytest.fixture(params=["language", "language-and-projector"])
def whole(config, request):  # noqa: F811
    return replace(config, train=request.param, epochs=4, save_every=2, learning_rate=1e-4, objective=Dpo())


def weights(folder) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_only_what_was_asked_for_trains(whole, llava_folder):
    run(whole)
    base = load(llava_folder).model.state_dict()
    trained = AutoModelForImageTextToText.from_pretrained(whole.result).state_dict()
    changed = {name for name, value in trained.items() if not torch.equal(value, base[name])}
    assert any("language_model" in name for name in changed)
    assert any("projector" in name for name in changed) == (whole.train == "language-and-projector")
    assert not any("vision_tower" in name for name in changed)
    final = summary(whole)["final"]
    assert final["chosen_drift"] > final["rejected_drift"]
    # The loss of the first step is log 2: the policy is still the reference.
    assert rows(whole)[0]["loss"] == pytest.approx(0.6931, abs=1e-3)
    assert measured_models(["bundled", str(whole.out)])[1].model == str(whole.result)


def test_a_gpu_gets_what_was_written_and_not_its_rounding(llava_folder, tmp_path):
    trained = unfreeze(load(llava_folder), projector=False)
    save_trained(trained, tmp_path / "model")
    gpu = torch.device("cuda")
    assert automatic_dtype(tmp_path / "model", gpu) == torch.float32
    assert automatic_dtype(llava_folder, gpu) == torch.bfloat16
    assert automatic_dtype(llava_folder, torch.device("cpu")) == torch.float32
    again = AutoModelForImageTextToText.from_pretrained(tmp_path / "model", dtype="auto").state_dict()
    assert all(torch.equal(value, again[name]) for name, value in trained.model.state_dict().items())


def test_interrupted_and_continued_is_the_same_to_the_bit(whole, tmp_path):
    calm = replace(whole, out=tmp_path / "calm")
    run(calm)
    with pytest.raises(KeyboardInterrupt), interrupting(lambda: steps_logged(whole) >= 5):
        run(whole)
    assert 5 <= steps_logged(whole) < 12
    run(whole)
    one, other = weights(calm.result), weights(whole.result)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert rows(calm) == rows(whole)


def test_a_whole_model_has_the_names_that_other_programs_read(tmp_path, llava_folder):
    from safetensors import safe_open

    vlm = unfreeze(load(llava_folder, device="cpu"), projector=False)
    save_trained(vlm, tmp_path / "model")
    with safe_open(tmp_path / "model" / "model.safetensors", "pt") as weights:
        names = [name for name in weights.keys() if "vision_tower" in name]  # noqa: SIM118
        metadata = weights.metadata()
    assert names
    assert all("vision_tower.vision_model." in name for name in names)
    assert metadata == {"format": "pt"}
    again = load(tmp_path / "model", device="cpu").model.state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in vlm.model.state_dict().items())
