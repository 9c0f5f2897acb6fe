"""Log-probabilities over a large vocabulary, some tokens at a time: the same numbers and gradients, in less memory."""

from __future__ import annotations

import dataclasses
import warnings

import pytest
import torch
from tests.vlm import plain

from veridical.vlm.load import attach_lora, load
from veridical.vlm.model import families
from veridical.vlm.model.adapters import LoraSettings
from veridical.vlm.model.loading import Sharing
from veridical.vlm.prefix.encode import encode
from veridical.vlm.scores import output_layer, scoring
from veridical.vlm.scores.token_scores import score_tokens


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_in_parts_as_at_once(monkeypatch, dtype):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(13, 50, generator=generator).to(dtype)
    targets = torch.randint(50, (13,), generator=generator)
    weights = torch.randn(13, generator=generator)
    found = []
    for size in (2**25, 150, 1):
        monkeypatch.setattr(output_layer, "IN_FLOAT", size)
        own = logits.clone().requires_grad_(True)
        scored = scoring.token_logprobs(own, targets)
        (scored * weights).sum().backward()
        found.append((scored.detach(), own.grad))
        assert torch.equal(scoring.token_logprobs(logits, targets), scored)
    for scored, gradient in found[1:]:
        assert torch.equal(scored, found[0][0])
        assert torch.equal(gradient, found[0][1])
    expected = logits.float().log_softmax(-1)[torch.arange(13), targets]
    assert torch.allclose(found[0][0], expected, atol=1e-6)


def test_what_is_kept_for_the_backward_pass_is_no_copy_in_float(monkeypatch):
    kept = []
    logits = torch.randn(64, 1000).bfloat16().requires_grad_(True)
    for size in (2**25, 4000):
        monkeypatch.setattr(output_layer, "IN_FLOAT", size)
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, s=sizes: (s.append(t.nbytes), t)[1], lambda t: t):
            scoring.token_logprobs(logits, torch.zeros(64, dtype=torch.long))
        kept.append(sum(sizes))
    assert kept[0] >= 64 * 1000 * 4
    assert kept[1] < kept[0] / 1.5


@pytest.fixture(scope="module", params=["everything", "answers"])
def adapted(request, llava_folder):
    vlm = attach_lora(load(llava_folder, device="cpu"), LoraSettings(rank=4, acts_on=request.param), 0)
    with torch.no_grad():
        for name, weight in vlm.model.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.02, generator=torch.Generator().manual_seed(0))
    return vlm


def learnt(vlm, what) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """What is scored, and the gradients of its sum."""
    vlm.model.zero_grad()
    scored = torch.cat(what(encode(vlm, plain.contexts())))
    scored.sum().backward()
    return scored.detach(), [p.grad.clone() for p in vlm.model.parameters() if p.grad is not None]


def of_texts(vlm):
    return lambda prefix: [one for some in scoring.score(vlm, prefix, plain.ANSWERS) for one in some]


def of_tokens(vlm):
    def scored(prefix):
        rows = [(context, scoring.answer_ids(vlm, text)) for context, some in enumerate(plain.ANSWERS) for text in some]
        found = score_tokens(vlm, prefix, rows, temperature=0.7)
        return [*found.logps, *found.entropies]

    return scored


def after_output_layer(vlm, change):
    """What the model makes of its output layer's logits: as `change` says."""

    def hook(_module, _given, output):
        output.logits = change(output.logits)

    return families.base_model(vlm.model).register_forward_hook(hook)


@pytest.mark.parametrize("scores", [of_texts, of_tokens])
@pytest.mark.parametrize("follows", ["nothing", "a cap", "a scale"])
def test_the_output_layer_in_parts_gives_the_same_scores_and_gradients(monkeypatch, adapted, scores, follows):
    changes = {"nothing": lambda x: x, "a cap": lambda x: torch.tanh(x / 3.0) * 3.0, "a scale": lambda x: x / 2}
    head = families.base_model(adapted.model).get_output_embeddings()
    monkeypatch.setattr(families.text_config(adapted.model), "final_logit_softcapping", 3.0, raising=False)
    handle = after_output_layer(adapted, changes[follows])
    try:
        whole = learnt(adapted, scores(adapted))
        monkeypatch.setattr(output_layer, "IN_FLOAT", 3 * len(head.weight))
        parts = learnt(adapted, scores(adapted))
    finally:
        handle.remove()
        head.__dict__.pop(output_layer._WHOLE, None)
    assert torch.allclose(parts[0], whole[0], atol=1e-5)
    assert whole[1]
    for own, expected in zip(parts[1], whole[1], strict=True):
        assert torch.allclose(own, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def test_no_tensor_has_the_logits_of_all_tokens(monkeypatch, adapted):
    """With many answers, in the pass and in its backward pass."""
    from torch.utils._python_dispatch import TorchDispatchMode

    vocabulary, hidden = families.base_model(adapted.model).get_output_embeddings().weight.shape
    most = [0]

    class Widest(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            made = function(*args, **(kwargs or {}))
            for one in torch.utils._pytree.tree_leaves(made):
                if isinstance(one, torch.Tensor) and one.dim() and one.shape[-1] == vocabulary:
                    most[0] = max(most[0], one.numel() // vocabulary)
            return made

    answers = [["There is a fork on the table. " * 3] * 6] * len(plain.contexts())
    found = {}
    for size in (2**25, 8 * vocabulary):
        monkeypatch.setattr(output_layer, "IN_FLOAT", size)
        most[0] = 0
        with Widest():
            scored = scoring.score(adapted, encode(adapted, plain.contexts()), answers)
            tokens = sum(len(one) for some in scored for one in some)
            sum(one.sum() for some in scored for one in some).backward()
        found[size] = most[0]
    rows = sum(map(len, answers))
    assert found[2**25] >= tokens - rows
    # The prefixes' own predictions are one token an answer; the layer's own weights are as wide.
    assert found[8 * vocabulary] <= max(8, rows, hidden) < tokens / 3


def test_with_hooks_of_others_on_the_output_layer_logits_are_whole(monkeypatch, adapted):
    head = families.base_model(adapted.model).get_output_embeddings()
    whole = learnt(adapted, of_texts(adapted))[0]
    monkeypatch.setattr(output_layer, "IN_FLOAT", 3 * len(head.weight))
    seen = []
    handle = head.register_forward_hook(lambda _m, _i, made: seen.append(made.numel() // len(head.weight)))
    try:
        scored = learnt(adapted, of_texts(adapted))[0]
    finally:
        handle.remove()
    assert max(seen) > 3
    assert torch.allclose(scored, whole, atol=1e-5)


def test_token_ids_beyond_256_are_what_they_are_in_bfloat16(llava_folder):
    shared = load(llava_folder, device="cpu", dtype="bfloat16")
    alone = dataclasses.replace(shared, sharing=Sharing(tested=False, reason="it is compared"))
    texts = [[some[0]] for some in plain.ANSWERS]
    rows = [(place, scoring.answer_ids(shared, text)) for place, (text,) in enumerate(texts)]
    assert max(max(ids) for _, ids in rows) > 256
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        prefixes = [encode(vlm, plain.contexts()) for vlm in (shared, alone)]
        for found in (
            [torch.cat([one for some in scoring.score(shared, prefix, texts) for one in some]) for prefix in prefixes],
            [torch.cat(score_tokens(shared, prefix, rows).logps) for prefix in prefixes],
        ):
            # Another token's log-probability is several away; rounding is a fraction of one.
            assert float((found[0] - found[1]).abs().mean()) < 0.25
