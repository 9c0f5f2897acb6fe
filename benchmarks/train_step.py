"""DPO steps of veridical against TRL's DPOTrainer: same pairs, weights, order, optimiser; interleaved in one process.

    python benchmarks/train_step.py bundled          the bundled model, 16 pairs a step
    python benchmarks/train_step.py llava-shaped     576 image tokens, 90-token answers, 27 M parameters, 2 pairs a step
    python benchmarks/train_step.py qwen-shaped      1,024 image tokens, the same answers, 24 M parameters
    python benchmarks/train_step.py FOLDER           any model

    --train lora|full|answers   LoRA, the whole language model, or an adapter that acts on answers only, whose prefixes
                                are kept in memory (against TRL's LoRA, whose losses are then not the same);
    --train answers-anew        the same with prefixes read anew at every step
    --rejected 4                that many pairs of each image, with one chosen answer
    --profile                   at the end, the operations that take the most of a later step, on both sides
    --memory                    peak memory instead of times, each side in a process of its own

Prints milliseconds a step (data loading included), by the clock and of the processor, in the first epoch, with the
reference pass and the vision tower, and in later ones, where both are kept; the ratios to TRL; beside them the ratios
of the floating-point operations of matrix products as torch counts them, which is what the ratios of times could be if
every operation cost the same; and the largest difference between the losses, which grows from rounding, step by step.
Peak memory is the most that a process held in resident pages, less what it held when model and pairs were loaded.
"""

from __future__ import annotations

import argparse
import hashlib
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy
import torch
from PIL import Image

from stand_ins import llava_shaped, qwen_shaped
from veridical.align.checks import prepare
from veridical.align.config import AlignConfig
from veridical.align.inputs import BatchEncoder
from veridical.align.reference import ReferenceCache, fill
from veridical.align.trainer import PairTrainer
from veridical.objectives.dpo import Dpo
from veridical.records import ImageFile, Message, Pair, Provenance
from veridical.vlm.load import attach_lora, load
from veridical.vlm.model.adapters import LoraSettings, unfreeze
from veridical.vlm.model.loading import source_of
from veridical.vlm.prefix.prefix_store import PrefixStore

QWEN_SIDE = 32
"""Image tokens a side of the stand-in for Qwen2.5-VL."""
RATES = {"lora": 1e-3, "full": 1e-5, "answers": 1e-3, "answers-anew": 1e-3}
"""Learning rates. With AdamW, rounding grows by the rate: at 1e-3 two copies of a whole model part within steps."""


