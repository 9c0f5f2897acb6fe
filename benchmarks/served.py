"""Compare a served model with the same one in this process: captions, continuations, scores, yes/no, candidates, LoRA.

    python benchmarks/served.py --url http://localhost:8000/v1 --served-model bundled --model bundled --lora

Start the server on the same weights, in float32; `benchmarks/vllm.sh` does all of it with vLLM on a CPU. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from veridical.abilities import ALL
from veridical.constructions.protocol import Sample, Score, YesNo
from veridical.generators import served
from veridical.generators.config import GeneratorSettings
from veridical.generators.local import LocalGenerator
from veridical.generators.remote import RemoteGenerator
from veridical.records import Message
from veridical.vlm.generation.params import SamplingParams
from veridical.vlm.inputs.context import Context
from veridical.vlm.load import attach_lora, load
from veridical.vlm.model.adapters import LoraSettings, save_trained
from veridical.vlm.model.loading import Vlm
from veridical.world.records import world_records

GREEDY = SamplingParams(max_new_tokens=32, temperature=0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True)
    parser.add_argument("--served-model", required=True, help="the model's id at the server")
    parser.add_argument("--model", default="bundled", help="the same model, by folder or hub name")
    parser.add_argument("--pictures", type=int, default=8)
    parser.add_argument("--lora", action="store_true", help="also load an adapter into the server")
    given = parser.parse_args()
    settings = GeneratorSettings(url=given.url, model=given.served_model)
    vlm = load(given.model)
    with tempfile.TemporaryDirectory() as folder:
        records = world_records("pairs", given.pictures, 3, Path(folder) / "scenes")
        contexts = [Context(record.images, record.prompt, key=(record.id,)) for record in records]
        remote = RemoteGenerator(served.find_out(settings, given.url, given.served_model))
        found: dict[str, Any] = {"lacking": dict(remote.lacking(ALL))}
        found |= compared(remote, LocalGenerator(vlm), contexts, [record.reference or "A dog." for record in records])
        if given.lora:
            adapted = with_random_adapter(vlm)
            save_trained(adapted, Path(folder) / "adapter")
            remote = RemoteGenerator(served.find_out(settings, given.url, given.served_model, Path(folder) / "adapter"))
            texts = [record.reference or "A dog." for record in records]
            found["lora"] = compared(remote, LocalGenerator(adapted), contexts, texts)
            remote.close()
    print(json.dumps(found, indent=1))


def compared(
    remote: RemoteGenerator, local: LocalGenerator, contexts: list[Context], texts: list[str]
) -> dict[str, Any]:
    captions = [Sample(context, (("a",),), GREEDY) for context in contexts]
    stopping = replace(GREEDY, stop=(".",))
    continued = [Sample(context, (("a",),), stopping, ("There is a",)) for context in contexts]
    scores = [Score(context, (text,)) for context, text in zip(contexts, texts, strict=True)]
    asked = [YesNo(replace(one, prompt=(Message("user", "Is there a fork in the picture?"),))) for one in contexts]
    drawn = Sample(contexts[0], tuple((index,) for index in range(4)), SamplingParams(16, 1.0))
    pairs = [
        (one, other)
        for ours, theirs in zip(remote.answer(scores), local.answer(scores), strict=True)
        for one, other in zip(ours[0].policy, theirs[0].policy, strict=True)
    ]
    yes = list(zip(remote.answer(asked), local.answer(asked), strict=True))
    return {
        "captions identical": same(remote.answer(captions), local.answer(captions)),
        "continuations identical": same(remote.answer(continued), local.answer(continued)),
        "largest difference of a token's log-probability": max(abs(one - other) for one, other in pairs),
        "largest difference of a yes": max(abs(one - other) for one, other in yes),
        "different candidates of 4": len({answer.text for answer in remote.answer([drawn])[0]}),
    }


def same(ours: list[Any], theirs: list[Any]) -> str:
    return f"{sum(one == other for one, other in zip(ours, theirs, strict=True))} of {len(ours)}"


def with_random_adapter(vlm: Vlm) -> Vlm:
    adapted = attach_lora(vlm, LoraSettings(rank=8), seed=0)
    with torch.no_grad():
        for name, parameter in adapted.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0.0, 0.05, generator=torch.Generator().manual_seed(len(name)))
    return adapted


if __name__ == "__main__":
    main()
