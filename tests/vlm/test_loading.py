from __future__ import annotations

import contextlib
import json
import resource
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.vlm import plain
from transformers import AutoModelForImageTextToText

from veridical.errors import UserError
from veridical.vlm.load import assemble, load
from veridical.vlm.model import loading, support
from veridical.vlm.model.loading import _refuse_not_finite
from veridical.vlm.prefix.encode import encode
from veridical.vlm.scores.scoring import score


def test_a_loaded_model_is_frozen_and_ready(vlm, folder):
    assert vlm.name == str(folder)
    assert vlm.family in support.shared_families()
    assert vlm.sharing.reason == ""
    assert vlm.model.dtype == (torch.bfloat16 if torch.cuda.is_available() else torch.float32)
    assert not any(p.requires_grad for p in vlm.model.parameters())
    assert not any(module.training for module in vlm.model.modules())
    with pytest.raises(RuntimeError, match="does not require grad"):
        score(vlm, encode(vlm, plain.contexts()), plain.ANSWERS)[0][0].sum().backward()


def test_bfloat16_scores_are_near_those_in_float32(folder):
    half, whole = load(folder, dtype="bfloat16"), load(folder, dtype="float32")
    assert half.fingerprint != whole.fingerprint
    scores = [score(vlm, encode(vlm, plain.contexts()), plain.ANSWERS) for vlm in (half, whole)]
    assert all(one.dtype == torch.float32 for answers in scores[0] for one in answers)
    assert 0 < plain.largest_difference(*scores) < 1