def make_pairs(folder: Path, count: int, words: int, rejected: int, pixels: int = 196) -> list[Pair]:
    """Pairs of `count` images of that many pixels a side, each with one chosen answer and several rejected ones."""
    random = numpy.random.default_rng(0)
    vocabulary = ("a", "the", "fork", "knife", "cup", "dog", "cat", "car", "table", "is", "on", "and", "in", "two")
    pairs = []
    for index in range(count):
        path = folder / f"{index}.png"
        patches = random.integers(0, 256, (14, 14, 3), dtype=numpy.uint8)
        Image.fromarray(patches.repeat(pixels // 14, 0).repeat(pixels // 14, 1)).save(path)
        image = ImageFile(path, hashlib.sha256(path.read_bytes()).hexdigest())
        lengths = random.integers(words * 2 // 3, words * 4 // 3, 1 + rejected)
        texts = [" ".join(random.choice(vocabulary, length)).capitalize() + "." for length in lengths]
        prompt = (Message("user", "Describe this image."),)
        made = Provenance("", "", {}, 0, "")
        pairs += [
            Pair(f"{index}-{number}", str(index), (image,), prompt, texts[0], text, made)
            for number, text in enumerate(texts[1:])
        ]
    return pairs


class Ours:
    """Steps of veridical's trainer, with an AdamW of our own so that both sides have the same."""

    def __init__(self, model: str, pairs: list[Pair], batch: int, folder: Path, train: str):
        base = load(model, device="cpu")
        acts_on = "answers" if train.startswith("answers") else "everything"
        lora = LoraSettings(rank=16, alpha=32, acts_on=acts_on)
        self.vlm = unfreeze(base, projector=False) if train == "full" else attach_lora(base, lora, 0)
        self.first_weights = {n: p.detach().clone() for n, p in self.vlm.model.named_parameters() if p.requires_grad}
        config = AlignConfig(
            pairs=folder,
            out=folder / "ours",
            model=model,
            batch_size=batch,
            micro_batch=batch,
            workers=0,
            objective=Dpo(),
        )
        self.config, self.batch = config, batch
        self.examples = prepare(pairs, self.vlm, 512, "shorten").examples
        prefixes = PrefixStore(0 if train == "answers-anew" else 2**32, 0, folder / "prefixes")
        self.encoder, self.cache = BatchEncoder(self.vlm, 2**31, prefixes), ReferenceCache(folder / "reference")
        self.trainer = PairTrainer(config, self.encoder, self.cache, self.examples, ())
        self.trainer.current_gradient_accumulation_steps = 1
        self.optimiser = torch.optim.AdamW([p for p in self.vlm.model.parameters() if p.requires_grad], lr=RATES[train])

    def reference(self, step: int) -> None:
        """The share of the reference pass that this step's pairs need."""
        shard = self.examples[step * self.batch : (step + 1) * self.batch]
        fill(self.cache, self.encoder, shard, self.config.objective.needs(), self.batch, 0, lambda _: None)

    def step(self, step: int) -> float:
        """Load, forward, backward, update; returns the loss."""
        examples = self.examples[step * self.batch : (step + 1) * self.batch]
        loss = self.trainer.training_step(self.vlm.model, self.trainer.data_collator(examples))
        self.optimiser.step()
        self.optimiser.zero_grad()
        return loss.item()


class Trls:
    """Steps of TRL's trainer, from the same adapter weights."""

    def __init__(self, model: str, pairs: list[Pair], batch: int, folder: Path, train: str, first_weights=None):
        from datasets import Dataset
        from peft import LoraConfig
        from transformers import AutoModelForImageTextToText, AutoProcessor
        from trl import DPOConfig, DPOTrainer

        rows = [
            {
                "images": [Image.open(image.path).convert("RGB") for image in pair.images],
                "prompt": [{"role": turn.role, "content": turn.text} for turn in pair.prompt],
                "chosen": [{"role": "assistant", "content": pair.chosen}],
                "rejected": [{"role": "assistant", "content": pair.rejected}],
            }
            for pair in pairs
        ]
        self.rows, self.batch = Dataset.from_list(rows), batch
        self.trainer = DPOTrainer(
            model=AutoModelForImageTextToText.from_pretrained(model, dtype=torch.float32),
            args=DPOConfig(
                output_dir=str(folder / "theirs"),
                per_device_train_batch_size=batch,
                report_to="none",
                use_cpu=True,
                bf16=False,
                gradient_checkpointing=False,
                max_length=None,
                beta=Dpo().beta,
            ),
            train_dataset=self.rows,
            processing_class=AutoProcessor.from_pretrained(model),
            peft_config=None
            if train == "full"
            else LoraConfig(
                task_type="CAUSAL_LM",
                r=16,
                lora_alpha=32,
                target_modules=r".*language_model.*\.(q|k|v|o|gate|up|down)_proj",
            ),
        )
        parameters = {n: p for n, p in self.trainer.model.named_parameters() if p.requires_grad}
        if train == "full":
            for name, parameter in parameters.items():
                parameter.requires_grad_("vision_tower" not in name and "multi_modal_projector" not in name)
            parameters = {name: p for name, p in parameters.items() if p.requires_grad}
        if first_weights is not None:
            assert parameters.keys() == first_weights.keys()
            with torch.no_grad():
                for name, value in first_weights.items():
                    parameters[name].copy_(value)
        self.trainer.current_gradient_accumulation_steps = 1
        self.optimiser = torch.optim.AdamW(list(parameters.values()), lr=RATES[train])

    def step(self, step: int) -> float:
        """Load, forward, backward, update; returns the loss."""
        rows = [self.rows[i] for i in range(step * self.batch, (step + 1) * self.batch)]
        loss = self.trainer.training_step(self.trainer.model, self.trainer.data_collator(rows))
        self.optimiser.step()
        self.optimiser.zero_grad()
        return loss.item()


def timed(action, *arguments):
    """The result, and milliseconds by the clock and of the processor."""
    wall, processor = time.perf_counter(), time.process_time()
    result = action(*arguments)
    return result, numpy.array([time.perf_counter() - wall, time.process_time() - processor]) * 1000


def flops(action, *arguments) -> int:
    """Floating-point operations of matrix products."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        action(*arguments)
    return counter.get_total_flops()


def profile(action, *arguments) -> str:
    """The operations that take the most processor time, as torch's profiler tells it."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    with profiler(activities=[ProfilerActivity.CPU]) as found:
        action(*arguments)
    return found.key_averages().table(sort_by="self_cpu_time_total", row_limit=8, max_name_column_width=40)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--train", choices=("lora", "full", "answers", "answers-anew"), default="lora")
    parser.add_argument("--batch", type=int, help="images a step")
    parser.add_argument("--rejected", type=int, default=1, help="rejected answers an image")
    parser.add_argument("--steps", type=int, default=4, help="steps an epoch")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--words", type=int, help="words an answer, about")
    parser.add_argument("--profile", action="store_true", help="show where the time of a step goes")
    parser.add_argument("--memory", action="store_true", help="compare peak memory instead of times")
    parser.add_argument("--side", choices=("ours", "TRL"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.memory:
        compare_memory()
        return
    big = given.model.endswith("-shaped")
    images, words = given.batch or (2 if big else 16), given.words or (75 if big else 14)
    pixels = 28 * QWEN_SIDE if given.model == "qwen-shaped" else 196
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = model_of(given.model, folder / "model")
        # The last step counts operations.
        pairs = make_pairs(folder, images * (given.steps + 1), words, given.rejected, pixels)
        batch = images * given.rejected
        if given.side:
            print(peak_memory(given.side, model, pairs, batch, given, folder))
        else:
            compare(model, pairs, batch, given, folder)


def model_of(name: str, folder: Path) -> str:
    """Where the model of that name is; a stand-in is made in `folder`."""
    if name == "llava-shaped":
        return str(llava_shaped(folder))
    if name == "qwen-shaped":
        return str(qwen_shaped(folder, QWEN_SIDE))
    return str(source_of(name))


def compare_memory() -> None:
    """Run each side in a process of its own, and print what it took."""
    arguments = [argument for argument in sys.argv if argument != "--memory"]
    peaks = {}
    for side in ("ours", "TRL"):
        done = subprocess.run(
            [sys.executable, *arguments, "--side", side], stdout=subprocess.PIPE, text=True, check=True
        )
        peaks[side] = int(done.stdout.split()[-1])
        print(f"{side:<5} peak {peaks[side] / 2**20:8.0f} MiB over model and pairs")
    print(f"ours / TRL {peaks['ours'] / peaks['TRL']:.2f}")


def peak_memory(side: str, model: str, pairs: list[Pair], batch: int, given, folder: Path) -> int:
    """Bytes that training takes at most beyond what is held before it, by one side."""
    trainer = (Ours if side == "ours" else Trls)(model, pairs, batch, folder, given.train)
    status = Path("/proc/self/status").read_text()
    before = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    if side == "ours":
        for step in range(given.steps):
            trainer.reference(step)
    for _ in range(2):
        for step in range(given.steps):
            trainer.step(step)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024


def compare(model: str, pairs: list[Pair], batch: int, given, folder: Path) -> None:
    ours = Ours(model, pairs, batch, folder, given.train)
    trls = Trls(
        model, pairs, batch, folder, given.train, None if given.train.startswith("answers") else ours.first_weights
    )
    size = sum(p.numel() for p in ours.vlm.model.parameters()) / 1e6
    print(f"{given.train}: {size:.1f} M parameters, {batch} pairs a step, {torch.get_num_threads()} thread(s)")
    # All of it before the first step: full training leaves no reference to go back to.
    references = [timed(ours.reference, step)[1] for step in range(given.steps)]
    worst = []
    for epoch in range(given.epochs):
        own_times, trl_times = [], []
        worst.append(0.0)
        for step in range(given.steps):
            extra = references[step] if epoch == 0 else 0.0
            own, own_time = timed(ours.step, step)
            trl, trl_time = timed(trls.step, step)
            own_times.append(own_time + extra)
            trl_times.append(trl_time)
            worst[-1] = max(worst[-1], abs(own - trl))
        own_ms, trl_ms = numpy.median(own_times, 0), numpy.median(trl_times, 0)
        label = "first epoch, with reference" if epoch == 0 else f"epoch {epoch + 1}"
        print(
            f"{label:<28} ours {own_ms[0]:7.0f} ms ({own_ms[1]:.0f} of the processor)   TRL {trl_ms[0]:7.0f} ms "
            f"({trl_ms[1]:.0f})   ratio {trl_ms[0] / own_ms[0]:.2f} ({trl_ms[1] / own_ms[1]:.2f})"
        )
    unseen = given.steps
    first = flops(ours.reference, unseen) + flops(ours.step, unseen), flops(trls.step, unseen)
    later = flops(ours.step, 0), flops(trls.step, 0)
    counted = (f"{theirs / own:.2f}" for own, theirs in (first, later))
    print("floating-point operations: ratio {} in the first epoch, {} later".format(*counted))
    if given.profile:
        for name, side in (("ours", ours), ("TRL", trls)):
            print(f"{name}, a later step:\n{profile(side.step, 0)}")
    if not given.train.startswith("answers"):
        print("largest difference between the losses of a step, by epoch:", *(f"{one:.1e}" for one in worst))


if __name__ == "__main__":
    main()
