"""A tiny model, a handful of pictures and pairs on them, for all tests of training."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy
import pytest
from PIL import Image

from veridical.records import ImageFile, Message, Pair, Provenance

sys.path.insert(0, str(Path(__file__).parents[1]))

CHOSEN = (
    "There is a fork and a knife on the table.",
    "A dog is in the park.",
    "I can see two cups.",
    "The cat sits behind the red car.",
    "There are three cups and a plate in this picture. The cat sits next to a tree.",
)
REJECTED = (
    "There is a fork, a spoon and a knife.",
    "A dog and a ball are in the park, next to a tree.",
    "I can see two cups and a plate on the table in the park.",
    "The cat sits behind a bicycle.",
    "There is a ball.",
)


@pytest.fixture(scope="session")
def llava_folder(tmp_path_factory) -> Path:
    from models import tiny_llava

    return tiny_llava(tmp_path_factory.mktemp("llava"))


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> list[ImageFile]:
    folder = tmp_path_factory.mktemp("pictures")
    random = numpy.random.default_rng(0)
    return [picture(folder / f"{index}.png", random) for index in range(4)]


def picture(path: Path, random: numpy.random.Generator) -> ImageFile:
    """A picture of large coloured patches, which differ between pictures and survive resizing."""
    patches = random.integers(0, 256, (6, 6, 3), dtype=numpy.uint8)
    Image.fromarray(patches.repeat(16, 0).repeat(16, 1)).save(path)
    return ImageFile(path, hashlib.sha256(path.read_bytes()).hexdigest())


def make_pairs(pictures: list[ImageFile], count: int) -> list[Pair]:
    """Pairs with answers of different lengths; pictures repeat, as several pairs of a record do."""
    prompts = ((Message("user", "Describe this image."),), (Message("user", "What is on the left?"),))
    return [
        Pair(
            id=f"pair-{i}",
            record_id=f"record-{i % len(pictures)}",
            images=(pictures[i % len(pictures)],),
            prompt=prompts[i % 2],
            chosen=CHOSEN[i % 5],
            rejected=REJECTED[(i + i // 5) % 5],
            provenance=Provenance("test", "", {}, 0, "tiny"),
        )
        for i in range(count)
    ]


@pytest.fixture(scope="session")
def pairs(pictures) -> list[Pair]:
    return make_pairs(pictures, 11)


@pytest.fixture(scope="session")
def vlm(llava_folder):
    """The tiny model with a fresh adapter; tests that train it make their own."""
    return adapted(llava_folder)


def adapted(folder: Path, seed: int = 0, perturb: bool = False, **lora):
    """The model in `folder` with a new adapter; `perturb` makes the adapter change the model, as training would."""
    import torch

    from veridical.vlm.load import attach_lora, load
    from veridical.vlm.model.adapters import LoraSettings

    vlm = attach_lora(load(folder, device="cpu"), LoraSettings(rank=4, alpha=8, **lora), seed)
    if perturb:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in vlm.model.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return vlm


@pytest.fixture(scope="session")
def examples(vlm, pairs):
    from veridical.align.checks import prepare

    return prepare(pairs, vlm, 512, "shorten").examples
