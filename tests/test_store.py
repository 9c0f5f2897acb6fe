"""The store of small values: between processes, after a kill, and with a damaged file."""

import os
import pickle
import signal
import sqlite3
import subprocess
import sys

import pytest

from veridical.errors import UserError
from veridical.store import Store, key_of


def test_values_come_back_under_their_key(tmp_path):
    store = Store(tmp_path / "deep" / "cache.sqlite")
    store.put("a", {"text": "ü \ud83d", "numbers": [1, 2.5, None]})
    store.put_many({"b": 0.1, "c": "x"})
    store.put("c", "y")
    assert store.get("a") == {"text": "ü \ud83d", "numbers": [1, 2.5, None]}
    assert store.get_many(["b", "c", "d", "c"]) == {"b": 0.1, "c": "y"}
    store.forget(["b", "nothing"])
    assert store.get("b") is None
    assert Store(store.path).keys() == ["a", "c"]


def test_more_keys_than_one_query_holds(tmp_path):
    store = Store(tmp_path / "cache.sqlite")
    store.put_many({str(i): i for i in range(1203)})
    assert store.get_many(map(str, range(1300))) == {str(i): i for i in range(1203)}


def test_a_key_depends_on_every_part_and_on_no_order():
    assert key_of({"a": 1, "b": {"c": "é"}}) == key_of({"b": {"c": "é"}, "a": 1})
    assert len({key_of({"a": 1}), key_of({"a": "1"}), key_of({"a": 1.5}), key_of({"b": 1}), key_of({})}) == 5
    assert key_of({"text": "\ud83d"}) != key_of({"text": "?"})


def test_an_altered_entry_counts_as_missing(tmp_path):
    store = Store(tmp_path / "cache.sqlite")
    store.put_many({"a": "right", "b": "right"})
    with sqlite3.connect(store.path) as connection:
        connection.execute("UPDATE entries SET value = '\"wrong\"' WHERE key = 'a'")
    assert store.get_many(["a", "b"]) == {"b": "right"}


@pytest.mark.parametrize("damage", [lambda content: b"no database at all" * 100, lambda content: content[:2000]])
def test_a_damaged_file_is_named_with_its_remedy(tmp_path, damage):
    store = Store(tmp_path / "cache.sqlite")
    store.put_many({str(i): "x" * 500 for i in range(100)})
    store.close()
    store.path.write_bytes(damage(store.path.read_bytes()))
    with pytest.raises(UserError, match=r"cache\.sqlite: can't be used .* delete it"):
        store.get_many(map(str, range(100)))


def test_a_folder_that_is_none_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="choose another"):
        Store(tmp_path / "file" / "cache.sqlite").put("a", 1)


WRITER = """
import sys
from pathlib import Path
from veridical.store import Store
store = Store(Path(sys.argv[1]))
for number in range(int(sys.argv[3])):
    store.put(f"{sys.argv[2]}-{number:06d}", {"number": number, "text": "x" * 2000})
    print(number, flush=True)
"""


def writer(path, name, count):
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), name, str(count)], stdout=subprocess.PIPE, text=True
    )


def test_several_processes_write_at_once(tmp_path):
    path = tmp_path / "cache.sqlite"
    running = [writer(path, name, 40) for name in "abc"]
    assert [process.wait(60) for process in running if process.communicate()] == [0, 0, 0]
    assert Store(path).keys() == [f"{name}-{number:06d}" for name in "abc" for number in range(40)]


def test_a_kill_loses_nothing_that_was_stored(tmp_path):
    path = tmp_path / "cache.sqlite"
    process = writer(path, "a", 10**6)
    said = [process.stdout.readline() for _ in range(20)]
    process.send_signal(signal.SIGKILL)
    process.wait(60)
    store = Store(path)
    kept = store.get_many(store.keys())
    assert len(kept) == len(store.keys()) >= len(said)
    assert all(value == {"number": place, "text": "x" * 2000} for place, value in enumerate(kept.values()))
    store.put("b", 1)
    assert store.get("b") == 1


def test_another_process_opens_the_file_itself(tmp_path):
    store = Store(tmp_path / "cache.sqlite")
    store.put("a", 1)
    assert pickle.loads(pickle.dumps(store)).get("a") == 1
    child = os.fork()
    if child == 0:
        try:
            store.put("from the child", 2)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert store.get_many(["a", "from the child"]) == {"a": 1, "from the child": 2}
