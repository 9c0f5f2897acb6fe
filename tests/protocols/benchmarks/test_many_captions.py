"""Captions in numbers: their texts aren't kept in memory, and what is read in parts is read as ever."""

from __future__ import annotations

import json
import tracemalloc

import pytest

from protocols.benchmarks.conftest import column
from veridical.errors import UserError
from veridical.protocols.answer_files import JsonLines, read_answers, stream_answers
from veridical.protocols.benchmarks import chair, chair_truth
from veridical.protocols.benchmarks.chair_truth import coco80_reader
from veridical.protocols.spooled import SpooledTexts


def peak(tmp_path, number: int) -> int:
    """The most bytes in use while so many captions of 4,000 characters are scored."""
    captions, objects = tmp_path / f"{number}.jsonl", tmp_path / f"{number}.json"
    text = "A cup and a dog. " + "a" * 4000
    with captions.open("w") as file:
        file.writelines(json.dumps({"image_id": n, "caption": text}) + "\n" for n in range(number))
    objects.write_text(json.dumps({str(n): ["cup"] for n in range(number)}))
    settings = chair.Settings(captions=(captions,), objects=objects)
    tracemalloc.start()
    questions = chair.ask(settings)
    scored = chair.count(settings, questions, chair.answers(settings, questions))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert scored.tally.values()["chair_i"] == 50
    return most


def test_memory_grows_by_less_than_the_captions(tmp_path):
    peak(tmp_path, 10)
    assert (peak(tmp_path, 900) - peak(tmp_path, 300)) / 600 < 2000


def test_lines_read_in_parts_are_read_as_ever(write):
    rows = "".join(f'{{"image_id": {n}, "caption": "A cup \u2028 {n}"}}\n' for n in range(40))
    path = write("a.jsonl", f"\ufeff{rows}\n[1]\nnot JSON\n" + '{"image_id": 99}')
    parts, whole = stream_answers(path), read_answers(path)
    assert isinstance(parts.rows, JsonLines)
    assert list(parts.rows) == list(whole.rows)
    assert (list(parts.unreadable), len(parts.rows)) == (list(whole.unreadable), 41)
    assert (parts.rows[40], parts.rows[1:3]) == (whole.rows[40], whole.rows[1:3])
    path.write_bytes(b'{"image_id": 1, "caption": "x"}\n\xff\n')
    with pytest.raises(UserError, match="not UTF-8 text"):
        list(stream_answers(path).rows)


def test_bad_lines_are_counted_once(write, score):
    path = write("c.jsonl", '{"image_id": 1, "caption": "A cup."}\nbroken\n{"image_id": 2, "caption": ""}\n')
    found = score("chair", "--captions", path, "--objects", write("o.json", {"1": ["cup"], "2": ["dog"], "3": []}))
    assert column(found, "id") == ["1", "2", "3"]
    assert (found["counts"]["unreadable"], found["counts"]["unparsed"], found["counts"]["unanswered"]) == (1, 1, 1)


def test_texts_in_a_file_come_back_as_they_were():
    texts = SpooledTexts()
    given = {"a": "", "b": "狗 \ud83d lone", "c": "x" * 100_000}
    texts.update(given)
    texts["a"] = "new"
    assert dict(texts) == {**given, "a": "new"}
    del texts["c"]
    assert (len(texts), "c" in texts, texts["b"]) == (2, False, given["b"])


@pytest.mark.parametrize(
    "text",
    [
        '{"a/1.jpg": ["cup"], "b/1.jpg": ["dog", "zzz"], "2": [], "2": ["cat"]}',
        '{"1": ["cup"], "2": "dog"}',
        '{"1": [NaN]}',
        '{"1": ["cup"]',
        "[]",
        "{}",
        "",
    ],
)
def test_a_large_file_of_objects_is_read_as_a_small_one(tmp_path, monkeypatch, text):
    path = tmp_path / "o.json"
    path.write_text(text)

    def read():
        try:
            return chair_truth.read_objects(path, {"cup": "cup", "dog": "dog", "cat": "cat"}, coco80_reader())
        except UserError as error:
            return str(error)

    small = read()
    monkeypatch.setattr(chair_truth, "LARGE", -1)
    assert read() == small
