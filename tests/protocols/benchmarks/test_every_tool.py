"""Every benchmark's answers in every form that other tools write: each answer reaches the question it belongs to."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from veridical.errors import UserError
from veridical.protocols.benchmarks.registry import benchmark
from veridical.protocols.types import Question

NUMBER = 6
NAMES = ("cup", "dog", "fork", "cat", "bus", "bed")
TEXTS = [f"Yes, answer {n}: a {name}, and more of it." for n, name in enumerate(NAMES)]
ASKED = [f"Is there a {name} in the image?" for name in NAMES]
IMAGES = [f"COCO_val2014_{n:012}.jpg" for n in range(1, NUMBER + 1)]


def mme(write, folder: Path) -> dict[str, Any]:
    lines = [f"{IMAGES[n // 2]}\t{text} Please answer yes or no.\tYes" for n, text in enumerate(ASKED)]
    (folder / "templates").mkdir()
    (folder / "templates" / "existence.txt").write_text("\n".join(lines) + "\n")
    return {"questions": folder / "templates"}


def mmhal(write, folder: Path) -> dict[str, Any]:
    rows = [
        {"question_type": "attribute", "question_topic": "x", "image_id": f"i{n}", "image_content": ["Cup"],
         "image_src": f"https://x.org/{IMAGES[n]}", "question": text, "gt_answer": "A cup.", "model_answer": ""}
        for n, text in enumerate(ASKED)
    ]  # fmt: skip
    return {"questions": write("template.json", rows)}


def textvqa(write, folder: Path) -> dict[str, Any]:
    rows = [
        {"image_id": IMAGES[n].removesuffix(".jpg"), "question_id": 34602 + n, "question": text, "answers": ["x"] * 10}
        for n, text in enumerate(ASKED)
    ]
    return {"questions": write("textvqa.json", {"data": rows})}


def gqa(write, folder: Path) -> dict[str, Any]:
    rows = {
        f"20{n:03}": {"question": text, "answer": "yes", "imageId": f"n{n}", "isBalanced": True}
        for n, text in enumerate(ASKED)
    }
    return {"questions": write("gqa.json", rows)}


def hallusionbench(write, folder: Path) -> dict[str, Any]:
    rows = [
        {"category": "VS", "subcategory": "chart", "visual_input": "1", "set_id": str(n // 2), "figure_id": "1",
         "question_id": str(n % 2), "sample_note": "x", "question": text, "gt_answer": "1", "gt_answer_details": "x",
         "filename": f"./VS/chart/{n // 2}_1.png"}
        for n, text in enumerate(ASKED)
    ]  # fmt: skip
    return {"questions": write("hallusion.json", rows)}


def amber(write, folder: Path) -> dict[str, Any]:
    kinds = ["generative"] * 3 + ["discriminative-hallucination"] * 3
    truths = [
        {"id": n, "type": kind, **({"truth": ["cup"], "hallu": []} if kind == "generative" else {"truth": "no"})}
        for n, kind in enumerate(kinds, start=1)
    ]
    queries = [
        {"id": n, "image": f"AMBER_{n}.jpg", "query": "Describe this image." if n <= 3 else ASKED[n - 1]}
        for n in range(1, NUMBER + 1)
    ]
    return {
        "annotations": write("a.json", truths), "questions": write("q.json", queries),
        "relation": write("r.json", {"cup": []}), "safe_words": write("w.txt", "\n"),
    }  # fmt: skip


def shr(write, folder: Path) -> dict[str, Any]:
    return {"regions": write("r.json", {str(n): ["[0.1, 0.1, 0.5, 0.5]: a cup"] for n in range(1, NUMBER + 1)})}


def llava_bench(write, folder: Path) -> dict[str, Any]:
    rows = [
        {"question_id": n, "image": IMAGES[n // 3], "text": text, "category": "conv"} for n, text in enumerate(ASKED)
    ]
    return {"questions": write("questions.jsonl", rows)}


def mm_vet(write, folder: Path) -> dict[str, Any]:
    rows = {
        f"v1_{n}": {"imagename": f"v1_{n}.png", "question": text, "answer": "x", "capability": ["rec"]}
        for n, text in enumerate(ASKED)
    }
    return {"questions": write("mm-vet.json", rows)}


def objects(write, folder: Path) -> dict[str, Any]:
    return {"objects": write("objects.json", {image: ["cup"] for image in IMAGES})}


CASES: Mapping[str, Callable[..., dict[str, Any]]] = {
    "mme": mme, "mmhal": mmhal, "textvqa": textvqa, "gqa": gqa, "hallusionbench": hallusionbench, "amber": amber,
    "shr": shr, "llava-bench": llava_bench, "mm-vet": mm_vet, "object-halbench": objects, "recall-coco": objects,
    "chair": objects,
}  # fmt: skip


def document(name: str, question: Question) -> dict[str, Any]:
    """What lmms-eval logs of a benchmark's document: its fields but for the image."""
    asked = {"question": question.prompt.split("\n")[0], "answer": "the true one"}
    if name == "gqa":
        return {"id": question.id, "imageId": question.image.removesuffix(".jpg"), **asked}
    if name == "mme":
        return {"question_id": question.id.rpartition("/")[0], "category": question.kind, **asked}
    if name == "textvqa":
        return {"image_id": question.image.removesuffix(".jpg"), "question_id": int(question.id), **asked}
    if name == "hallusionbench":
        keys = ("category", "subcategory", "set_id", "figure_id", "question_id")
        return {**dict(zip(keys, question.id.split("/"), strict=True)), **asked}
    return {"question_id": int(question.id) if question.id.isdecimal() else question.id, **asked}


