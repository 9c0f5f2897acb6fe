"""Building pairs against the naive loop: one image, one `generate` of transformers at a time. Same work, interleaved.

    python benchmarks/build_speed.py [bundled | FOLDER] [--records 256] [--naive 32] [--batch 128] [--rounds 3]

bpo-image: one answer to a noised image for each record. bdhs: for each record a mask, and a completion of each
sentence behind the true ones before it. The naive loop, on the first records of the same, has the model's own
`generate` read the whole sequence, image and all, for each text; hidden image tokens are masked in its attention mask.
Both draw under the same limits, by chance, so lengths differ a little, and time is also taken for each token.

Prints milliseconds a text and a token for both, and the ratio, medians over the rounds: of the processor's time where
`--processor-time` is given, which other work on the machine disturbs less, else of the clock.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from veridical.constructions.bdhs import BdhsSettings
from veridical.constructions.bpo_image import BpoImageSettings
from veridical.constructions.protocol import Request, Sample, Steps
from veridical.constructions.registry import construction
from veridical.generators.local import LocalGenerator
from veridical.judges.panel import Panel
from veridical.judges.similarity import TokenSimilarity
from veridical.pairs.engine import Engine
from veridical.pairs.runner import run_concurrently
from veridical.records import Record
from veridical.vlm.inputs.prepare import prepare
from veridical.vlm.load import load
from veridical.vlm.model.loading import Vlm
from veridical.world.records import world_records

TOKENS = 64


class Spent(NamedTuple):
    """What one side did: texts, tokens in them, and seconds."""

    texts: int
    tokens: int
    seconds: float


def bpo_requests(records: Sequence[Record]) -> list[Sample]:
    """What bpo-image asks of the model."""
    settings = BpoImageSettings(view="noise:450", temperature=0.7, max_new_tokens=TOKENS, keep_unfinished=True)
    return [_first(construction("bpo-image")(record, settings, 0)) for record in records]


def bdhs_requests(records: Sequence[Record]) -> list[Sample]:
    """What the first try of bdhs asks of the model."""
    settings = BdhsSettings(view="token-mask:0.8", max_new_tokens=TOKENS, keep_unfinished=True)
    return [_first(construction("bdhs")(record, settings, 0)) for record in records]


def _first(steps: Steps) -> Sample:
    request: Request = next(steps)
    assert isinstance(request, Sample)
    return request


def together(vlm: Vlm, requests: Sequence[Sample], batch: int, clock: Callable[[], float]) -> Spent:
    """The builder's way."""

    def ask(request: Sample) -> Steps:
        answers = yield request
        written.extend(answers)
        return []

    written: list[object] = []
    engine = Engine(LocalGenerator(vlm), Panel((TokenSimilarity(),)))
    started = clock()
    for _ in run_concurrently(((i, str(i), ask(one)) for i, one in enumerate(requests)), engine, batch):
        pass
    seconds = clock() - started
    tokens = sum(_count(vlm, answer.text) for answer in written)  # type: ignore[attr-defined]
    return Spent(len(written), tokens, seconds)


def naively(vlm: Vlm, requests: Sequence[Sample], clock: Callable[[], float]) -> Spent:
    """One `generate` for each text, on the whole sequence."""
    texts, tokens = 0, 0
    started = clock()
    for request in requests:
        for after in request.after or [""] * len(request.keys):
            tokens += _generate(vlm, request, after)
            texts += 1
    return Spent(texts, tokens, clock() - started)


def _generate(vlm: Vlm, request: Sample, after: str) -> int:
    prepared = prepare(vlm, request.context)
    inputs = {name: tensor.to(vlm.model.device) for name, tensor in prepared.tensors.items()}
    if prepared.hidden is not None:
        inputs["attention_mask"][:, prepared.hidden] = 0
    if after:
        added = vlm.tokenizer(after, add_special_tokens=False, return_tensors="pt").input_ids.to(vlm.model.device)
        inputs["input_ids"] = torch.cat([inputs["input_ids"], added], 1)
        inputs["attention_mask"] = torch.cat([inputs["attention_mask"], torch.ones_like(added)], 1)
    sampling = request.sampling
    with torch.inference_mode():
        ids = vlm.model.generate(
            **inputs,
            do_sample=True,
            temperature=sampling.temperature,
            top_k=0,
            top_p=1.0,
            max_new_tokens=sampling.max_new_tokens,
            eos_token_id=sorted(vlm.traits.stop_ids),
            pad_token_id=vlm.tokenizer.pad_token_id,
            **({"stop_strings": list(sampling.stop), "tokenizer": vlm.tokenizer} if sampling.stop else {}),
        )
    new = ids[0, inputs["input_ids"].shape[1] :].tolist()
    return sum(token not in vlm.traits.stop_ids for token in new)


def _count(vlm: Vlm, text: str) -> int:
    return len(vlm.tokenizer(text, add_special_tokens=False).input_ids)


def compare(name: str, requests: list[Sample], vlm: Vlm, given: argparse.Namespace) -> None:
    """Print both sides' times, medians over interleaved rounds."""
    clock = time.process_time if given.processor_time else time.perf_counter
    together(vlm, requests[: given.batch], given.batch, clock)
    ours, theirs = [], []
    for _ in range(given.rounds):
        ours.append(together(vlm, requests, given.batch, clock))
        theirs.append(naively(vlm, requests[: given.naive], clock))
    rows: dict[str, Callable[[Spent], float]] = {
        "ms a text": lambda one: 1000 * one.seconds / one.texts,
        "ms a token": lambda one: 1000 * one.seconds / one.tokens,
    }
    print(f"\n{name}: {ours[0].texts} texts, {ours[0].tokens / ours[0].texts:.1f} tokens each "
          f"(naive loop: {theirs[0].tokens / theirs[0].texts:.1f}), batch {given.batch}")  # fmt: skip
    for row, of in rows.items():
        one, other = statistics.median(map(of, ours)), statistics.median(map(of, theirs))
        print(f"  {row:10}  veridical {one:8.2f}   naive {other:8.2f}   ratio {other / one:5.2f}")


def main() -> None:
    """Compare both constructions."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="bundled")
    parser.add_argument("--records", type=int, default=256)
    parser.add_argument("--naive", type=int, default=32, help="records that the naive loop does")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processor-time", action="store_true")
    given = parser.parse_args()
    vlm = load(given.model)
    print(f"{vlm.name} on {vlm.model.device}, {vlm.model.dtype}, {torch.get_num_threads()} threads")
    with tempfile.TemporaryDirectory() as folder:
        records = world_records("pairs", given.records, 0, Path(folder))
        compare("bpo-image", bpo_requests(records), vlm, given)
        compare("bdhs", bdhs_requests(records), vlm, given)


if __name__ == "__main__":
    main()
