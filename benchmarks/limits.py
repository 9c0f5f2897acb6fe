"""What operations allow: how many times as fast as TRL a DPO step could be, for the shapes of real models.

    python benchmarks/limits.py [--answer 90] [--prompt 24] [--rejected 1]

The language models are built from their published configurations on torch's meta device, where nothing is computed, and
their matrix products are counted; towers are counted by their parameters and the length of their attention. TRL reads
image and prompt for every answer, in the policy and in the reference, in every epoch. Sharing reads them once for all
answers; the reference is computed once, and a frozen tower looks at an image once.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Model:
    """A real model: how to build its language model, its image's tokens, and what its tower takes for the image."""

    name: str
    language: Callable[[], Any]
    image_tokens: int
    tower: int


def llama(**widths: Any) -> Callable[[], Any]:
    def build() -> Any:
        from transformers import LlamaConfig, LlamaForCausalLM

        return LlamaForCausalLM(LlamaConfig(**widths))

    return build


def qwen2(**widths: Any) -> Callable[[], Any]:
    def build() -> Any:
        from transformers import Qwen2Config, Qwen2ForCausalLM

        return Qwen2ForCausalLM(Qwen2Config(**widths))

    return build


def clip(patches: int, hidden: int, layers: int) -> int:
    """Operations of a CLIP tower: products of its layers, and attention of every patch to every other."""
    return 2 * patches * layers * 12 * hidden**2 + 4 * patches**2 * hidden * layers


def qwen_tower(patches: int) -> int:
    """Operations of Qwen2.5-VL's: 28 of 32 layers attend within windows of 64 patches, 4 everywhere."""
    hidden, inner, layers = 1280, 3420, 32
    products = 2 * patches * layers * (4 * hidden**2 + 3 * hidden * inner)
    return products + 4 * hidden * patches * (28 * 64 + 4 * patches)


VICUNA = {
    "vocab_size": 32064,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
}
QWEN = {
    "vocab_size": 152064,
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
}
STAND_IN = {
    "vocab_size": 512,
    "hidden_size": 512,
    "intermediate_size": 1376,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
}
MODELS = (
    Model("LLaVA-1.5-7B", llama(**VICUNA), 576, clip(577, 1024, 24)),
    Model("Qwen2.5-VL-7B, 1,024 image tokens", qwen2(**QWEN), 1024, qwen_tower(4096)),
    Model("Qwen2.5-VL-7B, 2,600 image tokens", qwen2(**QWEN), 2600, qwen_tower(10400)),
    Model("train_step.py llava-shaped", llama(**STAND_IN), 576, clip(577, 160, 4)),
)


def counted(model: Any, tokens: int, after: int, predicted: int) -> int:
    """Operations of a pass over `tokens` that follow `after` others, with logits for `predicted` of them."""
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import DynamicCache

    from veridical.vlm.model.families import cache_argument

    cache = {cache_argument(model): DynamicCache(config=model.config)}
    with torch.device("meta"), torch.no_grad():
        if after:
            model(input_ids=torch.zeros(1, after, dtype=torch.long), **cache, logits_to_keep=1)
        with FlopCounterMode(display=False) as counter:
            model(input_ids=torch.zeros(1, tokens, dtype=torch.long), **cache, logits_to_keep=predicted)
    return int(counter.get_total_flops())


def limits(model: Model, prompt: int, answer: int, rejected: int) -> dict[str, float]:
    """By how much TRL's operations exceed those of sharing: in the first epoch and in later ones.

    A backward pass of LoRA takes about as much as the forward pass, whose inputs' gradients it computes; one of an
    adapter that acts on answers only stops at the prefix.
    """
    with torch.device("meta"):
        language = model.language()
    prefix = counted(language, model.image_tokens + prompt, 0, 1)
    branch = counted(language, answer, model.image_tokens + prompt, answer)
    row = counted(language, model.image_tokens + prompt + answer, 0, answer + 1)
    answers = 1 + rejected
    theirs = rejected * 2 * (3 * row + 2 * model.tower)  # as many pairs, chosen and rejected each, twice and back
    later = 2 * (prefix + answers * branch)
    first = 3 * (prefix + answers * branch) + model.tower
    kept = 2 * answers * branch
    return {
        "tower / language model": model.tower / row,
        "first epoch": theirs / first,
        "later": theirs / later,
        "answers only, prefixes kept": theirs / kept,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompt", type=int, default=24, help="tokens of the prompt")
    parser.add_argument("--answer", type=int, default=90, help="tokens of an answer")
    parser.add_argument("--rejected", type=int, default=1)
    given = parser.parse_args()
    print(f"prompt {given.prompt} tokens, answers {given.answer}, {given.rejected} rejected")
    for model in MODELS:
        found = limits(model, given.prompt, given.answer, given.rejected)
        print(f"{model.name:<36}" + "  ".join(f"{name} {value:.3g}" for name, value in found.items()))


if __name__ == "__main__":
    main()
