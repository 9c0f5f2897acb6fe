"""The same pairs, weights and order through TRL's own DPOTrainer: losses, margins and adapters are the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.align.conftest import make_pairs

from veridical.align.checks import prepare
from veridical.align.config import AlignConfig
from veridical.align.inputs import BatchEncoder
from veridical.align.reference import ReferenceCache, fill
from veridical.align.sampler import SeededOrder
from veridical.align.trainer import PairTrainer
from veridical.objectives.base import Objective
from veridical.objectives.dpo import Dpo
from veridical.objectives.hinge import Hinge
from veridical.objectives.ipo import Ipo
from veridical.objectives.mpo import Mpo
from veridical.pairs.dataset import read_pairs, to_trl, write_build
from veridical.vlm.load import attach_lora, load
from veridical.vlm.model.adapters import LoraSettings

# 12 pairs, four a step in two halves, two epochs: six steps. TRL weighs a short last half too much.
LORA = LoraSettings(rank=4, alpha=8)


def settings(build: Path, model: Path, objective: Objective) -> AlignConfig:
    return AlignConfig(
        pairs=build,
        out=build.parent / "ours",
        model=str(model),
        objective=objective,
        lora=LORA,
        learning_rate=2e-3,
        epochs=2,
        batch_size=4,
        micro_batch=2,
        warmup=0.2,
        weight_decay=0.01,
        seed=3,
        workers=0,
    )


def ours(config: AlignConfig):
    vlm = attach_lora(load(config.model, device="cpu"), config.lora, config.seed)
    first_weights = {name: p.detach().clone() for name, p in vlm.model.named_parameters() if p.requires_grad}
    examples = prepare(read_pairs(config.pairs), vlm, config.max_answer_tokens, config.too_long).examples
    encoder = BatchEncoder(vlm, 2**30)
    cache = ReferenceCache(config.out / "reference")
    fill(cache, encoder, examples, config.objective.needs(), config.micro_batch, 0, lambda _: None)
    trainer = PairTrainer(config, encoder, cache, examples, ())
    trainer.train()
    return trainer, first_weights


def theirs(config: AlignConfig, first_weights, **loss_settings):
    from peft import LoraConfig
    from transformers import AutoModelForImageTextToText, AutoProcessor
    from trl import DPOConfig, DPOTrainer

    class InOurOrder(DPOTrainer):
        def _get_train_sampler(self, train_dataset):
            return SeededOrder([str((pair.images, pair.prompt)) for pair in read_pairs(config.pairs)], config.seed)

    arguments = DPOConfig(
        output_dir=str(config.out.parent / "theirs"),
        per_device_train_batch_size=config.micro_batch,
        gradient_accumulation_steps=config.batch_size // config.micro_batch,
        num_train_epochs=config.epochs,
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.scheduler,
        warmup_steps=1,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        gradient_checkpointing=False,
        bf16=False,
        max_length=None,
        dataloader_pin_memory=False,
        disable_tqdm=True,
        **loss_settings,
    )
    trainer = InOurOrder(
        model=AutoModelForImageTextToText.from_pretrained(config.model, dtype=torch.float32),
        args=arguments,
        train_dataset=to_trl(config.pairs),
        processing_class=AutoProcessor.from_pretrained(config.model),
        peft_config=LoraConfig(
            task_type="CAUSAL_LM",
            r=LORA.rank,
            lora_alpha=LORA.alpha,
            target_modules=r".*language_model.*\.(q|k|v|o|gate|up|down)_proj",
        ),
    )
    parameters = dict(trainer.model.named_parameters())
    assert {name for name, p in parameters.items() if p.requires_grad} == set(first_weights)
    with torch.no_grad():
        for name, value in first_weights.items():
            parameters[name].copy_(value)
    trainer.train()
    return trainer


REWARDS = (
    *("loss", "learning_rate", "grad_norm"),
    *("rewards/margins", "rewards/accuracies", "rewards/chosen", "rewards/rejected"),
)
ALL = (*REWARDS, "logps/chosen", "logps/rejected")
# What TRL reports are rewards of whole answers, whatever its loss makes of them.
LOSS = ("loss", "learning_rate", "grad_norm")


@pytest.mark.parametrize(
    ("objective", "loss_settings", "compared"),
    [
        (Dpo(beta=0.3), {"beta": 0.3}, ALL),
        (
            Dpo(beta=0.1, nll_weight=0.5),
            {"beta": 0.1, "loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.5]},
            ALL,
        ),
        (Hinge(beta=0.2), {"beta": 0.2, "loss_type": "hinge"}, ALL),
        (Dpo(beta=0.3, tail_weight=0.4), {"beta": 0.3, "ld_alpha": 0.4}, REWARDS),
        (Dpo(beta=2.0, length="mean"), {"beta": 2.0, "loss_type": "sigmoid_norm"}, LOSS),
        (Ipo(beta=0.5), {"beta": 0.5, "loss_type": "ipo"}, LOSS),
        (Mpo(), {"loss_type": ["sigmoid", "bco_pair", "sft"], "loss_weights": [0.8, 0.2, 1.0]}, ALL),
    ],
    ids=["sigmoid", "with likelihood", "hinge", "length-desensitised", "per token", "ipo", "mpo"],
)
def test_every_step_is_trls(tmp_path, llava_folder, pictures, objective, loss_settings, compared):
    build = write_build(tmp_path / "build", make_pairs(pictures, 12))
    config = settings(build, llava_folder, objective)
    own, first_weights = ours(config)
    trl = theirs(config, first_weights, **loss_settings)
    steps = [row for row in own.state.log_history if "loss" in row]
    reference = [row for row in trl.state.log_history if "loss" in row]
    assert len(steps) == len(reference) == 6
    for mine, other in zip(steps, reference, strict=True):
        for name in compared:
            tolerance = 1e-3 if name.startswith("logps") else 1e-4
            if name == "rewards/accuracies" and mine["step"] <= 2:
                continue  # before the first update (the first rate is 0) margins are rounding errors
            assert mine[name] == pytest.approx(other[name], abs=tolerance), (mine["step"], name)
    # The numbers moved, so that equality says something.
    assert abs(steps[-1]["rewards/margins"]) > 0.05
    final = dict(trl.model.named_parameters())
    for name, value in own.model.named_parameters():
        if value.requires_grad:
            torch.testing.assert_close(value, final[name], atol=2e-4, rtol=0)
