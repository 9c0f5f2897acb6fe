"""Answers in the files that other tools write, field by field; and answers to another benchmark."""

from __future__ import annotations

import gzip
import json

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from protocols.benchmarks.conftest import column

NAMES = ("cup", "dog", "fork", "cat", "bus", "bed")
TRUTH = ("yes", "no", "yes", "no", "yes", "no")
SAID = ("Yes.", "No, there is none.", "no", "No", "Yes", "yes")
PARSED = ["yes", "no", "no", "no", "yes", "yes"]


@pytest.fixture
def pope(write):
    rows = [
        {
            "question_id": n, "image": f"COCO_val2014_{n // 2:012}.jpg", "label": label,
            "text": f"Is there a {name} in the image?",
        }
        for n, (name, label) in enumerate(zip(NAMES, TRUTH, strict=True), start=1)
    ]  # fmt: skip
    return rows, ("pope", "--questions", write("coco_pope_random.json", rows))


def lmms_sample(n: int, row: dict, said: str, **more) -> dict:
    """A sample as lmms-eval's tracker writes it."""
    asked = f"{row['text']}\nAnswer the question using a single word or phrase."
    scored = {"question_id": str(row["question_id"]), "score": 1.0, "prediction": said, "ground_truth": row["label"]}
    return {
        "doc_id": n, "target": row["label"], "filtered_resps": said, "token_counts": [{"output_tokens": 2}],
        "doc_hash": "0a", "pope_accuracy": scored, "pope_f1_score": scored, "input": asked, **more,
    }  # fmt: skip


def test_lmms_eval_s_samples(pope, write, score):
    rows, given = pope
    samples = [lmms_sample(n, row, said) for n, (row, said) in enumerate(zip(rows, SAID, strict=True))]
    for turned in (samples, samples[::2] + samples[1::2]):
        found = score(*given, "--answers", write("20260101_samples_pope_random.jsonl", turned))
        assert column(found, "parsed") == PARSED
        assert found["faults"] == {}


def test_lmms_eval_s_older_samples_hold_the_document(pope, write, score):
    rows, given = pope
    samples = [
        {
            "doc_id": n, "target": row["label"], "resps": [[said]], "filtered_resps": [said],
            "doc": {
                "id": str(n), "question_id": row["question_id"], "question": row["text"], "answer": row["label"],
                "image_source": row["image"].removesuffix(".jpg"), "category": "random",
            },
            "arguments": [], "pope_accuracy": {"score": 1.0},
        }
        for n, (row, said) in enumerate(zip(rows, SAID, strict=True))
    ]  # fmt: skip
    found = score(*given, "--answers", write("pope_samples_1.jsonl", samples))
    assert column(found, "answer") == list(SAID)
    assert column(found, "parsed") == PARSED


def sheet(rows: list[dict]) -> list[dict]:
    """A result sheet as VLMEvalKit writes it; `answer` is the true one."""
    return [
        {
            "index": n, "image_path": f"images/{row['image']}", "question": row["text"], "category": "random,popular",
            "answer": row["label"].capitalize(), "prediction": said,
        }
        for n, (row, said) in enumerate(zip(rows, SAID, strict=True))
    ]  # fmt: skip


@pytest.mark.parametrize("suffix", [".xlsx", ".tsv", ".csv", ".parquet", ".csv.gz"])
def test_vlmevalkit_s_sheets(pope, score, suffix, tmp_path):
    rows, given = pope
    path, table = tmp_path / f"model_POPE{suffix}", sheet(rows)[::-1]
    if suffix == ".xlsx":
        book = openpyxl.Workbook()
        for row in ([*table[0]], *([*row.values()] for row in table)):
            book.active.append(row)
        book.save(path)
    elif suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(table), path)
    else:
        delimiter = "\t" if suffix == ".tsv" else ","
        lines = [list(table[0]), *([str(v) for v in row.values()] for row in table)]
        text = "\n".join(delimiter.join(f'"{cell}"' for cell in line) for line in lines) + "\n"
        path.write_bytes(gzip.compress(text.encode()) if suffix.endswith(".gz") else text.encode())
    found = score(*given, "--answers", path)
    assert column(found, "answer") == list(SAID)
    assert column(found, "parsed") == PARSED
    assert score(*given, "--answers", path, "--format", "vlmevalkit")["metrics"] == found["metrics"]


def test_openai_s_batch_results(pope, write, score):
    rows, given = pope
    results = [
        {
            "id": f"batch_req_{n}", "custom_id": str(row["question_id"]), "error": None,
            "response": {
                "status_code": 200, "request_id": "x",
                "body": {
                    "id": f"chatcmpl-{n}", "object": "chat.completion", "model": "gpt-4o",
                    "choices": [{"index": 0, "message": {"role": "assistant", "content": said}}],
                },
            },
        }
        for n, (row, said) in enumerate(zip(rows, SAID, strict=True))
    ]  # fmt: skip
    results[1] |= {"response": None, "error": {"code": "batch_expired", "message": "x"}}
    found = score(*given, "--answers", write("batch_output.jsonl", results[::-1]))
    assert column(found, "parsed") == [PARSED[0], None, *PARSED[2:]]
    assert found["counts"]["unanswered"] == 1


def test_ms_swift_s_responses(pope, write, score):
    rows, given = pope
    results = [
        {
            "response": said, "labels": row["label"], "logprobs": None,
            "messages": [
                {"role": "user", "content": f"<image>{row['text']}"}, {"role": "assistant", "content": said},
            ],
            "images": [{"bytes": None, "path": f"/data/{row['image']}"}],
        }
        for row, said in zip(rows, SAID, strict=True)
    ]  # fmt: skip
    found = score(*given, "--answers", write("result.jsonl", results[::-1]))
    assert column(found, "parsed") == PARSED


