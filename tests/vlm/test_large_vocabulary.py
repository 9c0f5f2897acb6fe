"""Log-probabilities over a large vocabulary, some tokens at a time: the same numbers and gradients, in less memory."""

from __future__ import annotations

import pytest
import torch

from veridical.vlm.scores import scoring


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_in_parts_as_at_once(monkeypatch, dtype):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(13, 50, generator=generator).to(dtype)
    targets = torch.randint(50, (13,), generator=generator)
    weights = torch.randn(13, generator=generator)
    found = []
    for size in (2**25, 150, 1):
        monkeypatch.setattr(scoring, "IN_FLOAT", size)
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
        monkeypatch.setattr(scoring, "IN_FLOAT", size)
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, s=sizes: (s.append(t.nbytes), t)[1], lambda t: t):
            scoring.token_logprobs(logits, torch.zeros(64, dtype=torch.long))
        kept.append(sum(sizes))
    assert kept[0] >= 64 * 1000 * 4
    assert kept[1] < kept[0] / 1.5
