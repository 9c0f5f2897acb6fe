"""GRPO steps of veridical against TRL's GRPOTrainer: groups of 8 answers to an image, sampling included, interleaved.

    python benchmarks/grpo_step.py                    in Qwen2.5-VL's shape: 576 image tokens, 90-token answers
    python benchmarks/grpo_step.py --side 32          1,024 image tokens
    python benchmarks/grpo_step.py --beta 0.04        with a KL to the reference
    python benchmarks/grpo_step.py --generations 16 --tokens 200

A random model with Qwen2.5-VL's proportions between image, answer, tower and language model trains with LoRA on both
sides; answers never end before their longest length, so that both do the same work. A step is sampling, rewards (the
length of the text), log-probabilities, backward and the optimiser. Prints milliseconds a step, by the clock and of the
processor, their ratios, and beside them the ratio of floating-point operations of matrix products as torch counts them.
That each side's step computes the same is what tests/rl/test_against_trl.py shows.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import torch
from PIL import Image

from stand_ins import qwen_shaped
from veridical.judges.panel import Panel
from veridical.records import ImageFile, Message, Record
from veridical.rl.grpo import Grpo
from veridical.rl.judging import Judging, Monitor
from veridical.rl.prompts import PromptEncoder
from veridical.rl.work import PolicyGradient, Task
from veridical.vlm.generation.params import SamplingParams
from veridical.vlm.load import attach_lora, load
from veridical.vlm.model.adapters import LoraSettings
from veridical.vlm.shrinking import BatchLimit

PROMPT = "Describe this image."


def make_records(folder: Path, count: int, side: int = 24) -> list[Record]:
    """Images of coloured patches, all asked the same."""
    random = numpy.random.default_rng(0)
    records = []
    for index in range(count):
        path = folder / f"{index}.png"
        patches = random.integers(0, 256, (side, side, 3), dtype=numpy.uint8)
        Image.fromarray(patches.repeat(28, 0).repeat(28, 1)).save(path)
        image = ImageFile(path, hashlib.sha256(path.read_bytes()).hexdigest())
        records.append(Record(str(index), (image,), (Message("user", PROMPT),)))
    return records


class Ours:
    """Steps of veridical's policy gradient."""

    def __init__(self, model: Path, records: list[Record], given: argparse.Namespace) -> None:
        self.vlm = attach_lora(load(model, device="cpu"), LoraSettings(rank=16, alpha=32), 0)
        self.vlm.model.train()
        ends = tuple(sorted(self.vlm.traits.stop_ids))
        sampling = SamplingParams(given.tokens, 1.0, never=ends)
        task = Task(records, given.groups, 0, sampling, {f"{__name__}:length": 1.0}, Judging(Panel()), Monitor(None))
        encoder = PromptEncoder(self.vlm, 2**30, torch.float32)
        algorithm = Grpo(num_generations=given.generations, beta=given.beta)
        self.work = PolicyGradient(self.vlm, encoder, algorithm, task, BatchLimit(given.groups, "prompts", ""))
        self.optimiser = torch.optim.AdamW([p for p in self.vlm.model.parameters() if p.requires_grad], lr=1e-4)

    def step(self, step: int) -> float:
        """Sample, reward, forward, backward, update; returns the tokens of a step's answers."""
        rollouts = self.work.begin(step)
        self.work.loss(rollouts).backward()
        self.work.metrics()
        self.optimiser.step()
        self.optimiser.zero_grad()
        return sum(len(answer.ids) for rollout in rollouts for answer in rollout.answers)