def test_texts_by_id_and_plain_lines(pope, write, score, refused):
    rows, given = pope
    by_id = {str(row["question_id"]): said for row, said in zip(rows, SAID, strict=True)}
    assert column(score(*given, "--answers", write("a.json", by_id)), "parsed") == PARSED
    lines = write("a.txt", "\n".join(SAID) + "\n")
    assert column(score(*given, "--answers", lines), "parsed") == PARSED
    assert column(score(*given, "--answers", write("b.json", list(SAID))), "parsed") == PARSED
    few = write("few.txt", "Yes\nNo\n")
    assert "2 answers for 6 questions" in refused(*given, "--answers", few)


def test_objects_one_after_another_over_several_lines(pope, write, score, refused, tmp_path):
    # As POPE's captions of LLaVA are published: `json.dump(row, file, indent=4)` for each row.
    rows, given = pope
    said = [json.dumps({"question_id": r["question_id"], "text": s}, indent=4) for r, s in zip(rows, SAID, strict=True)]
    assert column(score(*given, "--answers", write("a.json", "\n".join(said))), "parsed") == PARSED
    assert column(score(*given, "--answers", write("b.json", ",\n".join(said))), "parsed") == PARSED
    damaged = score(*given, "--answers", write("c.json", "\n".join([*said[:2], said[2][:-3], *said[3:]])))
    assert column(damaged, "parsed") == [*PARSED[:2], None, *PARSED[3:]]
    assert "ends too early" in refused(*given, "--answers", write("d.json", said[0][:-3]))


def test_a_gzipped_file_is_read_and_a_damaged_one_is_named(pope, score, refused, tmp_path):
    rows, given = pope
    lines = "".join(
        json.dumps({"question_id": r["question_id"], "text": s}) + "\n" for r, s in zip(rows, SAID, strict=True)
    )
    path, broken = tmp_path / "a.jsonl.gz", tmp_path / "b.jsonl.gz"
    path.write_bytes(gzip.compress(lines.encode()))
    broken.write_bytes(path.read_bytes()[:-20])
    assert column(score(*given, "--answers", path), "parsed") == PARSED
    assert "not a whole gzip file" in refused(*given, "--answers", broken)


def test_a_wrong_format_is_said_in_a_screenful(pope, write, refused, tmp_path):
    _, given = pope
    wide = write("wide.json", {f"column_{n}": [n] for n in range(5000)})
    assert len(refused(*given, "--answers", wide)) < 1500
    strange = write("strange.json", {f"somewhere_{n}": "yes" for n in range(5000)})
    assert len(refused(*given, "--answers", strange)) < 1500
    (tmp_path / "a.xlsx").write_bytes(b"PK\x03\x04 but no spreadsheet")
    assert "not a readable .xlsx spreadsheet" in refused(*given, "--answers", tmp_path / "a.xlsx")
    plain = write("plain.jsonl", [{"question_id": 1, "answer": "yes"}])
    assert "no row is of the form --format lmms-eval" in refused(*given, "--answers", plain, "--format", "lmms-eval")


def amber(write) -> list:
    annotations = [{"id": n, "type": "discriminative-hallucination", "truth": "no"} for n in range(1, 7)]
    annotations[:2] = [{"id": n, "type": "generative", "truth": ["cup"], "hallu": []} for n in (1, 2)]
    return [
        "amber", "--annotations", write("annotations.json", annotations), "--relation", write("r.json", {"cup": []}),
        "--safe-words", write("w.txt", "\n"),
        "--questions", write("queries.json", [
            {"id": n, "image": f"AMBER_{n}.jpg", "query": f"Is the sky {n}?" if n > 2 else "Describe this image."}
            for n in range(1, 7)
        ]),
    ]  # fmt: skip


def gqa(write) -> list:
    row = {"answer": "yes", "imageId": "1", "isBalanced": True}
    return ["gqa", "--questions", write("g.json", {str(n): {**row, "question": f"Which {n}?"} for n in range(6)})]


def textvqa(write) -> list:
    row = {"answers": ["x"] * 10}
    data = [{**row, "image_id": f"i{n}", "question_id": n, "question": f"what is {n}?"} for n in range(1, 7)]
    return ["textvqa", "--questions", write("t.json", {"data": data})]


@pytest.mark.parametrize("other", [amber, gqa, textvqa])
@pytest.mark.parametrize("ids", [True, False])
def test_pope_s_answers_are_no_other_benchmark_s(pope, write, refused, other, ids):
    rows, _ = pope
    answers = [
        {**({"question_id": row["question_id"]} if ids else {}), "question": row["text"], "answer": said}
        for row, said in zip(rows, SAID, strict=True)
    ]
    said = refused(*other(write), "--answers", write("pope.jsonl", answers))
    assert "belong to none of the 6 questions" in said
    assert len(said) < 1500


def test_a_cell_that_says_nan_is_no_answer(tmp_path):
    (tmp_path / "a.csv").write_text("image_id,caption\n1,A cup.\n2,nan\n3,NaN\n4,\n5,Naan.\n")
    from veridical.protocols.answer_files import read_answers

    rows = read_answers(tmp_path / "a.csv").rows
    assert [row["caption"] for _, row in rows] == ["A cup.", None, None, None, "Naan."]
