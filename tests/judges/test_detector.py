"""The detector: its scores against the families' own post-processing, what it says by them, and what it can't say."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from tests.judges.detectors import CLOSED, LABELS, ZERO_SHOT
from transformers import AutoImageProcessor, AutoModelForObjectDetection, AutoModelForZeroShotObjectDetection
from transformers import AutoProcessor as Processor

from veridical.errors import UserError
from veridical.judges.detection_models import load_detection_model
from veridical.judges.detector import Detector, DetectorSettings, Thresholds, label_names
from veridical.judges.interface import AnsweredQuestion, Detect, JudgeError, MakeQuestions, Presence, Rewrite
from veridical.judges.lexicon import Lexicon
from veridical.judges.lexicon_sources import Words, coco80
from veridical.judges.registry import JudgeContext, settings_type
from veridical.records import ImageFile, Message, Record
from veridical.store import Store

WORDS = Lexicon({"red": "red", "scarlet": "red", "green": "green", "blue": "blue", "cat": "cat"})
SIZES = ((60, 80), (80, 60), (60, 80), (64, 64))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    out = tmp_path_factory.mktemp("detectors")
    return {name: make(out / name) for name, make in {**CLOSED, **ZERO_SHOT}.items()}


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    out, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    made = []
    for place, size in enumerate(SIZES):
        path = out / f"{place}.png"
        Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)).save(path)
        image = ImageFile(path, hashlib.sha256(path.read_bytes()).hexdigest())
        made.append(Record(f"r{place}", (image,), (Message("user", "?"),)))
    return made


class Fixed:
    """A detection model with the scores that it is given, by the first two letters of the image's name."""

    name, fingerprint, labels = "fixed", "f", ("Red", "sky_blue", "GREEN")

    def __init__(self, *scores):
        self.given, self.asked = scores, 0

    def scores(self, images, names):
        self.asked += len(images)
        return [dict(zip(names, self.given[image.width % 10], strict=True)) for image in images]


def fixed(*scores, **settings):
    model = Fixed(*scores)
    return Detector(model, WORDS, label_names(model.labels, WORDS, {"sky_blue": "blue"}), **settings)


def record(folder, *widths):
    images = []
    for width in widths:
        path = folder / f"{width}.png"
        Image.new("RGB", (width, 30)).save(path)
        images.append(ImageFile(path, hashlib.sha256(path.read_bytes()).hexdigest()))
    return Record("r", tuple(images), (Message("user", "?"),))


@pytest.mark.parametrize("family", CLOSED)
def test_scores_are_those_of_the_familys_own_post_processing(folders, records, family):
    """Image by image, by the processor that the family brings. DETR's keeps each box's best label only."""
    images = [Image.open(record.images[0].path).convert("RGB") for record in records]
    ours = load_detection_model(str(folders[family]), "cpu").scores(images, tuple(LABELS.values()))
    processor = AutoImageProcessor.from_pretrained(folders[family])
    model = AutoModelForObjectDetection.from_pretrained(folders[family]).eval()
    for image, scores in zip(images, ours, strict=True):
        with torch.no_grad():
            outputs = model(**processor(images=image, return_tensors="pt"))
        [boxes] = processor.post_process_object_detection(outputs, threshold=0.0)
        best = {}
        for label, score in zip(boxes["labels"].tolist(), boxes["scores"].tolist(), strict=True):
            best[LABELS[label]] = max(best.get(LABELS[label], 0.0), score)
        assert best
        assert {name: scores[name] for name in best} == pytest.approx(best, abs=1e-5)
        assert all(scores[name] <= max(best.values()) + 1e-5 for name in scores.keys() - best.keys())


def test_owl_scores_are_those_of_one_name_at_a_time(folders, records):
    images = [Image.open(record.images[0].path).convert("RGB") for record in records]
    names = ("red", "traffic light", "cat")
    ours = load_detection_model(str(folders["owlv2"]), "cpu").scores(images, names)
    processor = Processor.from_pretrained(folders["owlv2"])
    model = AutoModelForZeroShotObjectDetection.from_pretrained(folders["owlv2"]).eval()
    for image, scores in zip(images, ours, strict=True):
        for name in names:
            inputs = processor(text=[[f"a photo of a {name}"]], images=image, return_tensors="pt")
            with torch.no_grad():
                outputs = model(**inputs)
            [boxes] = processor.post_process_grounded_object_detection(outputs, threshold=0.0)
            assert scores[name] == pytest.approx(boxes["scores"].max().item(), abs=1e-4)


