"""CHAIR of real captions against the published table: 20,000 captions of five models (POPE, arXiv 2305.10355, Table 2).

    git clone https://github.com/RUCAIBox/POPE
    python benchmarks/pope_captions.py --captions POPE/caption_data --synonyms synonyms.txt \
        --instances instances_train2014.json instances_val2014.json \
        --reference-captions captions_train2014.json captions_val2014.json

The list of synonyms is in data/ of github.com/LisaAnne/Hallucination. Instead of COCO's annotations, --objects takes
what a published evaluator found in them: chair.pkl of github.com/Maxlinn/CHAIR-metric-standalone, or {image: [names]}
as JSON. Nothing in a pickled file is run.
"""

from __future__ import annotations

import argparse
import json
import pickle
from collections import defaultdict
from pathlib import Path
from typing import Any

import veridical as vd

PUBLISHED = {
    "Instruction2_mplug": ("mPLUG-Owl, short", 14.8, 25.4),
    "Instruction2_llava": ("LLaVA, short", 10.5, 32.7),
    "Instruction2_mmgpt": ("MultiModal-GPT, short", 11.1, 15.0),
    "Instruction2_minigpt-4": ("MiniGPT-4, short", 6.7, 9.5),
    "Instruction2_instructblip": ("InstructBLIP, short", 2.6, 3.7),
    "Instruction1_mplug": ("mPLUG-Owl, brief", 30.2, 76.8),
    "Instruction1_llava": ("LLaVA, brief", 18.8, 62.7),
    "Instruction1_mmgpt": ("MultiModal-GPT, brief", 18.2, 36.2),
    "Instruction1_minigpt-4": ("MiniGPT-4, brief", 9.2, 31.5),
    "Instruction1_instructblip": ("InstructBLIP, brief", 2.5, 3.4),
}
"""By the captions' file: the model and what it was asked for ("Generate a short caption of the image." or "Provide a
brief description of the given image."), CHAIRi and CHAIRs of the paper's Table 2."""


class _Kept(pickle.Unpickler):
    """Reads the pickled evaluator as plain data: no class of it but containers is looked up."""

    def find_class(self, module: str, name: str) -> Any:
        known = {("collections", "defaultdict"): defaultdict, ("builtins", "list"): list, ("builtins", "set"): set}
        return known.get((module, name)) or type(name, (), {})


def objects_of(path: Path, images: set[str]) -> dict[str, list[str]]:
    """The objects in images, from {image: [names]} or a pickled evaluator."""
    if path.suffix == ".pkl":
        with path.open("rb") as file:
            found = _Kept(file).load().imid_to_objects
    else:
        found = json.loads(path.read_text())
    by_image = {str(image): sorted(names) for image, names in found.items()}
    return {image: by_image[image] for image in sorted(images)}


def images_of(captions: Path) -> set[str]:
    """The images that a file of captions names."""
    return {str(row["image_id"]) for row in map(json.loads, captions.read_text().splitlines()) if row}


def main() -> None:
    """Score all ten files and print a table beside the published numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions", type=Path, required=True)
    parser.add_argument("--synonyms", type=Path, required=True)
    parser.add_argument("--objects", type=Path)
    parser.add_argument("--instances", type=Path, nargs="*", default=[])
    parser.add_argument("--reference-captions", type=Path, nargs="*", default=[])
    given = parser.parse_args()
    truth: dict[str, Any] = {"instances": given.instances, "reference_captions": given.reference_captions}
    if given.objects is not None:
        truth = {"objects": objects_of(given.objects, images_of(given.captions / "Instruction2_llava.json"))}
    print(
        "| | captions | CHAIRi | published | CHAIRs | published | recall | words |\n|---|---|---|---|---|---|---|---|"
    )
    for name, (label, chair_i, chair_s) in PUBLISHED.items():
        found = vd.score("chair", captions=given.captions / f"{name}.json", synonyms=given.synonyms, **truth)
        counted, measured = found.result["counts"]["items"], found.metrics
        ours = [f"{measured[name]:.1f}" for name in ("chair_i", "chair_s", "recall", "words")]
        row = [label, str(counted), ours[0], str(chair_i), ours[1], str(chair_s), *ours[2:]]
        print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