class Trls:
    """Steps of TRL's trainer."""

    def __init__(self, model: Path, records: list[Record], given: argparse.Namespace, folder: Path) -> None:
        from datasets import Dataset
        from peft import LoraConfig
        from transformers import AutoModelForImageTextToText, AutoProcessor
        from trl import GRPOConfig, GRPOTrainer

        prompt = [{"role": "user", "content": PROMPT}]
        rows = [{"images": [Image.open(r.images[0].path).convert("RGB")], "prompt": prompt} for r in records]
        self.rows, self.given = Dataset.from_list(rows), given
        self.tokens = 0

        def reward(completions: list[Any], completion_ids: list[list[int]], **_: Any) -> list[float]:
            self.tokens = sum(map(len, completion_ids))
            return [float(len(one[0]["content"])) for one in completions]

        self.trainer = GRPOTrainer(
            model=AutoModelForImageTextToText.from_pretrained(model, dtype=torch.float32),
            reward_funcs=reward,
            args=GRPOConfig(
                output_dir=str(folder / "theirs"),
                per_device_train_batch_size=given.groups * given.generations,
                num_generations=given.generations,
                max_completion_length=given.tokens,
                generation_kwargs={"min_new_tokens": given.tokens},
                beta=given.beta,
                report_to="none",
                use_cpu=True,
                bf16=False,
                gradient_checkpointing=False,
            ),
            train_dataset=self.rows,
            processing_class=AutoProcessor.from_pretrained(model),
            peft_config=LoraConfig(
                task_type="CAUSAL_LM",
                r=16,
                lora_alpha=32,
                target_modules=r".*language_model.*\.(q|k|v|o|gate|up|down)_proj",
            ),
        )
        self.trainer.model.train()
        self.trainer.current_gradient_accumulation_steps = 1
        trained = [p for p in self.trainer.model.parameters() if p.requires_grad]
        self.optimiser = torch.optim.AdamW(trained, lr=1e-4)

    def step(self, step: int) -> float:
        """Sample, reward, forward, backward, update; returns the tokens of a step's answers."""
        start = step * self.given.groups
        chosen = [self.rows[start + i] for i in range(self.given.groups) for _ in range(self.given.generations)]
        self.trainer.training_step(self.trainer.model, chosen, None)
        self.optimiser.step()
        self.optimiser.zero_grad()
        return self.tokens


def length(answers: Any, judging: Any) -> list[float | None]:
    """The length of the text."""
    return [float(len(one.text)) for one in answers]


def timed(action: Callable[[int], float], step: int) -> tuple[float, numpy.ndarray]:
    """The tokens, and milliseconds by the clock and of the processor."""
    wall, processor = time.perf_counter(), time.process_time()
    tokens = action(step)
    return tokens, numpy.array([time.perf_counter() - wall, time.process_time() - processor]) * 1000


def flops(action: Callable[[int], float], step: int) -> int:
    """Floating-point operations of matrix products."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        action(step)
    return int(counter.get_total_flops())


def main() -> None:
    """Take turns, and print."""
    given = _arguments()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = qwen_shaped(folder / "model", given.side)
        records = make_records(folder, given.groups * (given.steps + 2), given.side)
        ours, trls = Ours(model, records, given), Trls(model, records, given, folder)
        size = sum(p.numel() for p in ours.vlm.model.parameters()) / 1e6
        print(
            f"{size:.0f} M parameters, {given.side**2} image tokens, {given.groups} prompt(s) a step, "
            f"{given.generations} answers of {given.tokens} tokens each, beta {given.beta:g}, "
            f"{torch.get_num_threads()} thread(s)",
            flush=True,
        )
        counted = flops(trls.step, 0) / flops(ours.step, 0)
        own_times, trl_times = [], []
        for step in range(1, given.steps + 1):
            own_tokens, own = timed(ours.step, step)
            trl_tokens, trl = timed(trls.step, step)
            assert own_tokens == trl_tokens == given.groups * given.generations * given.tokens
            own_times.append(own)
            trl_times.append(trl)
        own, trl = numpy.median(own_times, 0), numpy.median(trl_times, 0)
        print(
            f"ours {own[0]:.0f} ms ({own[1]:.0f} of the processor)   TRL {trl[0]:.0f} ms ({trl[1]:.0f})   "
            f"ratio {trl[0] / own[0]:.2f} ({trl[1] / own[1]:.2f}); of floating-point operations {counted:.2f}"
        )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=int, default=1, help="prompts a step")
    parser.add_argument("--side", type=int, default=24, help="an image has as many tokens as this squared")
    parser.add_argument("--generations", type=int, default=8, help="answers to each")
    parser.add_argument("--tokens", type=int, default=90, help="tokens of an answer")
    parser.add_argument("--beta", type=float, default=0.0, help="weight of the KL to the reference")
    parser.add_argument("--steps", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    main()
