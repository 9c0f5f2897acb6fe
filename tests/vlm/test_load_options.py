"""Attention kernels, quantised weights and compiling: the same numbers, or a refusal before anything is loaded."""

from __future__ import annotations

import logging

import pytest
import torch
from tests.vlm import plain

from veridical.errors import UserError
from veridical.vlm import memory
from veridical.vlm.generation.generate import generate
from veridical.vlm.generation.params import Branch, SamplingParams
from veridical.vlm.load import attach_lora, load
from veridical.vlm.model import families
from veridical.vlm.model.adapters import LoraSettings, merged, unfreeze
from veridical.vlm.model.load_options import (
    LoadOptions,
    compile_language_model,
    is_compiled,
    is_quantised,
    silence_kernel_advice,
)
from veridical.vlm.prefix.encode import encode
from veridical.vlm.scores.scoring import score


def scored(vlm) -> torch.Tensor:
    with torch.no_grad():
        answers = score(vlm, encode(vlm, plain.contexts()), plain.ANSWERS)
    return torch.cat([one for some in answers for one in some])


@pytest.fixture(scope="module")
def expected(llava_folder) -> torch.Tensor:
    return scored(load(llava_folder, device="cpu"))


def test_eager_and_sdpa_give_the_same_scores(llava_folder, expected):
    eager = load(llava_folder, device="cpu", options=LoadOptions(attention="eager"))
    assert eager.model.config._attn_implementation == "eager"
    assert torch.allclose(scored(eager), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "device", "said"),
    [
        (LoadOptions(attention="flash_attention_2"), "cpu", "flash_attention_2"),
        (LoadOptions(attention="flash_attention_3"), "cpu", "flash_attention_3"),
        (LoadOptions(), "spread", "several GPUs"),
    ],
)
def test_what_cant_be_had_here_is_refused_before_loading(options, device, said):
    if torch.cuda.device_count() > 1:
        device = "cpu"
    with pytest.raises(UserError, match=said):
        load("nowhere", device=device, options=options)


@pytest.mark.parametrize(("kind", "apart"), [("nf4", 0.5), ("int8", 0.1)])
def test_quantised_weights_score_nearly_the_same_and_take_less_memory(kind, apart):
    whole = load("bundled", device="cpu")
    vlm = load("bundled", device="cpu", options=LoadOptions(quantise=kind))
    assert is_quantised(vlm.model)
    assert not is_quantised(whole.model)
    assert vlm.fingerprint != whole.fingerprint
    difference = float((told(vlm) - told(whole)).abs().mean())
    assert 0 < difference < apart
    layers = {name: type(module).__name__ for name, module in vlm.model.named_modules()}
    kinds = {name: kind for name, kind in layers.items() if "Linear" in kind}
    assert {kind for name, kind in kinds.items() if "vision" in name or "projector" in name} == {"Linear"}
    assert any(kind in ("Linear4bit", "Linear8bitLt") for kind in kinds.values())
    plans = [memory.plan(memory.shape_of(one), "lora", memory.Load(1, 2, 100, 20)).weights for one in (vlm, whole)]
    assert plans[0] < plans[1]
    assert plans[0] == sum(p.nbytes for p in families.base_model(vlm.model).parameters())


def told(vlm) -> torch.Tensor:
    """Log-probabilities of something that the bundled model would say."""
    contexts, texts = plain.contexts()[:1], (("This is a picture of a fork and a knife on the table.",),)
    with torch.no_grad():
        return torch.cat(score(vlm, encode(vlm, contexts), texts)[0])


def test_an_adapter_trains_on_quantised_weights_and_whole_models_dont():
    vlm = load("bundled", device="cpu", options=LoadOptions(quantise="nf4"))
    with pytest.raises(UserError, match="quantised"):
        unfreeze(vlm, projector=False)
    adapted = attach_lora(vlm, LoraSettings(rank=2), seed=0)
    answers = score(adapted, encode(adapted, plain.contexts()[:1]), [("There is a fork on the table.",)])
    (-answers[0][0].mean()).backward()
    gradients = [p.grad for name, p in adapted.model.named_parameters() if "lora_B" in name]
    assert gradients
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients)
    assert merged(adapted) is adapted


def test_advice_on_kernels_reaches_those_who_quantise_alone():
    logger = logging.getLogger("bitsandbytes.backends.cpu.ops")
    before = list(logger.filters)
    advice, other = (
        logging.LogRecord(logger.name, logging.WARNING, "", 1, text, (), None)
        for text in ("Failed to load CPU gemm_4bit_forward from kernels-community: ...", "Something else.")
    )
    try:
        silence_kernel_advice()
        assert not logger.filter(advice)
        assert logger.filter(other)
        load("bundled", device="cpu", options=LoadOptions(quantise="int8"))
        assert logger.filter(advice)
    finally:
        logger.filters[:] = before


def test_a_compiled_model_has_no_graph_break_and_scores_the_same(llava_folder, expected):
    import torch._dynamo

    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    vlm = load(llava_folder, device="cpu")
    # A backend that compiles nothing shows what the tracer makes of the model, in a second.
    compile_language_model(vlm.model, backend="eager")
    assert is_compiled(vlm.model)
    assert torch.allclose(scored(vlm), expected, atol=1e-5)
    assert not torch._dynamo.utils.counters["graph_break"]


def test_a_compiled_model_is_not_compiled_again_for_other_shapes(llava_folder):
    """Prefix, branches and decoding are graphs of their own; other numbers and lengths, padded or not, add none."""
    import torch._dynamo

    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    vlm = load(llava_folder, device="cpu")
    compile_language_model(vlm.model, backend="eager")

    def work(contexts, answers, tokens):
        with torch.no_grad():
            prefix = encode(vlm, contexts)
            score(vlm, prefix, answers)
            branches = [Branch(place, (place, draw)) for place in range(len(contexts)) for draw in range(2)]
            generate(vlm, prefix, branches, SamplingParams(max_new_tokens=tokens, temperature=1.0))

    def graphs():
        return torch._dynamo.utils.counters["stats"]["unique_graphs"]

    work(plain.contexts(), plain.ANSWERS, 4)
    first = graphs()
    assert 0 < first <= 4
    work(plain.contexts()[1:], plain.ANSWERS[1:], 7)
    work([plain.contexts()[0]] * 2, [plain.ANSWERS[0]] * 2, 3)  # nothing is padded
    assert graphs() == first
    assert not torch._dynamo.utils.counters["graph_break"]


def test_the_plan_knows_the_optimiser():
    shape, tokens = memory.published()["LLaVA-1.5-7B"]
    load_ = memory.Load(1, 2, tokens, 128)
    full = {
        name: memory.plan(shape, "full", load_, optimiser=name).optimizer for name in ("adamw", "rmsprop", "adamw-8bit")
    }
    assert full["adamw"] == shape.language * 12
    assert full["rmsprop"] == shape.language * 8
    assert full["adamw-8bit"] == shape.language * 6
