import random

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from veridical.world.base.architecture import PATCHES, build_model, build_processor
from veridical.world.base.batches import IGNORED, Continuation, PrefixRow, loss, pack, patch_labels
from veridical.world.base.corpus import ask_exists, branches_of, picture_prefix, words_prefix
from veridical.world.base.stages import optimise
from veridical.world.base.train import BaseConfig, main
from veridical.world.captions import DESCRIBE, caption
from veridical.world.drawing import draw
from veridical.world.scenes import make_scene
from veridical.world.vocabulary import CLASSES, THEMES, plural


def test_every_word_that_matters_is_one_token():
    tokenizer = build_processor().tokenizer
    for word in [*CLASSES, *map(plural, CLASSES), *(theme.name for theme in THEMES)]:
        assert len(tokenizer.encode(f" {word}")) == 1, word


def test_packed_branches_cost_what_separate_dialogues_cost():
    torch.manual_seed(0)
    processor = build_processor()
    model = build_model(processor).eval()
    tokenizer = processor.tokenizer
    scenes = [make_scene("balanced", f"packed-{i}") for i in range(3)]
    rows = [
        PrefixRow(picture_prefix(tokenizer.get_vocab()), branches_of(scene, random.Random(i), 2 + i))
        for i, scene in enumerate(scenes)
    ]
    batch = pack(rows, tokenizer, torch.ones(len(tokenizer)))
    pictures = [draw(scene) for scene in scenes]
    pixels = processor.image_processor(pictures, return_tensors="pt").pixel_values
    features = torch.stack(list(model.get_image_features(pixels, return_dict=True).pooler_output))

    total, count = 0.0, 0
    for picture, row in zip(pictures, rows, strict=True):
        for branch in row.branches:
            inputs = processor(
                text=f"<s><|user|><image>{branch.question}<|assistant|>{branch.answer}<|end|>",
                images=picture,
                return_tensors="pt",
            )
            answer = len(tokenizer.encode(branch.answer)) + 1
            logits = model(**inputs).logits[0, -answer - 1 : -1]
            total += torch.nn.functional.cross_entropy(logits, inputs["input_ids"][0, -answer:], reduction="sum").item()
            count += answer
    assert (batch.labels != IGNORED).sum() == count
    assert abs(loss(model, batch, features).item() - total / count) < 2e-2  # bfloat16 against float32


def test_steps_change_what_the_next_step_sees():
    torch.manual_seed(0)
    processor = build_processor()
    model = build_model(processor)
    row = PrefixRow((1, 4), (Continuation(DESCRIBE[0], caption(make_scene("text", "one"), random.Random(0))),))
    batch = pack([row], processor.tokenizer, torch.ones(len(processor.tokenizer)))
    before = loss(model, batch).item()
    optimise(model.parameters(), (loss(model, batch) for _ in range(20)), 20, 3e-3, lambda line: None)
    assert loss(model, batch).item() < before / 2


def test_patch_labels_show_every_object():
    for i in range(50):
        scene = make_scene("pictures", f"patches-{i}")
        shown = {CLASSES[k - 1] for k in patch_labels(scene) if k}
        assert shown == set(scene.counts)
        ids = build_ids(scene)
        assert len(words_prefix(scene, ids, random.Random(i), 0.3)) == PATCHES + 2


def build_ids(scene) -> dict[str, int]:
    return {f"\u0120{word}": k for k, word in enumerate([*CLASSES, *(t.name for t in THEMES)])} | {
        "<s>": 100,
        "<|user|>": 101,
    }


def test_yes_and_no_are_asked_equally_often_and_truly():
    for i in range(50):
        scene = make_scene("balanced", f"ask-{i}")
        branches = ask_exists(scene, random.Random(i), 6)
        assert sum(branch.answer == "Yes." for branch in branches) == 3
        for branch in branches:
            named = next(name for name in CLASSES if f" {name}" in branch.question)
            assert (named in scene.counts) == (branch.answer == "Yes.")


def test_a_run_of_a_few_steps_gives_a_model_that_loads_like_any_other(tmp_path):
    config = BaseConfig(
        tmp_path, tower_pictures=70, tower_steps=2, words_steps=2, ground_pictures=40, projector_steps=2,
        ground_steps=2, bias_pictures=30, bias_steps=2,
    )  # fmt: skip
    main(config)
    model = AutoModelForImageTextToText.from_pretrained(tmp_path, dtype=torch.float32)
    processor = AutoProcessor.from_pretrained(tmp_path)
    message = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": DESCRIBE[0]}]}]
    text = processor.apply_chat_template(message, add_generation_prompt=True)
    inputs = processor(text=text, images=draw(make_scene("balanced", "load")), return_tensors="pt")
    assert model.generate(**inputs, max_new_tokens=3).shape[0] == 1
    weights = (tmp_path / "model.safetensors").stat().st_size
    assert weights < 15e6
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "stages").iterdir()}
    main(config)
    assert stamps == {path: path.stat().st_mtime_ns for path in (tmp_path / "stages").iterdir()}
