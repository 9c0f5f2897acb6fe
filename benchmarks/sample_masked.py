"""Five continuations of a picture's caption under a token mask (the BDHS work) against one `generate` call for each.

    python benchmarks/sample_masked.py                    the bundled model
    python benchmarks/sample_masked.py llava-shaped       576 image tokens, 40 M parameters
    python benchmarks/sample_masked.py FOLDER             any model

Each picture's caption is cut at five places, 99 in 100 image tokens are hidden from every layer, and the model goes on
from each cut. `generate` gets the full sequence each time, with the same mask and positions, at batch size 1. Greedy,
so that the texts can be compared; at most `--tokens` new ones. Prints milliseconds a continuation, the ratio, how many
texts are the same, and the ratio that the tokens alone allow.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from stand_ins import llava_shaped
from veridical.records import Record
from veridical.vlm.generation.generate import generate
from veridical.vlm.generation.params import Branch, SamplingParams
from veridical.vlm.images.views import TokenMask
from veridical.vlm.inputs.context import Context
from veridical.vlm.inputs.prepare import prepare
from veridical.vlm.load import load
from veridical.vlm.model.loading import Vlm
from veridical.vlm.prefix.encode import encode
from veridical.world.records import world_records

CUTS = 5


def cuts(text: str) -> list[str]:
    """The text after each sixth of its words."""
    words = text.split()
    return [" ".join(words[: max(1, len(words) * part // (CUTS + 1))]) for part in range(1, CUTS + 1)]


def context(record: Record, view: TokenMask) -> Context:
    return Context(record.images, record.prompt, view, key=("masked", record.id))


def ours(vlm: Vlm, records: Sequence[Record], view: TokenMask, sampling: SamplingParams) -> list[str]:
    prefix = encode(vlm, [context(record, view) for record in records])
    branches = [Branch(row, after=cut) for row, record in enumerate(records) for cut in cuts(record.reference)]
    return [sampled.text for sampled in generate(vlm, prefix, branches, sampling)]


def peers(vlm: Vlm, records: Sequence[Record], view: TokenMask, sampling: SamplingParams) -> list[str]:
    """One `generate` call for each continuation: image, prompt and cut anew."""
    return [plainly(vlm, context(record, view), cut, sampling) for record in records for cut in cuts(record.reference)]


def plainly(vlm: Vlm, shown: Context, cut: str, sampling: SamplingParams) -> str:
    prepared = prepare(vlm, shown)
    after = vlm.tokenizer(cut, add_special_tokens=False, return_tensors="pt").input_ids
    ids = torch.cat([prepared.tensors["input_ids"], after], dim=1)
    mask = torch.ones_like(ids)
    mask[0, prepared.hidden] = 0
    inputs = {key: t for key, t in prepared.tensors.items() if key not in ("input_ids", "attention_mask")}
    positions = torch.arange(ids.shape[1])[None]
    found = vlm.model.generate(
        input_ids=ids, attention_mask=mask, position_ids=positions, **inputs, do_sample=False,
        max_new_tokens=sampling.max_new_tokens,
    )  # fmt: skip
    whole = vlm.tokenizer.decode([*after[0].tolist(), *found[0, ids.shape[1] :].tolist()], skip_special_tokens=True)
    return whole[len(vlm.tokenizer.decode(after[0], skip_special_tokens=True)) :]


def limit(vlm: Vlm, records: Sequence[Record], view: TokenMask, texts: Sequence[str]) -> float:
    """Tokens through the language model one by one, over those with sharing; the tower's work counted as tokens."""
    inner = vlm.model.model
    tower = inner.visual if hasattr(inner, "visual") else inner.vision_tower
    size = sum(p.numel() for p in tower.parameters()) / sum(p.numel() for p in inner.language_model.parameters())
    count = [len(vlm.tokenizer(text, add_special_tokens=False).input_ids) for text in texts]
    alone = shared = 0.0
    for row, record in enumerate(records):
        one = prepare(vlm, context(record, view))
        image = one.length + size * one.placeholders
        own = [len(vlm.tokenizer(cut, add_special_tokens=False).input_ids) for cut in cuts(record.reference)]
        said = sum(own) + sum(count[row * CUTS : (row + 1) * CUTS])
        alone, shared = alone + CUTS * image + said, shared + image + said
    return alone / shared


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="bundled")
    parser.add_argument("--pictures", type=int)
    parser.add_argument("--batch", type=int, default=16, help="pictures together")
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--rho", type=float, default=0.99)
    given = parser.parse_args()
    view, sampling = TokenMask(given.rho), SamplingParams(max_new_tokens=given.tokens, temperature=0.0)
    big = given.model == "llava-shaped"
    with tempfile.TemporaryDirectory() as name, torch.inference_mode():
        vlm = load(llava_shaped(Path(name) / "model") if big else given.model, device="cpu")
        records = world_records("dev", given.pictures or (8 if big else 64), 0, Path(name) / "pictures")
        print(f"{vlm.family}, {sum(p.numel() for p in vlm.model.parameters()) / 1e6:.1f} M parameters, "
              f"{torch.get_num_threads()} thread(s)")  # fmt: skip
        compare(vlm, records, view, sampling, given.batch)


def compare(vlm: Vlm, records: Sequence[Record], view: TokenMask, sampling: SamplingParams, batch: int) -> None:
    ours(vlm, records[:1], view, sampling), peers(vlm, records[:1], view, sampling)
    seconds, texts = [0.0, 0.0], [[], []]
    # Interleaved, so that a machine whose load changes treats both alike.
    for start in range(0, len(records), batch):
        chunk = records[start : start + batch]
        for place, side in enumerate((ours, peers)):
            started = time.perf_counter()
            texts[place] += side(vlm, chunk, view, sampling)
            seconds[place] += time.perf_counter() - started
    each = [1000 * spent / len(texts[0]) for spent in seconds]
    same = sum(a == b for a, b in zip(*texts, strict=True))
    print(f"generate, one by one  {each[1]:8.1f} ms a continuation ({len(texts[0])} continuations)")
    print(f"shared                {each[0]:8.1f} ms    ratio {each[1] / each[0]:.1f}")
    print(f"same texts: {same} of {len(texts[0])}")
    print(f"by tokens alone the ratio is {limit(vlm, records, view, texts[0]):.1f}; the rest is working together")


if __name__ == "__main__":
    main()
