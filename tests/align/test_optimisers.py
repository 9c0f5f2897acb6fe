"""Which optimiser steps, at which rates, and for how long."""

from __future__ import annotations

import json

import pytest
import torch
from tests.align.conftest import adapted

from veridical.align.callbacks import StepLog
from veridical.align.config import AlignConfig
from veridical.align.inputs import BatchEncoder
from veridical.align.reference import ReferenceCache, fill, missing
from veridical.align.trainer import PairTrainer
from veridical.errors import UserError
from veridical.objectives.base import LogpRequest
from veridical.vlm.model.adapters import LoraSettings

BOTH = (LogpRequest("chosen"), LogpRequest("rejected"))


def trainer_of(out, vlm, examples, **changes) -> PairTrainer:
    usual = {"lora": LoraSettings(rank=4, alpha=8), "learning_rate": 2e-3, "epochs": 1, "batch_size": 4, "workers": 0}
    config = AlignConfig(pairs=out, out=out, **usual | changes)
    encoder, cache = BatchEncoder(vlm, 2**30), ReferenceCache(out / "reference")
    fill(cache, encoder, missing(cache, examples, BOTH), BOTH, 4, 0, lambda _: None)
    return PairTrainer(config, encoder, cache, examples, (StepLog(out / "log.jsonl"),))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"quantise": "nf4", "train": "language"}, "quantised weights can't train"),
        ({"projector_rate": 1e-4}, "the projector doesn't train"),
        ({"device": "spread"}, "a process for each GPU"),
    ],
)
def test_settings_that_cant_be_are_refused(tmp_path, changes, said):
    with pytest.raises(UserError, match=said):
        AlignConfig(pairs=tmp_path, out=tmp_path, **changes)


def test_the_projector_has_a_rate_of_its_own(tmp_path, llava_folder, examples):
    settings = LoraSettings(rank=4, alpha=8, train_projector=True)
    vlm = adapted(llava_folder, train_projector=True)
    trainer = trainer_of(tmp_path, vlm, examples, lora=settings, projector_rate=1e-5)
    groups = trainer.create_optimizer().param_groups
    rates = {group["lr"] for group in groups}
    assert rates == {2e-3, 1e-5}
    names = {id(p): name for name, p in trainer.model.named_parameters()}
    slow = [names[id(p)] for group in groups if group["lr"] == 1e-5 for p in group["params"]]
    assert slow
    assert all("multi_modal_projector" in name for name in slow)
    trained = sum(len(group["params"]) for group in groups)
    assert trained == sum(p.requires_grad for p in trainer.model.parameters())


@pytest.mark.parametrize(("optimiser", "kind"), [("rmsprop", torch.optim.RMSprop), ("adamw", torch.optim.AdamW)])
def test_training_ends_after_max_steps(tmp_path, llava_folder, examples, optimiser, kind):
    trainer = trainer_of(tmp_path, adapted(llava_folder), examples, optimiser=optimiser, max_steps=4, epochs=3)
    trainer.train()
    assert trainer.state.global_step == 4
    assert isinstance(trainer.optimizer.optimizer, kind)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    # Eleven pairs are three steps of four: the fourth is in the second epoch, at the end of the schedule.
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert rows[-1]["epoch"] > 1


def test_eight_bit_moments_step(tmp_path, llava_folder, examples):
    trainer = trainer_of(tmp_path, adapted(llava_folder), examples, optimiser="adamw-8bit", max_steps=1)
    before = {name: p.clone() for name, p in trainer.model.named_parameters() if p.requires_grad}
    trainer.train()
    assert type(trainer.optimizer.optimizer).__module__.startswith("bitsandbytes")
    assert any(not torch.equal(before[name], p) for name, p in trainer.model.named_parameters() if name in before)
