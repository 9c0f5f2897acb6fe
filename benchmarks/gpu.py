"""Check and time the engine on one GPU in one command, without a network; writes one JSON file.

    python benchmarks/gpu.py --out gpu.json                  a 7B model of LLaVA-1.5's shape, random weights, in minutes
    python benchmarks/gpu.py --out small.json --size small   the same steps on a model that a CPU can do

What is checked: shared scores against separate forwards; sdpa against FlashAttention 2, where that is installed; and
that training in bfloat16 reaches the margin of float32 (a small model, 5 %). What is timed: a DPO step with LoRA, its
reference, and generation, with peak memory; TRL's DPOTrainer on the same pairs, where it is installed; and the step
compiled. A part that fails is in the file with its error, and the others go on; one that would begin after `--minutes`
is left out, and the file says so.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
from stand_ins import llava_shaped
from train_step import make_pairs
from veridical.align.checks import prepare
from veridical.align.config import AlignConfig
from veridical.align.inputs import BatchEncoder
from veridical.align.reference import ReferenceCache, fill
from veridical.align.trainer import PairTrainer
from veridical.objectives.dpo import Dpo
from veridical.vlm.generation.generate import generate
from veridical.vlm.generation.params import Branch, SamplingParams
from veridical.vlm.inputs.context import Context
from veridical.vlm.load import assemble, attach_lora
from veridical.vlm.model.adapters import LoraSettings
from veridical.vlm.model.load_options import compile_language_model
from veridical.vlm.model.loading import Vlm
from veridical.vlm.prefix.encode import encode
from veridical.vlm.scores import full_forward
from veridical.vlm.scores.scoring import answer_ids, score, token_logprobs

SEVEN_B = {
    "text": {
        "vocab_size": 32064,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
    },
    "vision": {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16},
}
PAIRS = 2
"""Pairs a step."""


def model_of(given: argparse.Namespace, folder: Path, dtype: torch.dtype, attention: str = "sdpa") -> Vlm:
    """The model with random weights that depend on nothing but its shape, made on the device itself."""
    from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

    config = AutoConfig.from_pretrained(folder)
    if given.size == "7b":
        for part, widths in (("text_config", SEVEN_B["text"]), ("vision_config", SEVEN_B["vision"])):
            for name, value in widths.items():
                setattr(getattr(config, part), name, value)
    if given.size == "tiny":
        config.text_config.num_hidden_layers = config.vision_config.num_hidden_layers = 2
    torch.manual_seed(0)
    with torch.device(given.device):
        model = AutoModelForImageTextToText.from_config(config, dtype=dtype, attn_implementation=attention)
    model.to(given.device).requires_grad_(False).eval()
    processor = AutoProcessor.from_pretrained(folder)
    model.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    return assemble(f"llava-{given.size}", model, processor)


def training(given: argparse.Namespace, folder: Path, vlm: Vlm, work: Path) -> dict[str, Any]:
    """Seconds and peak memory of DPO steps with LoRA by the engine, and of their reference."""
    examples = prepare(make_pairs(work, PAIRS * (given.steps + 1), given.words, 1), vlm, 512, "shorten").examples
    config = AlignConfig(
        pairs=work,
        out=work / "ours",
        batch_size=PAIRS,
        micro_batch=PAIRS,
        workers=0,
        learning_rate=1e-4,
        objective=Dpo(),
    )
    encoder, cache = BatchEncoder(vlm, 2**31), ReferenceCache(work / "reference")
    trainer = PairTrainer(config, encoder, cache, examples, ())
    trainer.current_gradient_accumulation_steps = 1
    optimiser = torch.optim.AdamW([p for p in vlm.model.parameters() if p.requires_grad], lr=1e-4)
    parts = [examples[start : start + PAIRS] for start in range(0, len(examples), PAIRS)]
    references = [
        timed(given, lambda part=part: fill(cache, encoder, part, config.objective.needs(), PAIRS, 0, lambda _: None))
        for part in parts
    ]

    def step(part: Any) -> None:
        trainer.training_step(vlm.model, trainer.data_collator(part))
        optimiser.step()
        optimiser.zero_grad()

    step(parts[0])
    reset_peak(given)
    times = [timed(given, lambda part=part: step(part)) for part in parts[1:]]
    return {
        "reference seconds": statistics.median(references[1:]),
        "step seconds": statistics.median(times),
        "peak GiB": peak(given),
    }


def theirs(given: argparse.Namespace, vlm: Vlm, work: Path) -> dict[str, Any]:
    """The same steps by TRL, on the model without our adapter."""
    from datasets import Dataset
    from peft import LoraConfig
    from PIL import Image
    from trl import DPOConfig, DPOTrainer

    rows = Dataset.from_list(
        [
            {
                "images": [Image.open(image.path).convert("RGB") for image in pair.images],
                "prompt": [{"role": turn.role, "content": turn.text} for turn in pair.prompt],
                "chosen": [{"role": "assistant", "content": pair.chosen}],
                "rejected": [{"role": "assistant", "content": pair.rejected}],
            }
            for pair in make_pairs(work, PAIRS * (given.steps + 1), given.words, 1)
        ]
    )
    on_cpu = given.device == "cpu"
    trainer = DPOTrainer(
        model=vlm.model,
        args=DPOConfig(
            output_dir=str(work / "theirs"),
            per_device_train_batch_size=PAIRS,
            report_to="none",
            use_cpu=on_cpu,
            bf16=not on_cpu,
            gradient_checkpointing=False,
            max_length=None,
        ),
        train_dataset=rows,
        processing_class=vlm.processor,
        peft_config=LoraConfig(
            task_type="CAUSAL_LM",
            r=16,
            lora_alpha=32,
            target_modules=r".*language_model.*\.(q|k|v|o|gate|up|down)_proj",
        ),
    )
    trainer.current_gradient_accumulation_steps = 1
    optimiser = torch.optim.AdamW([p for p in trainer.model.parameters() if p.requires_grad], lr=1e-4)

    def step(start: int) -> None:
        trainer.training_step(trainer.model, trainer.data_collator([rows[start + place] for place in range(PAIRS)]))
        optimiser.step()
        optimiser.zero_grad()

    step(0)
    reset_peak(given)
    times = [timed(given, lambda start=start: step(start)) for start in range(PAIRS, len(rows), PAIRS)]
    return {"step seconds": statistics.median(times), "peak GiB": peak(given)}


def sharing(given: argparse.Namespace, vlm: Vlm, work: Path) -> dict[str, Any]:
    """The largest difference of a token's log-probability between a shared prefix and a forward of its own."""
    pairs = make_pairs(work, 4, given.words, 1)
    contexts = [Context(pair.images, pair.prompt, key=(pair.id,)) for pair in pairs]
    texts = [[pair.chosen, pair.rejected] for pair in pairs]
    with torch.no_grad():
        prefix = encode(vlm, contexts)
        shared = [one for some in score(vlm, prefix, texts) for one in some]
        rows = [(place, answer_ids(vlm, text)) for place, some in enumerate(texts) for text in some]
        whole = full_forward.answer_logits(vlm, prefix, rows)
        separate = [token_logprobs(one, one.new_tensor(ids).long()) for one, (_, ids) in zip(whole, rows, strict=True)]
    apart = [(a - b).abs() for a, b in zip(shared, separate, strict=True)]
    return {"largest": max(float(one.max()) for one in apart), "mean": float(torch.cat(apart).mean())}


