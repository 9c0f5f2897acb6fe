"""Published benchmarks answered by the bundled model: `veridical score` reads the answer files to the same numbers.

What a judge scores goes on from those files.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from veridical.cli import main
from veridical.protocols.sources import read_splits

NAMES = ("amber", "hallusionbench", "textvqa", "object-halbench", "recall-coco", "shr", "llava-bench", "mmhal")
JUDGED = {
    "shr": lambda text: "Judgement:\n" + "\n".join(f"{n}. correct: yes" for n, _ in enumerate(text.split(". "), 1)),
    "llava-bench": lambda text: "8 6\nBecause.",
    "mmhal": lambda text: "Rating: 4",
}
SCORES = {"shr": ("hal_sents_ratio", 0), "llava-bench": ("all", 75), "mmhal": ("score", 4)}
CUP = "Is there a cup in the image?"


def picture(number: int) -> str:
    return f"COCO_val2014_{number:012d}"


def amber(write: Callable[[str, Any], str]) -> list[str]:
    annotations = [
        {"id": 1, "type": "generative", "truth": ["horse", "tree"], "hallu": ["cow"]},
        {"id": 2, "type": "generative", "truth": ["road"], "hallu": ["bicycle"]},
        *({"id": n, "type": "discriminative-hallucination", "truth": "no"} for n in (3, 4)),
    ]
    asked = ["Describe this image.", "Describe this image.", CUP, "Is there an umbrella in the image?"]
    queries = [{"id": n, "image": f"{picture(n)}.png", "query": text} for n, text in enumerate(asked, 1)]
    table = {"horse": ["pony"], "tree": [], "cow": [], "road": ["street"], "bicycle": [], "bus": []}
    return ["--annotations", write("annotations.json", annotations), "--relation", write("relation.json", table),
            "--safe-words", write("safe.txt", "orange\n"), "--questions", write("queries.json", queries),
            "--parser", "lenient"]  # fmt: skip


def hallusionbench(write: Callable[[str, Any], str]) -> list[str]:
    rows = [
        {"category": "VS", "subcategory": "chart", "visual_input": str(figure), "set_id": "0", "figure_id": str(figure),
         "question_id": str(number), "sample_note": "note", "question": text, "gt_answer": str(number),
         "gt_answer_details": "Yes.", "filename": f"{picture(figure)}.png" if figure else None}
        for figure in range(3)
        for number, text in enumerate((CUP, "Is there a tree in the image?"))
    ]  # fmt: skip
    return ["--questions", write("hallusion.json", rows)]


def textvqa(write: Callable[[str, Any], str]) -> list[str]:
    rows = [
        {"image_id": picture(n), "question_id": n, "question": CUP, "answers": ["yes"] * 3 + ["no"] * 7}
        for n in range(4)
    ]
    return ["--questions", write("textvqa.json", {"data": rows})]


def objects(write: Callable[[str, Any], str]) -> list[str]:
    return ["--objects", write("objects.json", {str(n): ["cup", "dining table", "fork"] for n in range(4)})]


def shr(write: Callable[[str, Any], str]) -> list[str]:
    return ["--regions", write("regions.json", {str(n): ["[0.1,0.1,0.5,0.5]: a cup"] for n in range(3)})]


def llava_bench(write: Callable[[str, Any], str]) -> list[str]:
    rows = [
        {"question_id": n, "image": f"{picture(n)}.png", "text": "What is this?", "category": kind}
        for n, kind in enumerate(("conv", "detail", "complex"))
    ]
    return ["--questions", write("llava.jsonl", rows),
            "--context", write("context.jsonl", [{"image": row["image"], "caption": "A cup."} for row in rows]),
            "--references", write("gpt4.jsonl", [{"question_id": n, "text": "A cup."} for n in range(3)])]  # fmt: skip


def mmhal(write: Callable[[str, Any], str]) -> list[str]:
    fixed = {"question_topic": "food", "image_content": ["Cup"], "gt_answer": "A cup.", "model_answer": ""}
    rows = [
        {"question_type": kind, "image_id": f"x{n}", "image_src": f"https://example.org/{picture(n)}.png", **fixed,
         "question": f"What is {kind}?"}
        for n, kind in enumerate(("attribute", "adversarial", "comparison"))
    ]  # fmt: skip
    return ["--questions", write("template.json", rows)]


FILES = {"amber": amber, "hallusionbench": hallusionbench, "textvqa": textvqa, "object-halbench": objects,
         "recall-coco": objects, "shr": shr, "llava-bench": llava_bench, "mmhal": mmhal}  # fmt: skip


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> tuple[Path, dict[str, list[str]]]:
    """One evaluation of the bundled model by all of them: its folder, and the files of each benchmark as flags."""
    folder, images = tmp_path_factory.mktemp("official"), tmp_path_factory.mktemp("images")
    for number, record in enumerate(read_splits("world:dev", tmp_path_factory.mktemp("world"), 5, 0)["dev"]):
        (images / f"{picture(number)}.png").write_bytes(record.images[0].path.read_bytes())

    def write(name: str, content: Any) -> str:
        lines = name.endswith(".jsonl")
        text = "".join(json.dumps(row) + "\n" for row in content) if lines else json.dumps(content)
        (folder / name).write_text(content if isinstance(content, str) else text)
        return str(folder / name)

    files = {name: make(write) for name, make in FILES.items()}
    flags = [word.replace("--", f"--{name}.", 1) for name in NAMES for word in files[name]]
    for name in NAMES:
        flags += [f"--{name}.images", str(images), f"--{name}.max-new-tokens", "24"]
    with pytest.raises(SystemExit) as end:
        main(["eval", "--out", str(folder / "run"), "--protocols", *NAMES, *flags])
    assert end.value.code == 0
    return folder / "run", files


def answer_file(run: Path, name: str) -> Path:
    (found,) = (run / "answers" / "base" / name).iterdir()
    return found


def score(capsys, *words: str) -> Any:
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main(["score", *words])
    shown = capsys.readouterr()
    assert end.value.code == 0, shown.err
    return json.loads(shown.out) if "--json" in words else shown.out


@pytest.mark.parametrize("name", [name for name in NAMES if name not in JUDGED])
def test_score_reads_the_written_answers_to_the_same_numbers(ran, name, capsys):
    run, files = ran
    results = json.loads((run / "results.json").read_text())
    found = score(capsys, name, *files[name], "--answers", str(answer_file(run, name)), "--json")
    prefix = f"official_{name.replace('-', '_')}_"
    ours = {key.removeprefix(prefix): v for key, v in results["models"]["base"].items() if key.startswith(prefix)}
    assert {key: value["value"] for key, value in ours.items()} == found["metrics"]
    assert {key: [value["low"], value["high"]] for key, value in ours.items()} == found["intervals"]
    assert results["counts"]["base"][f"official-{name}"] == found["counts"]
    assert any(found["metrics"].values())
    assert found["counts"]["unanswered"] == 0


@pytest.mark.parametrize("name", list(JUDGED))
def test_a_judge_goes_on_from_the_written_answers(ran, name, capsys, tmp_path):
    run, files = ran
    flags = [name, *files[name], "--answers", str(answer_file(run, name))]
    score(capsys, *flags, "--make-prompts", str(tmp_path / "prompts.jsonl"))
    prompts = [json.loads(line) for line in (tmp_path / "prompts.jsonl").read_text().splitlines()]
    items = run / "items" / "base" / f"official-{name}.jsonl"
    answered = {row["id"]: row["answer"] for row in map(json.loads, items.read_text().splitlines())}
    assert set(answered) == {row["id"] for row in prompts}
    rows = [{**row, "text": JUDGED[name](answered[row["id"]]), "judge": "by hand"} for row in prompts]
    judged = tmp_path / "judged.jsonl"
    judged.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = score(capsys, *flags, "--judgements", str(judged), "--json")
    metric, value = SCORES[name]
    assert found["metrics"][metric] == value
    assert [found["counts"][fault] for fault in ("unanswered", "unparsed", "unjudged")] == [0, 0, 0]
    assert {item["id"]: item["answer"] for item in found["items"]} == answered


@pytest.mark.parametrize(("name", "field"), [("mmhal", "model_answer"), ("hallusionbench", "model_prediction")])
def test_answers_are_filled_into_the_file_of_questions(ran, name, field):
    """All that the official scorer reads is kept, row by row."""
    run, files = ran
    template = json.loads(Path(files[name][1]).read_text())
    filled = json.loads(answer_file(run, name).read_text())
    assert all(row[field] for row in filled)
    assert [{**row, field: ""} for row in filled] == [{**row, field: ""} for row in template]