def test_grounding_scores_are_means_over_the_tokens_of_a_name(folders, records):
    images = [Image.open(record.images[0].path).convert("RGB") for record in records]
    ours = load_detection_model(str(folders["grounding-dino"]), "cpu").scores(images, ("red", "traffic light", "cat"))
    processor = Processor.from_pretrained(folders["grounding-dino"])
    model = AutoModelForZeroShotObjectDetection.from_pretrained(folders["grounding-dino"]).eval()
    for image, scores in zip(images, ours, strict=True):
        inputs = processor(text=[["red", "traffic light", "cat"]], images=image, return_tensors="pt")
        with torch.no_grad():
            by_token = model(**inputs).logits.sigmoid()[0]
        tokens = processor.tokenizer.convert_ids_to_tokens(inputs.input_ids[0])
        assert tokens == ["[CLS]", "red", ".", "traffic", "light", ".", "cat", ".", "[SEP]"]
        expected = {
            "red": by_token[:, 1].max().item(),
            "traffic light": by_token[:, 3:5].mean(-1).max().item(),
            "cat": by_token[:, 6].max().item(),
        }
        assert scores == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("family", [*CLOSED, *ZERO_SHOT])
def test_answers_do_not_depend_on_the_batch(folders, records, family, tmp_path):
    settings = DetectorSettings(model=str(folders[family]), device="cpu", cache=tmp_path / "a", names_at_once=2)
    judge = settings.open(JudgeContext(Words(WORDS, {})))
    images = [one.images[0] for one in records]
    [query, *_] = judge._queries(("red",))
    together = judge._scores([(image, query) for image in images])
    alone = replace(judge, store=Store(tmp_path / "b.sqlite"), batch_size=1)._scores(
        [(image, query) for image in images]
    )
    for key, scores in together.items():
        assert scores == pytest.approx(alone[key], abs=1e-5)


def test_thresholds_leave_room_for_not_knowing(tmp_path):
    judge = fixed((0.5, 0.1, 0.0999), (0.49, 0.9, 0.2))
    [seen] = judge.presence([Presence(record(tmp_path, 30))])
    assert seen == {"red": "present", "blue": "unknown", "green": "absent"}
    # Of two images it is enough that one shows an object; a cat is no label of this detector.
    [seen] = judge.presence([Presence(record(tmp_path, 30, 31), ("red", "blue", "green", "cat", "unicorn"))])
    assert seen == {"red": "present", "blue": "present", "green": "unknown", "cat": "unknown", "unicorn": "unknown"}


def test_what_a_text_invents_and_leaves_out(tmp_path):
    judge = fixed((0.9, 0.3, 0.01), (0.9, 0.8, 0.01))
    text = "A green thing. A cat, a scarlet one and something blue."
    first, second = judge.detect(
        [Detect(record(tmp_path, 30), text), Detect(record(tmp_path, 31), "Green, green, and a cat.")]
    )
    assert [(m.name, m.start, m.end) for m in first.invented] == [("green", 2, 7)]
    assert (first.missing, first.invented_names, first.wrong) == ((), ("green",), True)
    assert [fault.start for fault in second.faults] == [0, 7]
    assert second.missing == ("red", "blue")
    assert judge.rewrite([Rewrite(text, leave_out=first.invented_names)]) == [
        "A cat, a scarlet one and something blue."
    ]


def test_two_detectors_must_agree(tmp_path):
    # Red: present and present; blue: present and unknown; green: absent and absent.
    judge = replace(fixed((0.9, 0.8, 0.01)), second=fixed((0.7, 0.3, 0.02)))
    [seen] = judge.presence([Presence(record(tmp_path, 30))])
    assert seen == {"red": "present", "blue": "unknown", "green": "absent"}
    [found] = judge.detect([Detect(record(tmp_path, 30), "Red, blue and green, and a cat.")])
    assert [mention.name for mention in found.unsure] == ["blue", "cat"]
    assert (found.invented_names, judge.name) == (("green",), "fixed+fixed")
    [failed] = judge.presence([Presence(Record("n", (), ()))])
    assert isinstance(failed, JudgeError)


