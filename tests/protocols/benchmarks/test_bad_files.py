"""Whatever is wrong with a file of any benchmark, it is counted or refused in one line: never a traceback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from protocols.test_official_answers import FILES as FILES_OF_SOME
from protocols.test_official_answers import JUDGED, objects, picture
from veridical.cli import main
from veridical.errors import UserError
from veridical.protocols.benchmarks.registry import BENCHMARKS, files_of_others

ALL_JUDGED = {*JUDGED, "mm-vet"}


def pope(write) -> list[str]:
    rows = [{"question_id": n, "image": f"{picture(n)}.png", "text": "Is there a cup in the image?", "label": "yes"}
            for n in range(1, 4)]  # fmt: skip
    return ["--questions", write("coco_pope_random.jsonl", rows)]


def gqa(write) -> list[str]:
    row = {"question": "?", "answer": "yes", "imageId": "1", "isBalanced": True, "groups": {"global": "x"},
           "types": {"structural": "verify", "semantic": "obj", "detailed": "x"}, "entailed": []}  # fmt: skip
    choices = {str(n): {"valid": ["yes"], "plausible": ["no"]} for n in range(3)}
    return ["--questions", write("gqa.json", {str(n): row for n in range(3)}),
            "--choices", write("choices.json", choices), "--consistency"]  # fmt: skip


def mm_vet(write) -> list[str]:
    row = {"imagename": "x.png", "question": "?", "answer": "a", "capability": ["rec"]}
    return ["--questions", write("mm-vet.json", {f"v1_{n}": row for n in range(3)})]


FILES = {**FILES_OF_SOME, "pope": pope, "gqa": gqa, "mm-vet": mm_vet, "chair": objects}
ANSWERS = {
    "amber": ("id", "response"), "textvqa": ("question_id", "answer"), "object-halbench": ("image_id", "text"),
    "recall-coco": ("image_id", "text"), "shr": ("image_id", "text"), "llava-bench": ("question_id", "text"),
    "mmhal": ("question_id", "model_answer"), "chair": ("image_id", "caption"), "gqa": ("questionId", "prediction"),
    "mm-vet": ("question_id", "text"), "pope": ("question_id", "answer"), "hallusionbench": ("id", "text"),
}  # fmt: skip
IDS = {"mm-vet": ["v1_0", "v1_1", "v1_2"], "hallusionbench": ["VS/chart/0/0/0", "VS/chart/0/1/0", "VS/chart/0/2/0"]}


def answered(name: str, text: Any = "A cup and a fork.") -> list[dict[str, Any]]:
    key, field = ANSWERS[name]
    return [{key: one, field: text} for one in IDS.get(name, [1, 2, 3] if name != "gqa" else ["0", "1", "2"])]


def bad_answers(name: str) -> Iterator[tuple[str, Any]]:
    """What is wrong, and the file: rows, or bytes as they are."""
    key, field = ANSWERS[name]
    rows = answered(name)
    for text in ("yes", "", None, 5, ["a"], {"a": "b"}, True, "没有狗。"):
        yield f"answers that are {text!r}", answered(name, text)
    yield "missing", rows[:1]
    yield "surplus", [*rows, {key: "nobody", field: "x"}]
    yield "twice", [*rows, *rows[:1]]
    yield "other order", rows[::-1]
    yield "other field", [{key: row[key], "words": row[field]} for row in rows]
    yield "no id", [{field: row[field]} for row in rows]
    yield "ids that are lists", [{key: [1], field: row[field]} for row in rows]
    yield "no objects", [1, "x", None]
    yield "nothing", b""
    yield "empty list", b"[]"
    yield "cut off", json.dumps(rows).encode()[:-9]
    yield "not UTF-8", b"\xff\xfe{"
    yield "null", b"null"
    yield "a text", b'"yes"'


def bad_questions(content: Any) -> Iterator[tuple[str, Any]]:
    """The same for a file of questions or truth: `content` with every field of its rows left out or of another kind."""
    yield from (
        ("nothing", b""), ("cut off", json.dumps(content).encode()[:-7]), ("null", b"null"), ("empty list", b"[]"),
        ("empty object", b"{}"), ("numbers", b"[1, 2]"), ("objects of numbers", b'{"1": 2}'),
        ("objects of nothing", b'{"1": null}'),
    )  # fmt: skip
    inner = content["data"] if isinstance(content, dict) and "data" in content else content
    pairs = list(enumerate(inner)) if isinstance(inner, list) else list(inner.items())

    def rebuilt(rows: list[tuple[Any, Any]]) -> Any:
        made = [row for _, row in rows] if isinstance(inner, list) else dict(rows)
        return made if inner is content else {**content, "data": made}

    if not isinstance(pairs[0][1], dict):
        for other in (None, 5, [1], {"a": 1}):
            yield f"values that are {other!r}", rebuilt([(key, other) for key, _ in pairs])
        return
    for field in pairs[0][1]:
        yield f"no {field}", rebuilt([(k, {f: v for f, v in row.items() if f != field}) for k, row in pairs])
        for other in (None, 5, [1], {"a": 1}):
            yield f"{field} that is {other!r}", rebuilt([(k, {**row, field: other}) for k, row in pairs])


def save(path: Path, content: Any) -> str:
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif path.suffix == ".jsonl" and isinstance(content, list):
        path.write_text("".join(json.dumps(row) + "\n" for row in content))
    else:
        path.write_text(json.dumps(content))
    return str(path)


def ends_well(capsys, name: str, flags: list[str], answers: str, out: Path) -> dict[str, int]:
    """Score; it must end with numbers or with one line that says what is wrong. Returns the counts, where it counts."""
    given = "--captions" if name == "chair" else "--answers"
    more = ["--make-prompts", str(out)] if name in ALL_JUDGED else ["--json"]
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main(["score", name, *flags, given, answers, *more])
    shown = capsys.readouterr()
    assert end.value.code in (0, 2), shown.err
    if end.value.code == 2:
        assert shown.err.startswith("veridical: ")
        assert len(shown.err.splitlines()) == 1, shown.err
    return json.loads(shown.out)["counts"] if "--json" in more and end.value.code == 0 else {}


@pytest.mark.parametrize("name", [name for name in BENCHMARKS if name in FILES])
def test_bad_answers_are_counted_or_refused(name, tmp_path, write, capsys):
    flags = FILES[name](lambda *parts: str(write(*parts)))
    counts = {}
    for number, (what, content) in enumerate(bad_answers(name)):
        answers = save(tmp_path / f"answers-{number}.{'json' if number % 2 else 'jsonl'}", content)
        counts[what] = ends_well(capsys, name, flags, answers, tmp_path / "prompts.jsonl")
    if name not in ALL_JUDGED:
        assert counts["missing"]["unanswered"] >= (1 if name == "amber" else 2)
        assert counts["surplus"]["surplus"] == 1
        assert counts["twice"]["duplicates"] == 1
        assert counts["answers that are ''"]["unparsed"] == 3 or name == "pope"
        for odd in (["a"], {"a": "b"}, True, None):
            assert not counts[f"answers that are {odd!r}"], "nothing there can be scored"


@pytest.mark.parametrize("name", [name for name in BENCHMARKS if name in FILES])
def test_bad_questions_and_truth_are_refused_or_counted(name, tmp_path, write, capsys):
    flags = FILES[name](lambda *parts: str(write(*parts)))
    answers = save(tmp_path / "answers.json", answered(name))
    for place, path in [(n, Path(word)) for n, word in enumerate(flags) if word.endswith((".json", ".jsonl"))]:
        text = path.read_text()
        content = [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)
        for _, bad in bad_questions(content):
            changed = [*flags[:place], save(tmp_path / f"bad{path.suffix}", bad), *flags[place + 1 :]]
            ends_well(capsys, name, changed, answers, tmp_path / "prompts.jsonl")


def test_rows_of_a_shape_that_no_scorer_foresaw_are_refused_by_the_benchmark_s_name():
    said = r"textvqa: its files hold something of another shape \(KeyError"
    with pytest.raises(UserError, match=said), files_of_others("textvqa"):
        {}["answer"]
