"""The same rollouts, weights and order through TRL's own GRPOTrainer and RLOOTrainer: every step is the same."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from tests.rl.conftest import GROUPS, LONGEST, LORA, RATE, STEPS, brevity_of, train, vowels_in, weights

from veridical.align.step_trainer import places_of_step
from veridical.rl.grpo import Grpo
from veridical.rl.rloo import Rloo


def theirs(model, records, algorithm, ours, folder, **settings):
    """TRL's trainer, given what ours has sampled in the place of its own generation."""
    import trl
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForImageTextToText, AutoProcessor

    rloo = isinstance(algorithm, Rloo)
    base = trl.RLOOTrainer if rloo else trl.GRPOTrainer
    order = [places_of_step(len(records), GROUPS, 7, number) for number in range(STEPS)]
    count = algorithm.num_generations

    class WithOurAnswers(base):
        def _get_train_sampler(self, dataset=None):
            repeats = algorithm.num_iterations
            steps = [places for number in range(STEPS // repeats) for places in [order[number]] * repeats]
            return [place for places in steps for place in places for _ in range(count)]

        def _generate(self, prompts):
            number = self.state.global_step
            asked = [message["content"][-1]["text"] for prompt in prompts for message in prompt[-1:]]
            by_prompt = {record.prompt[0].text: ours.sampled[number].get(record.id) for record in records}
            answers = [by_prompt[text][place % count] for place, text in enumerate(asked)]
            prompt_ids, images, _ = self._tokenize_prompts(prompts)
            ids = [list(one.ids) for one in answers]
            said = [[{"role": "assistant", "content": one.text.strip()}] for one in answers]
            return (prompt_ids, ids, said) if rloo else (prompt_ids, ids, None, said, None, {}, images, [])

    rows = [
        {
            "images": [Image.open(record.images[0].path).convert("RGB")],
            "prompt": [{"role": "user", "content": record.prompt[0].text}],
        }
        for record in records
    ]
    arguments = (trl.RLOOConfig if rloo else trl.GRPOConfig)(
        output_dir=str(folder),
        per_device_train_batch_size=GROUPS * count,
        gradient_accumulation_steps=1,
        num_generations=count,
        num_iterations=algorithm.num_iterations,
        max_completion_length=LONGEST,
        max_steps=STEPS,
        learning_rate=RATE,
        lr_scheduler_type="cosine",
        warmup_steps=0,
        weight_decay=0.01,
        max_grad_norm=1.0,
        reward_weights=[1.0, 0.3],
        beta=algorithm.beta,
        epsilon=algorithm.epsilon,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        disable_dropout=True,
        dataloader_pin_memory=False,
        disable_tqdm=True,
        **settings,
    )
    trainer = WithOurAnswers(
        model=AutoModelForImageTextToText.from_pretrained(model, dtype=torch.float32),
        reward_funcs=[
            lambda completions, **_: [vowels_in(one[0]["content"]) for one in completions],
            lambda completions, **_: [brevity_of(one[0]["content"]) for one in completions],
        ],
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoProcessor.from_pretrained(model),
        peft_config=LoraConfig(
            task_type="CAUSAL_LM",
            r=LORA.rank,
            lora_alpha=LORA.alpha,
            target_modules=r".*language_model.*\.(q|k|v|o|gate|up|down)_proj",
        ),
    )
    parameters = dict(trainer.model.named_parameters())
    assert {name for name, p in parameters.items() if p.requires_grad} == set(ours.first)
    with torch.no_grad():
        for name, value in ours.first.items():
            parameters[name].copy_(value)
    trainer.train()
    return trainer


COMMON = ("loss", "grad_norm", "learning_rate", "reward", "reward_std", "frac_reward_zero_std", "entropy")


@pytest.mark.parametrize(
    ("algorithm", "settings", "compared"),
    [
        (Grpo(num_generations=4), {"loss_type": "dapo"}, COMMON),
        (
            Grpo(num_generations=4, num_iterations=2, loss_type="grpo", beta=0.2, epsilon=0.01, epsilon_high=0.02),
            {"loss_type": "grpo", "epsilon_high": 0.02},
            (*COMMON, "kl", *(f"clip_ratio/{one}" for one in ("low_mean", "high_mean", "region_mean", "high_max"))),
        ),
        (
            Grpo(num_generations=4, beta=0.2, use_bias_correction_kl=False, scale_rewards="batch"),
            {"loss_type": "dapo", "use_bias_correction_kl": False, "scale_rewards": "batch"},
            (*COMMON, "kl"),
        ),
        (
            Grpo(num_generations=4, loss_type="dr_grpo", scale_rewards="none", mask_truncated_completions=True),
            {"loss_type": "dr_grpo", "scale_rewards": "none", "mask_truncated_completions": True},
            ("loss", "grad_norm", "reward"),
        ),
        (
            Grpo(
                num_generations=4,
                num_iterations=2,
                loss_type="grpo",
                importance_sampling_level="sequence",
                multi_objective_aggregation="normalize_then_sum",
                epsilon=0.01,
            ),
            {
                "loss_type": "grpo",
                "importance_sampling_level": "sequence",
                "multi_objective_aggregation": "normalize_then_sum",
            },
            ("loss", "grad_norm", "reward", "entropy"),
        ),
        (
            Rloo(num_generations=3, num_iterations=2, beta=0.3, epsilon=0.05),
            {},
            (*COMMON, "kl", "clip_ratio/region_mean"),
        ),
        (Rloo(num_generations=3, normalize_advantages=True, beta=0.05), {"normalize_advantages": True}, COMMON),
    ],
    ids=["dapo", "grpo, clipped, with kl", "kl as in the paper", "dr. grpo", "sequences", "rloo", "rloo, normalised"],
)
def test_every_step_is_trls(tmp_path, llava_folder, records, algorithm, settings, compared):
    own = train(llava_folder, records, algorithm, tmp_path / "ours")
    trl = theirs(llava_folder, records, algorithm, own, tmp_path / "theirs", **settings)
    reference = [row for row in trl.state.log_history if "loss" in row]
    assert len(own.rows) == len(reference) == STEPS
    for mine, other in zip(own.rows, reference, strict=True):
        for name in compared:
            if name not in other and not mine["step"] % algorithm.num_iterations:
                continue  # TRL tells of rewards once for all steps on the same answers
            assert mine[name] == pytest.approx(other[name], abs=1e-4), (mine["step"], name)
    final = dict(trl.model.named_parameters())
    moved = 0.0
    for name, value in weights(own.vlm).items():
        apart = (value - final[name].detach()).abs()
        # Adam takes the sign of what is rounded: a few weights part where their gradient is nearly nothing.
        assert apart.mean() < 1e-5
        assert apart.max() < 1e-3
        moved = max(moved, float((value - own.first[name]).abs().max()))
    assert moved > RATE  # so that equality says something
