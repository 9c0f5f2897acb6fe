"""Servers that are gone, lie, lack what is needed, or change: said before work, or noticed at work."""

from __future__ import annotations

import json
import socket

import pytest
import torch
from tests.generators.server import MODEL, behaving, serving
from tests.generators.test_remote import GREEDY, SETTINGS, found

from veridical.abilities import ALL, Ability
from veridical.constructions.protocol import Sample
from veridical.errors import UserError
from veridical.generators import served
from veridical.vlm.inputs.context import Context
from veridical.vlm.load import attach_lora, load
from veridical.vlm.model.adapters import LoraSettings, save_trained


def test_a_server_that_is_not_there():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(UserError, match="Start the server"):
        found(f"http://127.0.0.1:{port}/v1")


def test_a_model_that_is_not_served(url):
    with pytest.raises(UserError, match=f"serves no model 'other'; it has {MODEL}"):
        served.find_out(SETTINGS, url, "other")


def test_a_plain_server_answers_and_can_do_nothing_else(url, records):
    with behaving(url, plain=True):
        remote = found(url)
        lacking = remote.lacking(ALL)
        assert set(lacking) == ALL - {Ability.TEXTS}
        assert "continue_final_message" in lacking[Ability.CONTINUE]
        assert "top_k" in lacking[Ability.TOP_K]
        [[answer]] = remote.answer([Sample(Context(records[0].images, records[0].prompt), (("a",),), GREEDY)])
        assert answer.text
        with pytest.raises(UserError, match="it can't continue a given text"):
            remote.answer([Sample(Context(records[0].images, records[0].prompt), (("a",),), GREEDY, ("There",))])


def test_log_probabilities_that_cant_be_true(url):
    with behaving(url, lie="logprobs"):
        lacking = found(url).lacking(ALL)
        assert "sum up to more than 1" in lacking[Ability.FIRST_TOKENS]
        assert Ability.SCORES in lacking
        assert Ability.CONTINUE not in lacking
    with behaving(url, lie="scores"):
        lacking = found(url).lacking(ALL)
        assert "differ by 3 between writing and reading" in lacking[Ability.SCORES]
        assert Ability.FIRST_TOKENS not in lacking


def test_a_server_without_adapters_and_adapters_that_no_server_takes(url, tmp_path):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"r": 2}))
    with behaving(url, lora=False):
        with pytest.raises(UserError, match="--enable-lora"):
            found(url, adapter)
        (adapter / "adapter_config.json").write_text(json.dumps({"alora_invocation_tokens": [1]}))
        with pytest.raises(UserError, match="Train a plain LoRA"):
            found(url, adapter)
        (adapter / "adapter_config.json").write_text(json.dumps({"modules_to_save": ["multi_modal_projector"]}))
        with pytest.raises(UserError, match="merged model"):
            found(url, adapter)


def test_a_server_that_names_another_model_ends_the_run(url, records):
    context = Context(records[0].images, records[0].prompt)
    remote = found(url)
    remote.answer([Sample(context, (("a",),), GREEDY)])
    with behaving(url, swap_after=1):
        remote.answer([Sample(context, (("b",),), GREEDY)])
        with pytest.raises(UserError, match="'served-model' at first, and now as 'another-model'"):
            remote.answer([Sample(context, (("c",),), GREEDY)])


def test_a_server_that_goes_and_comes_back_as_another_model(bundled_folder, llava_folder, records):
    context = Context(records[0].images, records[0].prompt)
    with serving(bundled_folder) as url:
        remote = found(url)
        remote.answer([Sample(context, (("a",),), GREEDY)])
    # While it is gone, nothing is rejected, and many failures end the run.
    [first] = remote.answer([Sample(context, (("a",),), GREEDY)])
    assert (first.passing, first.reason) == (True, "generator-unreachable")
    with pytest.raises(UserError, match="calls all failed"):
        remote.answer([Sample(context, ((index,),), GREEDY) for index in range(12)])
    port = int(url.rpartition(":")[2].partition("/")[0])
    with serving(llava_folder, port=port), pytest.raises(UserError, match="answers otherwise than before"):
        remote.answer([Sample(context, (("b",),), GREEDY)])


def test_a_server_that_was_started_again_is_given_the_adapter_again(bundled_folder, records, tmp_path):
    adapted = attach_lora(load("bundled", device="cpu"), LoraSettings(rank=2), seed=0)
    with torch.no_grad():
        for name, parameter in adapted.model.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.05)
    save_trained(adapted, tmp_path / "adapter")
    request = Sample(Context(records[0].images, records[0].prompt), (("a",),), GREEDY)
    with serving(bundled_folder, "--lora") as url:
        remote = found(url, tmp_path / "adapter")
        first = remote.answer([request])
        assert first != found(url).answer([request])
    port = int(url.rpartition(":")[2].partition("/")[0])
    with serving(bundled_folder, "--lora", port=port):
        assert remote.answer([request]) == first
    with serving(bundled_folder, port=port), pytest.raises(UserError, match="--enable-lora"):
        remote.answer([request])