def kernels(given: argparse.Namespace, folder: Path, work: Path) -> dict[str, Any]:
    """Scores by sdpa against those by FlashAttention 2."""
    pairs = make_pairs(work, 2, given.words, 1)
    contexts = [Context(pair.images, pair.prompt, key=(pair.id,)) for pair in pairs]
    found = []
    for attention in ("sdpa", "flash_attention_2"):
        vlm = model_of(given, folder, torch.bfloat16, attention)
        with torch.no_grad():
            found.append(
                torch.cat(
                    [one for some in score(vlm, encode(vlm, contexts), [[p.chosen] for p in pairs]) for one in some]
                )
            )
        del vlm
    return {"largest": float((found[0] - found[1]).abs().max()), "mean": float((found[0] - found[1]).abs().mean())}


def generation(given: argparse.Namespace, vlm: Vlm, work: Path) -> dict[str, Any]:
    """Tokens a second, eight candidates of each of four images."""
    pairs = make_pairs(work, 4, given.words, 1)
    contexts = [Context(pair.images, pair.prompt, key=(pair.id,)) for pair in pairs]
    branches = [Branch(place, (place, index)) for place in range(4) for index in range(8)]
    tokens = [0]

    def sample() -> None:
        with torch.no_grad():
            prefix = encode(vlm, contexts)
            tokens[0] = sum(one.tokens for one in generate(vlm, prefix, branches, SamplingParams(given.words, 1.0)))

    sample()
    reset_peak(given)
    seconds = timed(given, sample)
    return {"tokens a second": tokens[0] / seconds, "peak GiB": peak(given)}


