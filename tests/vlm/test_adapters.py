from __future__ import annotations

import re

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tests.vlm import plain
from transformers import AutoModelForImageTextToText

from veridical.errors import UserError
from veridical.vlm.generation.generate import generate
from veridical.vlm.generation.params import Branch, SamplingParams
from veridical.vlm.load import attach_lora, load
from veridical.vlm.model.adapters import (
    LoraSettings,
    adapters_off,
    merged,
    projector_name,
    save_trained,
    target_pattern,
)
from veridical.vlm.prefix.encode import encode
from veridical.vlm.scores.scoring import score


def scores(vlm):
    return score(vlm, encode(vlm, plain.contexts()), plain.ANSWERS)


def stir(vlm) -> None:
    """Give every trainable weight a random value, as training would."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in vlm.model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)


@pytest.mark.parametrize("targets", ["language", "attention"])
def test_targets_are_linear_layers_of_the_language_model(vlm, targets):
    pattern = target_pattern(vlm.model, targets)
    matched = [name for name, _ in vlm.model.named_modules() if re.fullmatch(pattern, name)]
    own = ["q_proj", "k_proj", "v_proj", "o_proj"]
    own += ["gate_proj", "up_proj", "down_proj"] if targets == "language" else []
    assert len(matched) == 3 * len(own)
    assert {name.rpartition(".")[2] for name in matched} == set(own)
    assert all(name.startswith("model.language_model.layers.") for name in matched)


@pytest.mark.parametrize("train_projector", [False, True])
def test_only_the_adapter_trains(vlm, train_projector):
    projector = projector_name(vlm.model)
    adapted = attach_lora(vlm, LoraSettings(rank=2, train_projector=train_projector), seed=0)
    trained = {name for name, p in adapted.model.named_parameters() if p.requires_grad}
    assert any("lora_A" in name for name in trained)
    rest = {name for name in trained if "lora_" not in name}
    assert all(f".{projector}.modules_to_save." in name for name in rest)
    assert bool(rest) == train_projector


def test_a_new_adapter_changes_nothing_and_off_is_the_base(folder):
    wanted = scores(load(folder))
    vlm = attach_lora(load(folder), LoraSettings(rank=4, train_projector=True), seed=0)
    assert plain.largest_difference(scores(vlm), wanted) == 0
    stir(vlm)
    assert plain.largest_difference(scores(vlm), wanted) > 0.1
    with adapters_off(vlm):
        assert plain.largest_difference(scores(vlm), wanted) == 0
    assert plain.largest_difference(scores(vlm), wanted) > 0.1


def test_off_without_an_adapter_is_the_model_itself(llava):
    wanted = scores(llava)
    with adapters_off(llava):
        assert plain.largest_difference(scores(llava), wanted) == 0


def test_the_first_weights_depend_on_the_seed_alone(llava_folder):
    torch.manual_seed(7)
    wanted = torch.rand(3)
    torch.manual_seed(7)
    one, same, other = (attach_lora(load(llava_folder), LoraSettings(rank=4), seed=s) for s in (1, 1, 2))
    assert one.fingerprint == same.fingerprint != other.fingerprint
    assert torch.equal(torch.rand(3), wanted)


@pytest.mark.parametrize("train_projector", [False, True])
def test_a_saved_adapter_loads_here_and_with_plain_peft(folder, tmp_path, train_projector):
    vlm = attach_lora(load(folder), LoraSettings(rank=4, train_projector=train_projector), seed=0)
    stir(vlm)
    save_trained(vlm, tmp_path / "run" / "adapter")
    again = load(folder, adapter=tmp_path / "run" / "adapter")
    assert plain.largest_difference(scores(again), scores(vlm)) == 0
    peft = PeftModel.from_pretrained(AutoModelForImageTextToText.from_pretrained(folder), tmp_path / "run" / "adapter")
    inputs = plain.prompt_inputs(vlm, plain.contexts()[0])
    with torch.no_grad():
        found, wanted = peft.eval()(**inputs).logits, vlm.model(**inputs).logits
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_is_evaluated_is_the_whole_update(folder, tmp_path, dtype):
    trained = attach_lora(load(folder), LoraSettings(rank=4), seed=0)
    _small_update(trained)
    save_trained(trained, tmp_path / "adapter")
    wanted = _updates(trained, load(folder))
    found = _updates(merged(load(folder, adapter=tmp_path / "adapter", dtype=dtype)), load(folder, dtype=dtype))
    for name, update in wanted.items():
        share = float((found[name] * update).sum() / update.square().sum())
        assert share == pytest.approx(1, abs=0.01), name


def test_captions_of_a_merged_model_are_those_of_the_adapter(llava_folder, tmp_path):
    trained = attach_lora(load(llava_folder), LoraSettings(rank=4), seed=0)
    _small_update(trained, size=0.02)
    save_trained(trained, tmp_path / "adapter")
    base = load(llava_folder, dtype="bfloat16")
    adapted = load(llava_folder, adapter=tmp_path / "adapter", dtype="bfloat16")
    wanted = captions(adapted)
    assert wanted != captions(base)
    assert captions(merged(adapted)) == wanted


def captions(vlm) -> list[str]:
    contexts = plain.contexts()
    greedy = SamplingParams(max_new_tokens=24, temperature=0)
    return [one.text for one in generate(vlm, encode(vlm, contexts), [Branch(i) for i in range(3)], greedy)]


def _small_update(vlm, size: float = 1e-3) -> None:
    """An update of about a hundredth of the weights' own spacing in bfloat16, as a short training leaves."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in vlm.model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * size)