def test_questions_are_asked_where_the_detector_agrees(tmp_path):
    judge = fixed((0.9, 0.3, 0.01))
    [items] = judge.make_questions(
        [MakeQuestions(record(tmp_path, 30), "Something red and a cat.", "Something green and blue.")]
    )
    assert items == (
        AnsweredQuestion("Is there a green in the image?", "No.", "Yes."),
        AnsweredQuestion("Is there a red in the image?", "Yes.", "No."),
    )


def test_scores_are_computed_once_and_stored(tmp_path):
    asked = [Presence(record(tmp_path, 30, 31)), Presence(record(tmp_path, 30))]
    first = fixed((0.9, 0.3, 0.01), (0.1, 0.1, 0.1), store=Store(tmp_path / "d.sqlite"))
    answers = first.presence(asked)
    second = fixed((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), store=Store(tmp_path / "d.sqlite"))
    assert second.presence(asked) == answers
    assert (first.model.asked, second.model.asked) == (2, 0)
    # Thresholds are no part of what is stored.
    assert replace(second, thresholds=Thresholds(0.95, 0.95)).presence(asked)[1]["red"] == "absent"


def test_a_damaged_image_fails_alone(tmp_path):
    good, bad = record(tmp_path, 30), record(tmp_path, 40)
    bad.images[0].path.write_bytes(b"no image")
    judge = fixed((0.9, 0.3, 0.01))
    failed, seen, none = judge.presence([Presence(bad), Presence(good), Presence(Record("n", (), good.prompt))])
    assert isinstance(failed, JudgeError)
    assert failed.reason == "image-changed"
    assert seen["red"] == "present"
    assert isinstance(none, JudgeError)
    assert none.reason == "no-image"
    assert judge.lacks(Detect, good) is None


def test_labels_are_mapped_to_the_lexicons_names():
    names = label_names(("Man", "traffic_light", "tvmonitor", "zebra crossing"), coco80().lexicon, {"tvmonitor": "tv"})
    assert names == {
        "Man": "person", "traffic_light": "traffic light", "tvmonitor": "tv", "zebra crossing": "zebra crossing",
    }  # fmt: skip


def test_a_zero_shot_model_is_asked_in_fixed_groups(folders, tmp_path, records):
    judge = DetectorSettings(model=str(folders["owlv2"]), cache=tmp_path, names_at_once=2, device="cpu").open(
        JudgeContext(Words(WORDS, {}))
    )
    assert judge._queries(("blue", "photo")) == [("blue", "cat"), ("photo",)]
    [seen] = judge.presence([Presence(records[0], ("blue", "photo"))])
    assert seen.keys() == {"blue", "photo"}
    assert len(judge.store.keys()) == 2
    [everything] = judge.presence([Presence(records[0])])
    assert everything.keys() == {"red", "green", "blue", "cat"}
    assert everything["blue"] == seen["blue"]


def test_what_a_detector_needs(folders, tmp_path, llava_folder):
    assert settings_type("detector") is DetectorSettings
    with pytest.raises(UserError, match=r"--judge\.model"):
        DetectorSettings().open(JudgeContext())
    with pytest.raises(UserError, match=r"absent 0\.6 and present 0\.5"):
        DetectorSettings(model="x", absent=0.6).open(JudgeContext())
    with pytest.raises(UserError, match="object detection model"):
        DetectorSettings(model=str(llava_folder)).open(JudgeContext())
    with pytest.raises(UserError, match="--lexicon coco80"):
        DetectorSettings(model=str(folders["owlv2"]), device="cpu").open(JudgeContext())
    (tmp_path / "labels.json").write_text(json.dumps(["red"]))
    with pytest.raises(UserError, match="not of the form"):
        DetectorSettings(model=str(folders["yolos"]), labels=tmp_path / "labels.json").open(JudgeContext())
    both = DetectorSettings(model=str(folders["yolos"]), second=str(folders["detr"]), device="cpu", cache=tmp_path)
    assert both.open(JudgeContext()).second.name == str(folders["detr"])
    own = DetectorSettings(model=str(folders["yolos"]), device="cpu", cache=tmp_path).open(JudgeContext())
    assert own.lexicon.names("Red, green and reds") == ("red", "green")


def test_missing_weights_are_not_made_up(folders, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "part"
    folder.mkdir()
    for file in folders["yolos"].iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    weights = load_file(folder / "model.safetensors")
    weights.popitem()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match="lack 1 weights"):
        load_detection_model(str(folder), "cpu")
