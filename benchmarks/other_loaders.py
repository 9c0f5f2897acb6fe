"""Do LLaMA-Factory's and ms-swift's own loaders read what `veridical data export` writes?

    python benchmarks/other_loaders.py --environments FOLDER [--only llamafactory ms-swift]

Each library is installed into an environment of its own, FOLDER/NAME, unless one is there (some GB and minutes each).
Pairs of the picture world, one of them with a system message, one on two images, one whose rejected side has an image
of its own, are exported for it, and its loader, in its environment, says which rows it makes of them: prompt, chosen,
rejected, images. These must be the pairs'. Prints what differs, and exits with 1 where something does.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from veridical.pairs.dataset import write_build
from veridical.pairs.export import export
from veridical.records import Message, Pair, Provenance
from veridical.world.records import world_records

LLAMA_FACTORY = """
import json, sys
from llamafactory.data.loader import _get_merged_dataset
from llamafactory.hparams import DataArguments, ModelArguments
from transformers import Seq2SeqTrainingArguments

folder = sys.argv[1]
data = DataArguments(dataset="pairs", dataset_dir=folder, media_dir=folder, template="default")
training = Seq2SeqTrainingArguments(output_dir=folder + "/unused", report_to="none", use_cpu=True)
rows = _get_merged_dataset(["pairs"], ModelArguments(model_name_or_path="unused"), data, training, "rm")
for row in rows:
    chosen, rejected = (message["content"] for message in row["_response"])
    prompt = [[message["role"], message["content"]] for message in row["_prompt"]]
    if row["_system"]:
        prompt.insert(0, ["system", row["_system"]])
    print("ROW", json.dumps({"prompt": prompt, "chosen": chosen, "rejected": rejected, "images": row["_images"]}))
"""
MS_SWIFT = """
import json, os, sys
os.chdir(sys.argv[1])
from swift.dataset import load_dataset

def paths(images):
    return [image if isinstance(image, str) else image["path"] for image in images or []]

rows, _ = load_dataset(["pairs.jsonl"], strict=True)
for row in rows:
    prompt = [[message["role"], message["content"]] for message in row["messages"][:-1]]
    rejected = row.get("rejected_response") or row["rejected_messages"][-1]["content"]
    told = {"prompt": prompt, "chosen": row["messages"][-1]["content"], "rejected": rejected}
    print("ROW", json.dumps({**told, "images": paths(row["images"]), "own": paths(row.get("rejected_images"))}))
"""
LOADERS = {
    "llamafactory": ("llama-factory", "pairs.json", LLAMA_FACTORY),
    "ms-swift": ("ms-swift", "pairs.jsonl", MS_SWIFT),
}


def main() -> None:
    """Export, load, compare."""
    given = _arguments()
    with tempfile.TemporaryDirectory() as work:
        failed = [name for name in given.only or LOADERS if not _same(name, given.environments, Path(work))]
    sys.exit(bool(failed))


def _same(name: str, environments: Path, work: Path) -> bool:
    """Whether a library's loader makes the pairs' rows of an export; says what it makes."""
    form, file, code = LOADERS[name]
    pairs = _pairs(work / "pictures", system=name == "llamafactory")
    folder = work / name
    export(write_build(work / f"{name}-pairs", pairs), folder / file, form)
    python = _python(name, environments)
    done = subprocess.run([python, "-c", code, folder], capture_output=True, text=True, check=False)
    rows = [json.loads(line.removeprefix("ROW ")) for line in done.stdout.splitlines() if line.startswith("ROW ")]
    if done.returncode or not rows:
        print(f"{name}: its loader fails\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}")
        return False
    version = subprocess.run([python, "-m", "pip", "show", name], capture_output=True, text=True, check=True).stdout
    wanted = [_wanted(pair, folder, own=name == "ms-swift") for pair in pairs]
    differing = [(one, other) for one, other in zip(rows, wanted, strict=False) if one != other]
    print(f"{name} {version.splitlines()[1]}: {len(rows)} rows of {len(pairs)} pairs, {len(differing)} differ")
    print(f"  for one: {json.dumps(rows[0])}")
    for one, other in differing:
        print(f"  loaded {json.dumps(one)}\n  wanted {json.dumps(other)}")
    return not differing and len(rows) == len(pairs)


def _pairs(pictures: Path, system: bool) -> list[Pair]:
    records = [record for record in world_records("counterfactual", 8, 0, pictures) if record.counterfactual]
    made = Provenance("world", "", {}, 0, "")
    pairs = [
        Pair(one.id, one.id, one.images, one.prompt, one.reference or "", one.counterfactual.reference, made)
        for one in records
        if one.counterfactual
    ]
    turns = (Message("user", "What is this?"), Message("assistant", "A picture."), Message("user", "Describe it."))
    before = (Message("system", "Say only what you see."), *turns) if system else turns
    pairs[1] = replace(pairs[1], prompt=before)
    pairs[2] = replace(pairs[2], images=(*pairs[2].images, *pairs[3].images))
    pairs[4] = replace(pairs[4], rejected_images=pairs[5].images)
    return pairs


def _wanted(pair: Pair, folder: Path, own: bool) -> dict[str, Any]:
    """The row that a loader should make of a pair: its first user message begins with a placeholder for each image."""
    first = next(place for place, message in enumerate(pair.prompt) if message.role == "user")
    marks = "<image>\n" * len(pair.images)
    prompt = [[one.role, f"{marks if n == first else ''}{one.text}"] for n, one in enumerate(pair.prompt)]

    def names(images: Sequence[Any]) -> list[str]:
        # ms-swift takes paths from the folder that it runs in, LLaMA-Factory from the data's.
        return [str((Path() if own else folder) / "images" / f"{image.sha256}.png") for image in images]

    row = {"prompt": prompt, "chosen": pair.chosen, "rejected": pair.rejected, "images": names(pair.images)}
    return {**row, "own": names(pair.rejected_images or ())} if own else row


def _python(name: str, environments: Path) -> Path:
    """The interpreter of a library's environment, which is made unless it is there."""
    python = environments.resolve() / name / "bin" / "python"
    if not python.exists():
        print(f"{name}: installing into {python.parents[1]}", flush=True)
        venv.create(python.parents[1], with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", name], check=True)
    return python


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environments", type=Path, required=True, help="folder of the libraries' environments")
    parser.add_argument("--only", nargs="+", choices=sorted(LOADERS))
    return parser.parse_args()


if __name__ == "__main__":
    main()
