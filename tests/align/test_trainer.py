"""The trainer's loss against transformers' own, and what its order and micro-batches may and may not change."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image
from tests.align.conftest import adapted, make_pairs, picture
from torch.overrides import TorchFunctionMode

from veridical.align.arguments import steps_in_all
from veridical.align.batch_loss import loss_of
from veridical.align.checks import prepare
from veridical.align.config import AlignConfig
from veridical.align.inputs import BatchEncoder
from veridical.align.logps import score_requests
from veridical.align.reference import ReferenceCache, fill, missing
from veridical.align.trainer import PairTrainer
from veridical.objectives.base import LogpRequest
from veridical.objectives.ddpo import Ddpo
from veridical.objectives.dpo import Dpo
from veridical.objectives.sft import Sft
from veridical.vlm.images.views import Clean
from veridical.vlm.model.adapters import LoraSettings
from veridical.vlm.shrinking import OutOfMemory


def batch_loss(vlm, objective, examples, folder):
    encoder, cache = BatchEncoder(vlm, 2**30), ReferenceCache(folder)
    fill(cache, encoder, missing(cache, examples, BOTH), BOTH, 4, 0, lambda _: None)
    return loss_of(encoder, cache, objective, encoder.load(examples, [Clean()]))


BOTH = (LogpRequest("chosen"), LogpRequest("rejected"))


def test_sft_is_transformers_own_loss(tmp_path, llava_folder, examples):
    vlm = adapted(llava_folder, perturb=True)
    loss, metrics = batch_loss(vlm, Sft(), examples[:5], tmp_path)
    texts, images = [], []
    for example in examples[:5]:
        content = [{"type": "image"}, {"type": "text", "text": example.prompt[0].text}]
        question = [{"role": "user", "content": content}]
        prompt = vlm.processor.apply_chat_template(question, add_generation_prompt=True)
        texts.append((prompt, example.chosen.text + "<|end|>"))
        images.append([Image.open(example.images[0].path).convert("RGB")])
    inputs = vlm.processor(
        images=images, text=[p + a for p, a in texts], padding=True, padding_side="right", return_tensors="pt"
    )
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    for row, (_, answer) in enumerate(texts):
        length = len(vlm.tokenizer(answer, add_special_tokens=False).input_ids)
        labels[row, : int(inputs["attention_mask"][row].sum()) - length] = -100
    expected = vlm.model(**inputs, labels=labels, use_cache=False).loss
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    assert metrics["nll_loss"].item() == pytest.approx(expected.item(), abs=1e-5)
    assert set(metrics) == {"nll_loss", "logps/chosen"}


@pytest.mark.parametrize("objective", [Dpo(), Sft()])
def test_another_picture_changes_the_loss(tmp_path, llava_folder, examples, objective):
    vlm = adapted(llava_folder, perturb=True)
    other = picture(tmp_path / "other.png", numpy.random.default_rng(7))
    before, _ = batch_loss(vlm, objective, examples[:4], tmp_path / "cache")
    swapped = [replace(e, images=(other,)) for e in examples[:4]]
    after, _ = batch_loss(vlm, objective, swapped, tmp_path / "cache")
    assert abs(before.item() - after.item()) > 1e-3


def trained(out: Path, model: Path, pairs, **changes):
    config = AlignConfig(
        pairs=out,
        out=out,
        model=str(model),
        lora=LoraSettings(rank=4, alpha=8),
        learning_rate=2e-3,
        epochs=1,
        batch_size=4,
        workers=0,
        **changes,
    )
    vlm = adapted(model)
    examples = prepare(pairs, vlm, 512, "shorten").examples
    encoder, cache = BatchEncoder(vlm, config.feature_memory_mb * 2**20), ReferenceCache(out / "reference")
    fill(cache, encoder, missing(cache, examples, BOTH), BOTH, 4, 0, lambda _: None)
    if config.gradient_checkpointing:
        vlm.model.gradient_checkpointing_enable({"use_reentrant": False})
    trainer = PairTrainer(config, encoder, cache, examples, ())
    trainer.train()
    rows = [row for row in trainer.state.log_history if "loss" in row]
    return rows, torch.cat([p.detach().flatten() for p in vlm.model.parameters() if p.requires_grad])


@pytest.mark.parametrize(
    "changes",
    [
        {"micro_batch": 1},
        {"micro_batch": 2, "feature_memory_mb": 0},
        {"micro_batch": 4, "gradient_checkpointing": True},
    ],
    ids=["one at a time", "nothing kept", "activations computed again"],
)
def test_what_saves_memory_changes_nothing(tmp_path, llava_folder, pictures, changes):
    # 11 pairs in steps of four: the last step has three, its last micro-batch of two only one.
    pairs = make_pairs(pictures, 11)
    rows, weights = trained(tmp_path / "a", llava_folder, pairs, micro_batch=4)
    others, other_weights = trained(tmp_path / "b", llava_folder, pairs, **changes)
    assert len(rows) == len(others) == 3
    for one, two in zip(rows, others, strict=True):
        assert one["loss"] == pytest.approx(two["loss"], abs=1e-5)
        assert one["grad_norm"] == pytest.approx(two["grad_norm"], abs=1e-3)
        assert one["logps/chosen"] == pytest.approx(two["logps/chosen"], abs=1e-3)
    torch.testing.assert_close(weights, other_weights, atol=1e-4, rtol=0)


class TooSmall(TorchFunctionMode):
    """A device on which a layer over more than `rows` rows runs out of memory, in training alone."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.rows, self.failures = rows, 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        trains = function is torch.nn.functional.linear and torch.is_grad_enabled() and args[0].requires_grad
        if trains and args[0].ndim == 3 and args[0].shape[0] > self.rows:
            self.failures += 1
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return function(*args, **(kwargs or {}))