def _updates(vlm, base) -> dict[str, torch.Tensor]:
    """What each adapted layer does beyond the base's, as a matrix, adapter or merged weights alike."""
    found = {}
    own = dict(base.model.named_modules())
    for name, layer in vlm.model.named_modules():
        plain_name = name.removeprefix("base_model.model.")
        if not isinstance(own.get(plain_name), torch.nn.Linear) or "language_model.layers" not in name:
            continue
        if hasattr(layer, "get_delta_weight"):
            found[plain_name] = layer.get_delta_weight("default").detach().double()
        else:
            found[plain_name] = (layer.weight.double() - own[plain_name].weight.double()).detach()
    assert found
    return found


def test_saving_again_replaces_the_folder_whole(llava_folder, tmp_path):
    vlm = attach_lora(load(llava_folder), LoraSettings(rank=2), seed=0)
    save_trained(vlm, tmp_path / "adapter")
    (tmp_path / "adapter" / "left over").write_text("")
    stir(vlm)
    save_trained(vlm, tmp_path / "adapter")
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]
    assert sorted(p.name for p in (tmp_path / "adapter").iterdir()) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    assert plain.largest_difference(scores(load(llava_folder, adapter=tmp_path / "adapter")), scores(vlm)) == 0


def test_a_second_adapter_and_a_misfit_are_refused(llava_folder, qwen2_vl_folder, tmp_path):
    vlm = attach_lora(load(llava_folder), LoraSettings(rank=2), seed=0)
    with pytest.raises(UserError, match="has an adapter already"):
        attach_lora(vlm, LoraSettings(rank=2), seed=0)
    other = load(qwen2_vl_folder)
    save_trained(attach_lora(other, LoraSettings(rank=2, train_projector=True), seed=0), tmp_path / "adapter")
    with pytest.raises(UserError, match="doesn't fit"):
        load(llava_folder, adapter=tmp_path / "adapter")


@pytest.mark.parametrize("train_projector", [False, True])
def test_an_adapter_can_go_on_training_from_a_saved_one(folder, tmp_path, train_projector):
    settings = LoraSettings(rank=4, train_projector=train_projector)
    first = attach_lora(load(folder), settings, seed=0)
    stir(first)
    save_trained(first, tmp_path / "adapter")
    again = attach_lora(load(folder), settings, seed=5, start=tmp_path / "adapter")
    assert plain.largest_difference(scores(first), scores(again)) == 0
    assert again.fingerprint == attach_lora(load(folder), settings, 9, tmp_path / "adapter").fingerprint
    assert any(p.requires_grad for p in again.model.parameters())
    with adapters_off(again):
        assert plain.largest_difference(scores(again), scores(load(folder))) == 0


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (LoraSettings(rank=3), "another shape"),
        (LoraSettings(rank=4, alpha=8), "has alpha 32"),
        (LoraSettings(rank=4, acts_on="answers"), "acts on everything"),
        (LoraSettings(rank=4, targets="attention"), "other layers"),
        (LoraSettings(rank=4, train_projector=True), "other layers"),
    ],
)
def test_an_adapter_of_other_settings_is_refused(folder, tmp_path, other, message):
    save_trained(attach_lora(load(folder), LoraSettings(rank=4), seed=0), tmp_path / "adapter")
    with pytest.raises(UserError, match=message):
        attach_lora(load(folder), other, seed=0, start=tmp_path / "adapter")
    with pytest.raises(UserError, match="holds no adapter"):
        attach_lora(load(folder), other, seed=0, start=tmp_path)


@pytest.mark.parametrize(
    "more",
    [
        {"modules_to_save": ["lm_head"]},
        {"target_modules": ["q_proj", "embed_tokens"]},
        {"trainable_token_indices": {"embed_tokens": [3, 4]}},
        {"use_rslora": True, "use_dora": True},
    ],
)
def test_adapters_of_other_tools_load(llava_folder, tmp_path, more):
    base = AutoModelForImageTextToText.from_pretrained(llava_folder)
    made = get_peft_model(base, LoraConfig(**{"r": 4, "target_modules": ["q_proj"], "init_lora_weights": False} | more))
    made.save_pretrained(tmp_path / "adapter")
    vlm = load(llava_folder, adapter=tmp_path / "adapter")
    inputs = plain.prompt_inputs(vlm, plain.contexts()[0])
    with torch.no_grad():
        assert torch.equal(vlm.model(**inputs).logits, made.eval()(**inputs).logits)


def test_an_adapter_with_names_from_before_a_renaming_loads(llava_folder, tmp_path):
    trained = attach_lora(load(llava_folder), LoraSettings(rank=4), seed=0)
    stir(trained)
    save_trained(trained, tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    old = {n.replace("model.language_model.", "language_model.model."): t for n, t in load_file(path).items()}
    assert not set(old) & set(load_file(path))
    save_file(old, path)
    assert plain.largest_difference(scores(load(llava_folder, adapter=path.parent)), scores(trained)) == 0


def test_an_adapter_that_diverged_is_refused(llava_folder, tmp_path):
    save_trained(attach_lora(load(llava_folder), LoraSettings(rank=2), seed=0), tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    save_file({name: weight * float("nan") for name, weight in load_file(path).items()}, path)
    with pytest.raises(UserError, match="hold NaN or infinity"):
        load(llava_folder, adapter=tmp_path / "adapter")


def test_pickled_adapters_are_refused(llava_folder, tmp_path):
    save_trained(attach_lora(load(llava_folder), LoraSettings(rank=2), seed=0), tmp_path / "adapter")
    (tmp_path / "adapter" / "adapter_model.safetensors").unlink()
    torch.save({}, tmp_path / "adapter" / "adapter_model.bin")
    with pytest.raises(UserError, match=r"adapter_model\.bin"):
        load(llava_folder, adapter=tmp_path / "adapter")