def lmms_eval(name: str, questions: Sequence[Question], texts: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {"doc_id": n, "doc": document(name, question), "target": "the true one", "arguments": [], "resps": [[text]],
         "filtered_resps": [text], "doc_hash": "0"}
        for n, (question, text) in enumerate(zip(questions, texts, strict=True))
    ][::-1]  # fmt: skip


def vlmevalkit(name: str, questions: Sequence[Question], texts: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {"index": n, "image_path": f"images/{name}/{question.image}", "question": question.prompt.split("\n")[0],
         "answer": "the true one", "category": "x", "prediction": text}
        for n, (question, text) in enumerate(zip(questions, texts, strict=True))
    ][::-1]  # fmt: skip


def openai_batch(name: str, questions: Sequence[Question], texts: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {"id": f"batch_req_{n}", "custom_id": question.id, "error": None,
         "response": {"status_code": 200, "request_id": "x", "body": {
             "id": "c", "model": "m", "choices": [{"index": 0, "message": {"role": "assistant", "content": text}}]}}}
        for n, (question, text) in enumerate(zip(questions, texts, strict=True))
    ][::-1]  # fmt: skip


def ms_swift(name: str, questions: Sequence[Question], texts: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {"response": text, "labels": None, "logprobs": None, "images": [{"bytes": None, "path": f"/d/{q.image}"}],
         "messages": [{"role": "user", "content": f"<image>{q.prompt}"}, {"role": "assistant", "content": text}]}
        for q, text in zip(questions, texts, strict=True)
    ][::-1]  # fmt: skip


def own_rows(name: str, questions: Sequence[Question], texts: Sequence[str]) -> list[dict[str, Any]]:
    return [{"question_id": q.id, "answer": text} for q, text in zip(questions, texts, strict=True)][::-1]


def save_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    table = [list(rows[0]), *(list(row.values()) for row in rows)]
    if path.suffix == ".xlsx":
        book = openpyxl.Workbook()
        for row in table:
            book.active.append(row)
        book.save(path)
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(list(rows)), path)
    else:
        mark = "\t" if path.suffix == ".tsv" else ","
        path.write_text("".join(mark.join(f'"{cell}"' for cell in row) + "\n" for row in table))


def save_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


FORMS = {
    "lmms-eval": ("x_samples_y.jsonl", lmms_eval), "vlmevalkit xlsx": ("m.xlsx", vlmevalkit),
    "vlmevalkit tsv": ("m.tsv", vlmevalkit), "vlmevalkit csv": ("m.csv", vlmevalkit),
    "openai-batch": ("output.jsonl", openai_batch), "ms-swift": ("result.jsonl", ms_swift),
    "parquet": ("a.parquet", own_rows), "gz": ("a.jsonl.gz", own_rows), "csv": ("a.csv", own_rows),
}  # fmt: skip


@pytest.fixture
def case(request, write, tmp_path):
    """A benchmark's module, its settings without answers, and its questions."""
    module = benchmark(request.param)
    given = CASES[request.param](write, tmp_path)
    return module, given, module.ask(module.Settings(**given))


EVERY = pytest.mark.parametrize("case", CASES, indirect=True)


def read(case: tuple[Any, dict[str, Any], list[Question]], path: Path, form: str = "auto") -> dict[str, str]:
    """The answers by question; each must be there, and nothing else."""
    module, given, questions = case
    where = {"captions": (path,)} if module.NAME == "chair" else {"answers": path}
    found = module.answers(module.Settings(**given, **where, format=form), questions)
    assert found.faults == {}
    return dict(found.texts)


@EVERY
@pytest.mark.parametrize("form", FORMS)
def test_answers_in_a_tool_s_form(case, form, tmp_path):
    module, _, questions = case
    name, make = FORMS[form]
    path = tmp_path / name
    rows = make(module.NAME, questions, TEXTS)
    (save_lines if ".jsonl" in name else save_table)(path, rows)
    expected = {question.id: text for question, text in zip(questions, TEXTS, strict=True)}
    assert read(case, path) == expected
    tool = form.split()[0]
    if tool in ("lmms-eval", "vlmevalkit", "openai-batch", "ms-swift"):
        assert read(case, path, tool) == expected


@EVERY
def test_answers_by_id_and_in_order(case, tmp_path, write):
    _, _, questions = case
    expected = {question.id: text for question, text in zip(questions, TEXTS, strict=True)}
    assert read(case, write("a.json", dict(reversed(expected.items())))) == expected
    assert read(case, write("a.txt", "\n".join(TEXTS) + "\n")) == expected
    assert read(case, write("lines", "\n".join(TEXTS) + "\n"), "lines") == expected
    assert read(case, write("b.json", TEXTS)) == expected
    with pytest.raises(UserError, match="5 answers for 6 questions"):
        read(case, write("few.txt", "\n".join(TEXTS[1:]) + "\n"))