def test_training_goes_on_in_smaller_passes_when_memory_runs_out(tmp_path, llava_folder, pictures):
    pairs = make_pairs(pictures, 11)
    rows, weights = trained(tmp_path / "a", llava_folder, pairs, micro_batch=4)
    with TooSmall(4) as device, pytest.warns(UserWarning, match=r"ran out with 4 pairs at a time.*--micro-batch 2"):
        others, other_weights = trained(tmp_path / "b", llava_folder, pairs, micro_batch=4)
    assert 0 < device.failures <= 2
    for one, two in zip(rows, others, strict=True):
        for name in ("loss", "grad_norm", "logps/chosen", "rewards/margins"):
            assert one[name] == pytest.approx(two[name], abs=1e-3), name
    torch.testing.assert_close(weights, other_weights, atol=1e-4, rtol=0)


def test_a_backward_pass_that_broke_off_leaves_nothing_behind(tmp_path, llava_folder, pictures, monkeypatch):
    pairs = make_pairs(pictures, 8)
    _, weights = trained(tmp_path / "a", llava_folder, pairs, micro_batch=2)
    whole, calls = torch.Tensor.backward, []

    def breaks_off_once(self, *arguments, **more):
        whole(self, *arguments, **more)
        calls.append(1)
        if len(calls) == 2:  # the second micro-batch of the first step, with its gradients already added
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(torch.Tensor, "backward", breaks_off_once)
    with pytest.warns(UserWarning, match="ran out with 2 pairs"):
        _, others = trained(tmp_path / "b", llava_folder, pairs, micro_batch=2)
    assert len(calls) == 2 + 4 + 4
    torch.testing.assert_close(weights, others, atol=1e-4, rtol=0)


def test_a_single_pair_that_is_too_much_ends_with_a_remedy(tmp_path, llava_folder, pictures):
    says = r"--gradient-checkpointing.*--max-image-tokens"
    with TooSmall(0), pytest.warns(UserWarning, match="4 pairs"), pytest.raises(OutOfMemory, match=says):
        trained(tmp_path, llava_folder, make_pairs(pictures, 4), micro_batch=4)


def test_dropout_of_the_base_is_off_and_the_adapters_own_is_on(tmp_path, llava_folder, pictures):
    vlm = adapted(llava_folder, dropout=0.5)
    projector = vlm.model.get_base_model().model.multi_modal_projector
    projector.dropout = torch.nn.Dropout(0.3)
    examples = prepare(make_pairs(pictures, 4), vlm, 512, "shorten").examples
    config = AlignConfig(pairs=tmp_path, out=tmp_path, workers=0)
    PairTrainer(config, BatchEncoder(vlm, 0), ReferenceCache(tmp_path), examples, ())
    assert projector.dropout.p == 0
    kept = [m.p for n, m in vlm.model.named_modules() if n.endswith("lora_dropout.default")]
    assert set(kept) == {0.5}


@pytest.mark.parametrize(("pairs", "expected"), [(1, 2), (16, 2), (17, 4), (32, 4)])
def test_steps_in_all(tmp_path, pairs, expected):
    config = AlignConfig(pairs=tmp_path, out=tmp_path, batch_size=16, micro_batch=4, epochs=2)
    assert steps_in_all(config, pairs) == expected


def test_edited_tokens_weigh_more_as_worked_out_from_single_scores(tmp_path, llava_folder, examples):
    vlm = adapted(llava_folder, perturb=True)
    loss, metrics = batch_loss(vlm, Ddpo(beta=0.5, gamma=3.0), examples[:4], tmp_path)
    cache, encoder = ReferenceCache(tmp_path), BatchEncoder(vlm, 2**30)
    expected, edited, tokens = 0.0, 0, 0
    for example in examples[:4]:
        ratios = []
        for need in BOTH:
            [policy] = score_requests(encoder, encoder.load([example], [Clean()]), [need])[need]
            [reference] = cache.get([example.score_key(need)])
            numbers = [*getattr(example, need.response).edits, 0]  # the end of the turn is no edit
            weights = torch.tensor([3.0 if number else 1.0 for number in numbers])
            ratios.append(((policy - reference) * weights).sum() / weights.sum())
            edited += sum(map(bool, numbers))
            tokens += len(numbers)
        expected -= torch.nn.functional.logsigmoid(0.5 * (ratios[0] - ratios[1])).item() / 4
    assert loss.item() == pytest.approx(expected, abs=1e-5)
    assert metrics["edited"].item() == pytest.approx(edited / tokens)
