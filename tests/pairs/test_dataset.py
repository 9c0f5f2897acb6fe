"""TRL reads the pairs unchanged: straight from the shards, from `to_trl`, and from the exported file."""

import hashlib
from pathlib import Path

import pytest
import torch
from PIL import Image

from veridical.edits import edit_spans
from veridical.errors import UserError
from veridical.pairs.dataset import pair_of, read_pairs, row_of, to_trl, write_build
from veridical.pairs.export import ExportConfig, run
from veridical.records import ImageFile, Message, Pair, Provenance


def make_pair(image: Path, number: int) -> Pair:
    made = Provenance("bpo-image", "noise", {"noise_step": 450}, 1, "m", "oracle", 2, "reference", "own", {"x": 0.5})
    file = ImageFile(image.resolve(), hashlib.sha256(image.read_bytes()).hexdigest())
    turns = (Message("system", "Be brief."), Message("user", "Describe this image."))
    sides = "There is a fork.", f"There are {number} cups."
    spans = edit_spans(*sides) if number % 2 else None
    return Pair(f"r{number}/bpo", f"r{number}", (file,), turns, *sides, made, spans, open_ended=number > 2)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> list[Pair]:
    folder = tmp_path_factory.mktemp("pictures")
    paths = [folder / f"{index}.png" for index in range(4)]
    for index, path in enumerate(paths):
        Image.new("RGB", (64, 48), (60 * index, 20, 200 - 60 * index)).save(path)
    return [make_pair(path, index) for index, path in enumerate(paths)]


@pytest.fixture(scope="module")
def build(pairs, tmp_path_factory) -> Path:
    return write_build(tmp_path_factory.mktemp("run"), pairs)


def test_pairs_come_back_as_they_were(build, pairs):
    for one, other in zip(pairs, read_pairs(build), strict=True):
        assert other.images[0].path.is_relative_to(build)
        assert other.images[0].path.read_bytes() == one.images[0].path.read_bytes()
        assert (one.id, one.prompt, one.chosen, one.rejected) == (other.id, other.prompt, other.chosen, other.rejected)
        assert (one.spans, one.open_ended) == (other.spans, other.open_ended)
        assert (one.provenance, one.images[0].sha256) == (other.provenance, other.images[0].sha256)


def test_a_row_is_the_same_from_a_relative_folder(build, monkeypatch):
    """As a build named by a relative path reads its journal and writes the shard."""
    monkeypatch.chdir(build.parent)
    run = Path(build.name)
    for pair in read_pairs(build):
        row = row_of(pair, run)
        assert row == row_of(pair, build)
        assert row_of(pair_of(row, run), run) == row


def test_an_image_of_many_pairs_is_stored_once(tmp_path, pairs):
    out = write_build(tmp_path, [pairs[0], make_pair(pairs[0].images[0].path, 9)])
    assert len(list((out / "images").iterdir())) == 1


def test_a_folder_without_pairs_is_refused(tmp_path):
    with pytest.raises(UserError, match="no pairs"):
        read_pairs(tmp_path)


def shards(build, tmp_path, monkeypatch):
    import datasets

    monkeypatch.chdir(build)  # where relative paths lead to the images
    return datasets.load_dataset("parquet", data_files="pairs/*.parquet", split="train", cache_dir=str(tmp_path))


def absolute(build, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return to_trl(build)


def exported(build, tmp_path, monkeypatch):
    import datasets

    monkeypatch.chdir(tmp_path)
    path = run(ExportConfig(build, tmp_path / "sub" / "pairs.parquet"))
    monkeypatch.setattr(Path, "read_bytes", None)  # nothing but the file itself may be needed from here on
    return datasets.load_dataset("parquet", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))


@pytest.mark.parametrize("source", [shards, absolute, exported])
def test_trl_collates_it_to_the_right_pixels_and_tokens(source, build, pairs, llava_folder, tmp_path, monkeypatch):
    from transformers import AutoProcessor
    from trl.trainer.dpo_trainer import DataCollatorForVisionPreference

    dataset = source(build, tmp_path, monkeypatch)
    processor = AutoProcessor.from_pretrained(llava_folder)
    batch = DataCollatorForVisionPreference(processor)([dataset[index] for index in range(len(dataset))])
    monkeypatch.undo()
    pictures = [Image.open(pair.images[0].path).convert("RGB") for pair in pairs]
    expected = processor.image_processor(pictures * 2, return_tensors="pt")["pixel_values"]
    assert torch.equal(batch["pixel_values"], expected)
    texts = processor.tokenizer.batch_decode(batch["input_ids"])
    for text, pair in zip(texts, pairs, strict=False):
        assert pair.chosen in text
        assert text.index("Be brief.") < text.index("<image>") < text.index("Describe this image.")
    for text, pair in zip(texts[len(pairs) :], pairs, strict=True):
        assert pair.rejected in text


def test_trl_trains_on_it(build, llava_folder, tmp_path):
    from transformers import AutoModelForImageTextToText, AutoProcessor
    from trl import DPOConfig, DPOTrainer

    trainer = DPOTrainer(
        model=AutoModelForImageTextToText.from_pretrained(llava_folder),
        args=DPOConfig(
            str(tmp_path),
            max_steps=2,
            per_device_train_batch_size=2,
            report_to=[],
            use_cpu=True,
            max_length=None,
            bf16=False,
        ),
        train_dataset=to_trl(build),
        processing_class=AutoProcessor.from_pretrained(llava_folder),
    )
    assert trainer.train().training_loss == pytest.approx(0.69, abs=0.1)


def test_other_kinds_of_file_are_refused(build, tmp_path):
    with pytest.raises(UserError, match="parquet"):
        run(ExportConfig(build, tmp_path / "pairs.txt"))


def test_a_build_loads_as_its_card_says(tmp_path):
    import json
    import re
    import subprocess
    import sys

    from PIL import Image

    from veridical.pairs.card import card
    from veridical.pairs.dataset import write_build
    from veridical.records import ImageFile, Message, Pair, Provenance

    Image.new("RGB", (20, 10), "red").save(tmp_path / "a.png")
    made = Provenance("bdhs", "guided", {}, 0, "m")
    image = ImageFile(tmp_path / "a.png", "0")
    out = write_build(
        tmp_path / "run", [Pair("r/bdhs", "r", (image,), (Message("user", "What?"),), "Right.", "Wrong.", made)]
    )
    identity = {"construction": "bdhs", "records": "photos", "model": "m", "model_fingerprint": "0" * 64, "seed": 0}
    manifest = {"identity": identity, "pairs_out": 1, "records_used": 1, "records_in": 1, "rejected": {}}
    text = card(manifest, {"chosen_from": {"reference": 1}})
    code = next(block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "load_dataset" in block)
    code += "\nimport json\nrow = dataset[0]\nprint(json.dumps([row['images'][0].size, row['chosen'], len(dataset)]))\n"
    found = subprocess.run([sys.executable, "-c", code], cwd=out, capture_output=True, text=True, check=True)
    chosen = [{"role": "assistant", "content": "Right."}]
    assert json.loads(found.stdout.splitlines()[-1]) == [[20, 10], chosen, 1]