def margins(given: argparse.Namespace, work: Path) -> dict[str, Any]:
    """The margin that training a small model reaches in bfloat16, beside float32's."""
    folder = llava_shaped(work / "margins-model")
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        small = argparse.Namespace(**{**vars(given), "size": "small" if given.size == "7b" else given.size})
        vlm = attach_lora(model_of(small, folder, dtype), LoraSettings(), 0)
        examples = prepare(make_pairs(work, 4, 12, 1), vlm, 512, "shorten").examples
        config = AlignConfig(
            pairs=work, out=work / f"margin-{dtype}", batch_size=4, micro_batch=4, workers=0, epochs=given.epochs,
            learning_rate=1e-3, objective=Dpo(), dtype="auto",
        )  # fmt: skip
        encoder, cache = BatchEncoder(vlm, 2**31), ReferenceCache(work / f"margin-reference-{dtype}")
        fill(cache, encoder, examples, config.objective.needs(), 4, 0, lambda _: None)
        trainer = PairTrainer(config, encoder, cache, examples, ())
        trainer.train()
        rows = [row for row in trainer.state.log_history if "rewards/margins" in row]
        found[str(dtype).removeprefix("torch.")] = rows[-1]["rewards/margins"]
    return {**found, "ratio": found["bfloat16"] / found["float32"]}


def timed(given: argparse.Namespace, action: Callable[[], Any]) -> float:
    synchronise(given)
    start = time.perf_counter()
    action()
    synchronise(given)
    return time.perf_counter() - start


def synchronise(given: argparse.Namespace) -> None:
    if given.device != "cpu":
        torch.cuda.synchronize()


def reset_peak(given: argparse.Namespace) -> None:
    if given.device != "cpu":
        torch.cuda.reset_peak_memory_stats()


def peak(given: argparse.Namespace) -> float | None:
    return None if given.device == "cpu" else torch.cuda.max_memory_allocated() / 2**30


def tried(part: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a part finds, or its error."""
    try:
        return part()
    except Exception as error:  # one part's failure is itself a finding
        return {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", choices=("7b", "small", "tiny"), default="7b")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--words", type=int, default=75, help="words an answer, about")
    parser.add_argument("--steps", type=int, default=4, help="steps that are timed, after one that warms up")
    parser.add_argument("--minutes", type=float, default=8, help="no part is begun after so many")
    parser.add_argument("--epochs", type=int, default=8, help="of the two trainings whose margins are compared")
    parser.add_argument(
        "--parts", nargs="*", default=("sharing", "kernels", "margins", "step", "generation", "compiled", "trl")
    )
    given = parser.parse_args()
    half = torch.float32 if given.device == "cpu" else torch.bfloat16
    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if given.device != "cpu" else "cpu",
        "torch": torch.__version__,
        "size": given.size,
    }
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        folder = llava_shaped(work / "model")

        def fresh() -> Vlm:
            return model_of(given, folder, half)

        def compiled() -> dict[str, Any]:
            vlm = attach_lora(fresh(), LoraSettings(), 0)
            compile_language_model(vlm.model)
            return training(given, folder, vlm, work)

        parts: dict[str, Callable[[], dict[str, Any]]] = {
            "sharing": lambda: sharing(given, fresh(), work),
            "kernels": lambda: kernels(given, folder, work),
            "margins": lambda: margins(given, work),
            "step": lambda: training(given, folder, attach_lora(fresh(), LoraSettings(), 0), work),
            "generation": lambda: generation(given, fresh(), work),
            "compiled": compiled,
            "trl": lambda: theirs(given, fresh(), work),
        }
        for part in given.parts:
            start = time.perf_counter()
            if start - begun > 60 * given.minutes:
                found[part] = {"left out": f"{given.minutes:g} minutes had passed"}
            else:
                found[part] = {**tried(parts[part]), "took": round(time.perf_counter() - start, 1)}
            print(part, found[part], flush=True)
            if given.device != "cpu":
                torch.cuda.empty_cache()
            given.out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
