"""What operations allow: how many times as fast as TRL a DPO or GRPO step could be, for the shapes of real models.

    python benchmarks/limits.py [--answer 90] [--prompt 24] [--rejected 1] [--generations 8]

The language models are built from their published configurations on torch's meta device, where nothing is computed, and
their matrix products are counted; towers are counted by their parameters and the length of their attention. TRL reads
image and prompt for every answer, in the policy and in the reference, in every epoch. Sharing reads them once for all
answers; the reference is computed once, and a frozen tower looks at an image once. A GRPO step samples a group of
answers to an image, scores them with gradients and goes back; TRL reads and looks at the image for each answer, twice.
Prints a table in Markdown.
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


def qwen_tower(
    patches: int, hidden: int = 1280, inner: int = 3420, windows: int = 28, everywhere: int = 4, out: int = 3584
) -> int:
    """Operations of Qwen2.5-VL's: layers that attend within windows of 64 patches, and layers that attend everywhere;
    the convolution before them, and the merger of four patches to a token after them."""
    products = 2 * patches * (windows + everywhere) * (4 * hidden**2 + 3 * hidden * inner)
    ends = 2 * patches * 1176 * hidden + 2 * (patches // 4) * (16 * hidden**2 + 4 * hidden * out)
    return products + 4 * hidden * patches * (windows * 64 + everywhere * patches) + ends


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
SMALL_QWEN = {**STAND_IN, "num_key_value_heads": 2}
MODELS = (
    Model("LLaVA-1.5-7B", llama(**VICUNA), 576, clip(577, 1024, 24)),
    Model("Qwen2.5-VL-7B, 576 image tokens", qwen2(**QWEN), 576, qwen_tower(2304)),
    Model("Qwen2.5-VL-7B, 1,024 image tokens", qwen2(**QWEN), 1024, qwen_tower(4096)),
    Model("Qwen2.5-VL-7B, 2,600 image tokens", qwen2(**QWEN), 2600, qwen_tower(10400)),
    Model("stand-in llava-shaped", llama(**STAND_IN), 576, clip(577, 160, 4)),
    Model("stand-in qwen-shaped, 576 tokens", qwen2(**SMALL_QWEN), 576, qwen_tower(2304, 160, 432, 3, 1, 512)),
    Model("stand-in qwen-shaped, 1,024 tokens", qwen2(**SMALL_QWEN), 1024, qwen_tower(4096, 160, 432, 3, 1, 512)),
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


def limits(model: Model, prompt: int, answer: int, rejected: int, generations: int = 8) -> dict[str, float]:
    """By how much TRL's operations exceed those of sharing: in the first epoch of DPO, in later ones, and in GRPO.

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
    # Sampling token by token takes the products of one pass over the answer, one token at a time.
    grpo = generations * (2 * model.tower + prefix + branch + 2 * row)
    shared = model.tower + 2 * prefix + generations * 3 * branch
    return {
        "tower / language model": model.tower / row,
        "first epoch": theirs / first,
        "later": theirs / later,
        "answers only, prefixes kept": theirs / kept,
        f"GRPO, groups of {generations}": grpo / shared,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompt", type=int, default=24, help="tokens of the prompt")
    parser.add_argument("--answer", type=int, default=90, help="tokens of an answer")
    parser.add_argument("--rejected", type=int, default=1)
    parser.add_argument("--generations", type=int, default=8, help="answers of a group")
    given = parser.parse_args()
    print(f"prompt {given.prompt} tokens, answers {given.answer}, {given.rejected} rejected\n")
    for place, model in enumerate(MODELS):
        found = limits(model, given.prompt, given.answer, given.rejected, given.generations)
        if not place:
            print(f"| | {' | '.join(found)} |\n|---|{'---|' * len(found)}")
        print(f"| {model.name} | {' | '.join(f'{value:.3g}' for value in found.values())} |", flush=True)


if __name__ == "__main__":
    main()
