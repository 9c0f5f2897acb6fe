"""Answers on disk: whole chunks, continued where they stopped, never mixed."""

import json
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from veridical.errors import UserError
from veridical.protocols import items


@dataclass(frozen=True)
class Square:
    number: int
    squared: int


class StoppedError(Exception):
    pass


def collect(path, numbers, chunk, asked, stop_after=None):
    def answer(batch):
        if stop_after is not None and len(asked) >= stop_after:
            raise StoppedError
        asked.extend(batch)
        # One input may give no item or several, as a picture gives questions.
        return [Square(n, n * n) for n in batch for _ in range(n % 3)]

    return items.collect(path, numbers, chunk, answer, lambda row: Square(**row), lambda done: None)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 20), st.integers(1, 7), st.integers(1, 7), st.integers(0, 20))
def test_stopped_anywhere_and_continued_with_any_chunk_it_gives_the_same(tmp_path_factory, n, first, second, stop):
    folder = tmp_path_factory.mktemp("items")
    numbers = list(range(n))
    whole = collect(folder / "whole.jsonl", numbers, 3, [])
    assert whole == [Square(k, k * k) for k in numbers for _ in range(k % 3)]
    try:
        collect(folder / "again.jsonl", numbers, first, [], stop_after=stop)
    except StoppedError:
        assert not (folder / "again.jsonl").exists()
    assert collect(folder / "again.jsonl", numbers, second, []) == whole
    assert (folder / "again.jsonl").read_bytes() == (folder / "whole.jsonl").read_bytes()
    assert not (folder / "again.parts").exists()


def test_what_is_there_is_not_asked_again(tmp_path):
    path, asked = tmp_path / "x.jsonl", []
    with pytest.raises(StoppedError):
        collect(path, list(range(10)), 2, asked, stop_after=4)
    collect(path, list(range(10)), 2, asked)
    collect(path, list(range(10)), 2, asked)
    assert asked == list(range(10))


def test_a_half_written_chunk_of_a_crash_is_not_read(tmp_path):
    path = tmp_path / "x.jsonl"
    parts = tmp_path / "x.parts"
    parts.mkdir()
    (parts / ".0000000-0000002.jsonl.partial").write_text('{"number": 1, "squ')
    assert collect(path, [1, 2], 2, []) == [Square(1, 1), Square(2, 4), Square(2, 4)]


def test_answers_of_other_settings_are_refused_with_what_changed(tmp_path):
    key = {"limit": 5, "seed": 0, "fingerprint": "a"}
    assert items.claim(tmp_path / "base", key) is False
    assert items.claim(tmp_path / "base", key) is False
    with pytest.raises(UserError, match=r"limit was 5, now 6.*--out"):
        items.claim(tmp_path / "base", {**key, "limit": 6})
    assert json.loads((tmp_path / "base" / "key.json").read_text()) == key


def test_answers_of_a_model_that_changed_are_made_anew(tmp_path):
    folder = tmp_path / "base"
    key = {"limit": 5, "fingerprint": "a"}
    items.claim(folder, key)
    collect(folder / "x.jsonl", [1], 1, [])
    assert items.claim(folder, {**key, "fingerprint": "b"}) is True
    assert not (folder / "x.jsonl").exists()
