"""Published benchmarks on a model: `veridical score` reads the answers that were written, and counts the same."""

import json
from collections import Counter
from pathlib import Path

import pytest

from veridical.cli import main
from veridical.errors import UserError
from veridical.formats.rows import UnusableError
from veridical.protocols.asked import read_tasks
from veridical.protocols.benchmark_task import block_type, smaller
from veridical.protocols.config import config_type
from veridical.protocols.image_folder import ImageFolder
from veridical.protocols.sources import read_splits
from veridical.protocols.types import Question

TRUE = (("Is there a cup in the image?", "Yes"), ("Is there an umbrella in the image?", "No"))
QUESTIONS = ("Is there a cup in the image?", "Is there an umbrella in the image?")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """A folder of six pictures, named as COCO names its own."""
    folder = tmp_path_factory.mktemp("images")
    for number, record in enumerate(read_splits("world:dev", tmp_path_factory.mktemp("world"), 6, 0)["dev"]):
        (folder / f"COCO_val2014_{number:012d}.png").write_bytes(record.images[0].path.read_bytes())
    return folder


def pope_files(folder: Path, pictures: Path) -> list[str]:
    files = []
    for setting in ("random", "popular"):
        rows = [
            {"question_id": 2 * n + place + 1, "image": image.name, "text": text, "label": "yes" if place else "no"}
            for n, image in enumerate(sorted(pictures.iterdir()))
            for place, text in enumerate(QUESTIONS)
        ]
        path = folder / f"coco_pope_{setting}.json"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        files.append(str(path))
    return files


def run(*words: str) -> None:
    with pytest.raises(SystemExit) as end:
        main(list(words))
    assert end.value.code == 0


def scored(capsys, *words: str) -> dict:
    capsys.readouterr()
    run("score", *words, "--json")
    return json.loads(capsys.readouterr().out)


def agree(results: dict, prefix: str, one: dict) -> None:
    """Every metric with its interval as `score` has it, and no other."""
    found = {name: value for name, value in results["models"]["base"].items() if name.startswith(prefix)}
    assert {name.removeprefix(prefix): value["value"] for name, value in found.items()} == one["metrics"]
    for name, value in found.items():
        assert [value["low"], value["high"]] == one["intervals"][name.removeprefix(prefix)]


def test_pope_chair_mme_and_gqa_by_their_own_files(llava_folder, pictures, tmp_path, capsys):
    pope = pope_files(tmp_path, pictures)
    names = sorted(image.name for image in pictures.iterdir())
    objects, templates, gqa = tmp_path / "objects.json", tmp_path / "mme", tmp_path / "gqa.json"
    objects.write_text(json.dumps({str(n): ["cup", "fork"] for n in range(6)}))
    templates.mkdir()
    lines = [f"{name}\t{q} Please answer yes or no.\t{t}\n" for name in names for q, t in TRUE]
    (templates / "existence.txt").write_text("".join(lines))
    row = {
        "question": "What is this?",
        "answer": "cup",
        "isBalanced": True,
        "imageId": "COCO_val2014_000000000003",
        "groups": {},
        "semantic": [],
    }
    types = {"structural": "query", "semantic": "obj", "detailed": "what"}
    gqa.write_text(json.dumps({"q1": {**row, "types": types}}))
    out, images = tmp_path / "run", str(pictures)
    run(
        "eval", "--out", str(out), "--models", str(llava_folder), "--protocols", "pope", "chair", "mme", "gqa",
        "--pope.questions", *pope, "--pope.images", images, "--pope.suffix", " Answer with a word.",
        "--chair.objects", str(objects), "--chair.images", images, "--chair.max-new-tokens", "12",
        "--mme.questions", str(templates), "--mme.images", images, "--gqa.questions", str(gqa), "--gqa.images", images,
    )  # fmt: skip
    results = json.loads((out / "results.json").read_text())
    assert results["protocols"]["official-pope"] == "pope[official]/1 + 'Answer with a word.'"
    assert results["protocols"]["official-chair"].endswith(", 12 tokens")
    answers = out / "answers" / "base"
    files = [str(answers / "pope" / Path(path).with_suffix(".jsonl").name) for path in pope]
    agree(results, "official_pope_", scored(capsys, "pope", "--questions", *pope, "--answers", *files))
    captions = str(answers / "chair" / "captions.jsonl")
    agree(results, "official_chair_", scored(capsys, "chair", "--objects", str(objects), "--captions", captions))
    agree(results, "official_mme_", scored(capsys, "mme", "--answers", str(answers / "mme")))
    predicted = str(answers / "gqa" / "gqa.json")
    agree(results, "official_gqa_", scored(capsys, "gqa", "--questions", str(gqa), "--answers", predicted))


