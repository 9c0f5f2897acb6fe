"""Where LoRA sits in every family, by name, what a step trains, and images of several sizes in one batch."""

from __future__ import annotations

import warnings

import pytest
import torch
from tests.families.catalogue import FAMILIES
from tests.families.tiny import Tiny, random_model
from tests.vlm import plain

from veridical.vlm.inputs.context import Context
from veridical.vlm.load import assemble, attach_lora
from veridical.vlm.model.adapters import LoraSettings, projector_name
from veridical.vlm.model.loading import Vlm
from veridical.vlm.prefix.encode import encode
from veridical.vlm.scores.scoring import score

ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj"}
LLAMA = ATTENTION | {"gate_proj", "up_proj", "down_proj"}
OWN = {
    "aria": LLAMA | {"experts"},
    "blip-2 (OPT)": {"q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"},
    "gemma4": LLAMA | {"per_layer_input_gate", "per_layer_projection"},
    "git": {"query", "key", "value", "dense"},
    "glm4v": ATTENTION | {"gate_up_proj", "down_proj"},
    "kosmos-2": {"q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"},
    "lfm2_vl": {"q_proj", "k_proj", "v_proj", "out_proj", "in_proj", "w1", "w2", "w3"},
    "qwen3_5": LLAMA | {"in_proj_qkv", "in_proj_z", "in_proj_b", "in_proj_a", "out_proj"},
}
"""The layers that are adapted where they aren't those of a Llama."""
OUTSIDE = ("vision", "visual", "tower", "projector", "connector", "qformer", "merger", "aligner", "resampler", "image")
WORKING = sorted(set(FAMILIES) - {"llama4"})


def base(tiny: Tiny, name: str) -> Vlm:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        vlm = assemble(name, random_model(tiny), tiny.processor)
    vlm.model.requires_grad_(False)
    return vlm


@pytest.mark.parametrize("name", WORKING)
def test_lora_is_on_the_language_layers_alone_and_a_step_trains_all_of_it(name):
    vlm = attach_lora(base(FAMILIES[name](), name), LoraSettings(rank=2), seed=0)
    before = {key: value.detach().clone() for key, value in vlm.model.named_parameters()}
    trained = {key for key, value in vlm.model.named_parameters() if value.requires_grad}
    assert all("lora_" in key for key in trained)
    assert not [key for key in trained if any(word in key.rpartition("layers.")[0] for word in OUTSIDE)]
    adapted = {key.split(".lora_")[0].removesuffix(".base_layer").rpartition(".")[2] for key in trained}
    assert adapted == OWN.get(name, LLAMA)
    optimizer = torch.optim.AdamW([p for p in vlm.model.parameters() if p.requires_grad], lr=1e-2, weight_decay=0)
    context = Context((plain.picture(0),), plain.DESCRIBE)
    score(vlm, encode(vlm, [context]), [["There is a fork and a knife on the table."]])[0][0].sum().backward()
    optimizer.step()
    moved = {key for key, value in vlm.model.named_parameters() if not torch.equal(value, before[key])}
    assert moved == {key for key in trained if "lora_B" in key}


@pytest.mark.parametrize("name", ["llava", "qwen2_vl", "idefics3", "gemma3", "internvl", "smolvlm"])
def test_the_projector_trains_only_where_it_is_asked_for(name):
    vlm = base(FAMILIES[name](), name)
    projector = projector_name(vlm.model)
    vlm = attach_lora(vlm, LoraSettings(rank=2, train_projector=True), seed=0)
    whole = {key for key, value in vlm.model.named_parameters() if value.requires_grad and "lora_" not in key}
    assert whole
    assert all(f"{projector}.modules_to_save" in key for key in whole)


@pytest.mark.parametrize("name", ["deepseek_vl", "janus", "perception_lm", "internvl", "llava_next", "qwen2_vl"])
def test_images_of_several_sizes_stand_in_one_batch(name):
    tiny = FAMILIES[name]()
    vlm = base(tiny, name)
    sizes = [(96, 96), (160, 40), (40, 160), (31, 57)]
    contexts = [Context((plain.picture(i, *size),), plain.DESCRIBE, key=(i,)) for i, size in enumerate(sizes)]
    answers = [["A dog.", "Yes."] for _ in sizes]
    with torch.no_grad():
        separate = [
            [plain.answer_logprobs(vlm, one, text) for text in two] for one, two in zip(contexts, answers, strict=True)
        ]
        assert plain.largest_difference(score(vlm, encode(vlm, contexts), answers), separate) < 1e-5
