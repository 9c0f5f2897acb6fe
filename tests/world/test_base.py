import random
import re
from collections import Counter

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from veridical.world.base.architecture import PATCHES, build_model, build_processor
from veridical.world.base.batches import IGNORED, Continuation, PrefixRow, loss, pack, patch_labels, patch_numbers
from veridical.world.base.corpus import ask_exists, branches_of, picture_prefix, words_prefix
from veridical.world.base.skills import practice, practice_scenes
from veridical.world.base.stages import optimise
from veridical.world.base.train import BaseConfig, main
from veridical.world.captions import DESCRIBE, NUMBERS, caption
from veridical.world.drawing import draw
from veridical.world.scenes import CANVAS, Scene, make_scene
from veridical.world.vocabulary import CLASSES, COLOURS, THEMES, plural


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

    taught = BaseConfig(
        tmp_path / "taught", start=tmp_path, places_pictures=70, places_steps=2, skills_pictures=30, projector_steps=2,
        bias_pictures=30, skills_steps=3, settle_steps=6,
    )  # fmt: skip
    main(taught)
    more = AutoModelForImageTextToText.from_pretrained(taught.out, dtype=torch.float32)
    changed = {key for key, one in more.state_dict().items() if not torch.equal(one, model.state_dict()[key])}
    assert {key.split(".")[1] for key in changed} >= {"vision_tower", "multi_modal_projector", "language_model"}
    assert sorted(path.stem for path in (taught.out / "stages").iterdir()) == ["places", "settle", "skills"]


HOW_MANY, WHERE, PLACE = r"How many (.+) are there\?", r"Where is the (.+)\?", r"What place is this\?"
ONLY_ONE, NUMBER = r"Is there only one (.+) in the image\?", r"Are there (two|three) (.+) in the image\?"
SIDE, COLOUR, SCENE = r"Is the (.+) on the (left|right)\?", r"Is the (.+) (\w+)\?", r"Is this (.+)\?"
RIGHT_ANSWER = {
    HOW_MANY: lambda scene, name: f"{NUMBERS[scene.counts[SINGULAR[name]]].capitalize()}.",
    WHERE: lambda scene, name: f"On the {side_of(scene, name)}.",
    PLACE: lambda scene: f"{scene.theme.place[0].upper()}{scene.theme.place[1:]}.",
    ONLY_ONE: lambda scene, name: yes_if(scene.counts[name] == 1),
    NUMBER: lambda scene, number, name: yes_if(scene.counts[SINGULAR[name]] == NUMBERS.index(number)),
    SIDE: lambda scene, name, side: yes_if(side_of(scene, name) == side),
    COLOUR: lambda scene, name, colour: yes_if(colour in COLOURS[name]),
    SCENE: lambda scene, place: yes_if(scene.theme.place == place),
}
SINGULAR = {plural(name): name for name in CLASSES}


def yes_if(true: bool) -> str:
    return "Yes." if true else "No."


def side_of(scene: Scene, name: str) -> str:
    [x] = [placed.x for placed in scene.objects if placed.name == name]
    return "left" if x < CANVAS / 2 else "right"


def test_what_is_practised_is_true_and_asked_both_ways():
    said = Counter()
    for number, scene in enumerate(practice_scenes(200, 0)):
        for branch in practice(scene, random.Random(number), 12):
            wording = next(wording for wording in RIGHT_ANSWER if re.fullmatch(wording, branch.question))
            asked = re.fullmatch(wording, branch.question).groups()
            assert branch.answer == RIGHT_ANSWER[wording](scene, *asked), (branch, scene)
            said[wording, branch.answer] += 1
    for wording in (ONLY_ONE, NUMBER, SIDE, COLOUR, SCENE):
        assert 0.35 < said[wording, "Yes."] / (said[wording, "Yes."] + said[wording, "No."]) < 0.65
    assert said[HOW_MANY, "Two."] + said[HOW_MANY, "Three."] > said[HOW_MANY, "One."] / 4


def test_patch_numbers_count_what_patches_show():
    for number in range(50):
        scene = make_scene("balanced", f"numbers-{number}")
        labels, numbers = patch_labels(scene), patch_numbers(scene)
        assert ((labels == 0) == (numbers == 0)).all()
        shown = {CLASSES[label - 1]: count for label, count in zip(labels, numbers, strict=True) if label}
        assert shown == scene.counts