def test_the_fingerprint_is_of_contents_and_not_of_places(vlm, folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert load(copy).fingerprint == vlm.fingerprint
    changed = load(copy)
    with torch.no_grad():
        next(changed.model.parameters()).view(-1)[0] += 1e-3
    assert assemble("changed", changed.model, changed.processor).fingerprint != vlm.fingerprint
    (copy / "chat_template.jinja").write_text((copy / "chat_template.jinja").read_text() + " ")
    assert load(copy).fingerprint != vlm.fingerprint
    shutil.copy(folder / "chat_template.jinja", copy)
    settings = json.loads((copy / "processor_config.json").read_text())
    settings["image_processor"]["image_mean"] = [0.4, 0.5, 0.5]
    (copy / "processor_config.json").write_text(json.dumps(settings))
    assert load(copy).fingerprint != vlm.fingerprint


def test_pickled_weights_are_not_read(llava_folder, tmp_path):
    copy = shutil.copytree(llava_folder, tmp_path / "copy")
    model = AutoModelForImageTextToText.from_pretrained(copy)
    (copy / "model.safetensors").unlink()
    torch.save(model.state_dict(), copy / "pytorch_model.bin")
    with pytest.raises(UserError, match="safetensors"):
        load(copy)


def test_what_cannot_be_loaded_is_named(llava_folder, tmp_path):
    with pytest.raises(UserError, match=r"nowhere holds no model.*config\.json"):
        load(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(UserError, match="image-text-to-text"):
        load(tmp_path)
    with pytest.raises(UserError, match="dtype 'int3'"):
        load(llava_folder, dtype="int3")
    with pytest.raises(UserError, match="device 'abacus'"):
        load(llava_folder, device="abacus")
    with pytest.raises(UserError, match=r"adapter_config\.json"):
        load(llava_folder, adapter=tmp_path)


def test_a_processor_without_a_template_is_refused(llava):
    llava.processor.chat_template = llava.tokenizer.chat_template = None
    with pytest.raises(UserError, match="no chat template"):
        assemble("mine", llava.model, llava.processor)


def test_loading_draws_no_random_numbers(folder):
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    load(folder)
    assert torch.equal(torch.rand(3), wanted)
    assert loading.Vlm.__dataclass_params__.frozen


def test_weights_are_hashed_once_from_their_files(llava_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    copy = shutil.copytree(llava_folder, tmp_path / "copy")
    first = load(copy)
    for note in (tmp_path / "cache" / "veridical" / "hashes").iterdir():
        # What is known of an unchanged file is believed, so that it isn't read again.
        note.write_text(note.read_text().replace('"sha256": "', '"sha256": "kept'))
    assert load(copy).weights != first.weights
    weights = load_file(copy / "model.safetensors")
    save_file({name: tensor.clone() for name, tensor in weights.items()}, copy / "again", {"format": "pt"})
    (copy / "again").replace(copy / "model.safetensors")
    shutil.copy(llava_folder / "config.json", copy / "config.json")
    assert load(copy).weights == first.weights


def test_missing_weights_are_not_made_up(llava_folder, tmp_path):
    copy = shutil.copytree(llava_folder, tmp_path / "copy")
    weights = load_file(copy / "model.safetensors")
    name = next(name for name in weights if "q_proj" in name)
    save_file({key: one for key, one in weights.items() if key != name}, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"1 of its weights are missing.*q_proj"):
        load(copy)
    save_file(weights | {name: weights[name][:1].clone()}, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match="q_proj"):
        load(copy)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(llava_folder, tmp_path, number):
    copy = shutil.copytree(llava_folder, tmp_path / "copy")
    weights = load_file(copy / "model.safetensors")
    name = next(name for name in weights if "q_proj" in name)
    weights[name][0, 0] = number
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"1 of its weights hold NaN or infinity.*q_proj"):
        load(copy)


def test_a_configuration_of_a_far_larger_model_is_refused_before_weights_are_made_up(llava_folder, tmp_path):
    """Without its `text_config` a LLaVA is one of 7B, by transformers' defaults."""
    folder = Path(shutil.copytree(llava_folder, tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text())
    del config["text_config"]
    (folder / "config.json").write_text(json.dumps(config))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=r"config.json is of a model of 6,\d{3},\d{3},\d{3} weights, its files hold"):
        load(folder, device="cpu")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 2 * 2**20  # KiB


@pytest.mark.parametrize("named", ["../other.safetensors", "pytorch_model.bin", "/etc/passwd", "missing.safetensors"])
def test_an_index_names_safetensors_beside_it_only(llava_folder, tmp_path, named):
    copy = shutil.copytree(llava_folder, tmp_path / "copy")
    shutil.copy(copy / "model.safetensors", tmp_path / "other.safetensors")
    (copy / "model.safetensors").rename(copy / "part.safetensors")
    index = {"metadata": {}, "weight_map": {"lm_head.weight": named}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=named.rpartition("/")[2]):
        load(copy)


@pytest.mark.parametrize("name", ["config.json", "processor_config.json", "tokenizer.json", "generation_config.json"])
@pytest.mark.parametrize("content", ["{", "[]", '{"model_type": 5}', "\x00"])
def test_damaged_files_of_a_model_give_a_sentence(llava_folder, tmp_path, name, content):
    copy = shutil.copytree(llava_folder, tmp_path / "copy")
    assert (copy / name).is_file()
    (copy / name).write_text(content)
    with contextlib.suppress(UserError):  # a sentence, or nothing where the file isn't needed; never another error
        load(copy)


def test_weights_of_eight_bits_are_not_asked_whether_they_are_finite():
    """As a model has that was published in FP8; torch can't answer."""
    layer = torch.nn.Linear(2, 2)
    layer.weight = torch.nn.Parameter(layer.weight.to(torch.float8_e4m3fn), requires_grad=False)
    _refuse_not_finite("fp8", layer)
    layer.bias.data[0] = float("nan")
    with pytest.raises(UserError, match=r"1 of its weights hold NaN or infinity \(bias"):
        _refuse_not_finite("fp8", layer)


def test_a_tokenizer_over_which_its_library_panics_gives_a_sentence(llava_folder, tmp_path):
    """What a library in Rust raises then is no Exception."""
    copy = shutil.copytree(llava_folder, tmp_path / "copy")
    content = json.loads((copy / "tokenizer.json").read_text())
    content["model"]["continuing_subword_prefix"] = "x" * 70_000
    (copy / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="can't be loaded: a library in Rust panicked"):
        load(copy)


@pytest.mark.parametrize("ends", [" ", [[3]], {"a": 1}, [None, "</s>"]])
def test_what_ends_an_answer_has_to_be_tokens(llava_folder, tmp_path, ends):
    copy = shutil.copytree(llava_folder, tmp_path / "copy")
    settings = json.loads((copy / "generation_config.json").read_text())
    (copy / "generation_config.json").write_text(json.dumps(settings | {"eos_token_id": ends}))
    with pytest.raises(UserError, match=r"ends an answer; it takes numbers of tokens|can't be loaded"):
        load(copy)


def test_code_of_a_model_is_neither_run_nor_asked_about(llava_folder, tmp_path, monkeypatch):
    folder = tmp_path / "model"
    shutil.copytree(llava_folder, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "foreign", "auto_map": {"AutoConfig": "foreign.Config"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "foreign.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("somebody was asked"))
    with pytest.raises(UserError, match="custom code"):
        load(folder)
    assert not (tmp_path / "ran").exists()