def test_a_limit_holds_for_published_files_and_stands_in_the_name(pictures, tmp_path):
    """Two settings of two questions about each of six pictures: 5 of each setting are two whole pictures."""
    kind = config_type({"protocols": "pope"})
    block = block_type("pope")(questions=tuple(map(Path, pope_files(tmp_path, pictures))), images=pictures)
    (task,) = read_tasks(kind(out=tmp_path, protocols=("pope",), pope=block, limit=5)).tasks.values()
    assert task.name == "pope[official]/1, 8 of 24 questions"
    images = [request.images[0].path.name for request in task.requests.values()]
    assert images == [f"COCO_val2014_{number:012d}.png" for number in (0, 0, 1, 1)] * 2
    assert task.settings["limit"] == 5
    (whole,) = read_tasks(kind(out=tmp_path, protocols=("pope",), pope=block, limit=12)).tasks.values()
    assert (whole.name, len(whole.requests)) == ("pope[official]/1", 24)


def test_kinds_keep_their_proportions():
    """HallusionBench has 591 questions of one kind and 360 of the other; AMBER few descriptions for many questions."""
    sizes = {"VD": 591, "VS": 360, "rare": 2}
    asked = [
        Question(f"{kind}{n}", "", "?", kind=kind, group=f"{kind}{n}") for kind in sizes for n in range(sizes[kind])
    ]
    kinds = Counter(question.kind for question in smaller(asked, 100))
    assert kinds == {"VD": 100, "VS": 61, "rare": 1}
    lone = [Question(str(n), "", "?", group="one image") for n in range(6)]
    assert smaller(lone, 4) == lone[:4]


def test_what_a_judge_scores_is_answered_and_written(llava_folder, pictures, tmp_path, capsys):
    questions = tmp_path / "mm-vet.json"
    entry = {"imagename": "COCO_val2014_000000000001.png", "question": "What?", "answer": "cup", "capability": ["rec"]}
    questions.write_text(json.dumps({"v1_0": entry}))
    run(
        "eval", "--out", str(tmp_path / "run"), "--models", str(llava_folder), "--protocols", "mm-vet",
        "--mm-vet.questions", str(questions), "--mm-vet.images", str(pictures), "--mm-vet.max-new-tokens", "6",
    )  # fmt: skip
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["protocols"]["official-mm-vet"] == "mm-vet/1, not judged, 6 tokens"
    assert any("veridical score mm-vet" in note for note in results["notes"])
    answers = tmp_path / "run" / "answers" / "base" / "mm-vet" / "mm-vet.json"
    prompts = tmp_path / "prompts.jsonl"
    run("score", "mm-vet", "--questions", str(questions), "--answers", str(answers), "--make-prompts", str(prompts))
    assert json.loads(answers.read_text())["v1_0"] in json.loads(prompts.read_text())["prompt"]


def test_missing_images_are_named_and_counted_before_a_model_is_loaded(llava_folder, pictures, tmp_path, capsys):
    files = pope_files(tmp_path, pictures)
    some = tmp_path / "some"
    some.mkdir()
    for image in sorted(pictures.iterdir())[2:]:
        (some / image.name).write_bytes(image.read_bytes())
    (some / "COCO_val2014_000000000005.png").write_bytes(b"no picture")
    words = ["eval", "--out", str(tmp_path / "run"), "--models", "no/such-model", "--protocols", "pope",
             "--pope.questions", *files, "--pope.images", str(some)]  # fmt: skip
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert "3 of 6 images" in said
    assert "12 of 24 questions" in said
    assert "COCO_val2014_000000000000.png (missing)" in said
    words[4] = str(llava_folder)
    run(*words, "--pope.skip-missing")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["counts"]["base"]["official-pope"]["unanswered"] == 12


def test_what_a_protocol_lacks_is_said_with_its_name(pictures, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    broken = tmp_path / "mmhal.json"
    broken.write_text('[{"question": "What?"}]')
    given = [
        (["mmhal", "--mmhal.images", str(pictures)], "mmhal: --questions: give the answer template"),
        (["mmhal", "--mmhal.questions", str(broken), "--mmhal.images", str(pictures)], "entry 1: lacks gt_answer"),
        (["shr", "--shr.images", str(pictures)], "shr: --regions: give what is in the images"),
        (["pope", "--pope.questions", *pope_files(tmp_path, pictures), "--pope.images", str(tmp_path / "empty")],
         "6 of 6 images can't be used"),
    ]  # fmt: skip
    for words, said in given:
        with pytest.raises(SystemExit) as end:
            main(["eval", "--out", str(tmp_path / "run"), "--models", "no/such-model", "--protocols", *words])
        assert end.value.code == 2
        assert said in capsys.readouterr().err


def test_an_unknown_protocol_and_one_named_twice(capsys):
    for names, said in ((("world-pop",), "did you mean 'world-pope'?"), (("pope", "pope"), "named twice")):
        with pytest.raises(SystemExit):
            main(["eval", "--out", "x", "--protocols", *names])
        assert said in capsys.readouterr().err


def test_images_are_found_by_name_stem_and_number(pictures, tmp_path):
    folder = ImageFolder(pictures)
    wanted = (pictures / "COCO_val2014_000000000004.png").resolve()
    for name in (wanted.name, wanted.stem, f"{wanted.stem}.jpg", "4", "000000000004"):
        assert folder.find(name).resolve() == wanted
    for name in ("44", "4.jpg", "nothing.png", "../secret.png"):
        with pytest.raises(UnusableError):
            folder.find(name)
    with pytest.raises(UserError, match="no such folder"):
        ImageFolder(tmp_path / "nowhere")
