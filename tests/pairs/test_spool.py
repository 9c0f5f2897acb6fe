"""Records on disk are those that were written; what a build plans with takes as much memory for many as for few."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from veridical.formats.seen import Occurrences, Seen
from veridical.pairs.spool import SpooledItems, spooled
from veridical.records import (
    Annotations,
    Counterfactual,
    ImageFile,
    Message,
    ObjectInImage,
    Record,
    Region,
    Rejection,
    Relation,
)

ITEMS = [
    Record(f"r{number}", (ImageFile(Path(f"/x/{number}.png"), f"{number:064d}"),), (Message("user", "What?"),), "A ☕.")
    if number % 7
    else Rejection(f"r{number}", "no-image", "give one", "it has none")
    for number in range(100)
]

ITEMS[1] = replace(
    ITEMS[1],
    reference="Half an emoji: \ud83d",
    annotations=Annotations(
        (ObjectInImage("cup", (0.1, 0.2, 1 / 3, 1.0), ("red",)), ObjectInImage("fork")),
        "kitchen",
        (Relation("cup", "left of", "fork"),),
        (Region("a cup", (0.0, 0.0, 0.5, 0.5)), Region("all")),
        ("There is a cup.",),
    ),
    counterfactual=Counterfactual((ImageFile(Path("/x/other.png"), "1" * 64),), "No cup."),
)


def test_what_is_read_is_what_was_written(tmp_path):
    items = spooled(iter(ITEMS), tmp_path / "work")
    assert list(items) == ITEMS
    assert (len(items), items[3], items[-1], items[95:200]) == (100, ITEMS[3], ITEMS[-1], ITEMS[95:])
    with pytest.raises(IndexError):
        items[100]
    some = items.part("some", lambda item: isinstance(item, Rejection))
    assert list(some) == ITEMS[::7]
    again = pickle.loads(pickle.dumps(some))
    assert isinstance(again, SpooledItems)
    assert list(again) == ITEMS[::7]
    assert not spooled(iter(()), tmp_path / "none")


def test_an_image_is_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    record = Record("a", (ImageFile(Path("photos/a.png"), "0"),), ())
    [found] = spooled([record], tmp_path / "work")
    assert isinstance(found, Record)
    assert found.images[0].path == tmp_path / "photos" / "a.png"


def test_texts_that_were_there_before_are_told():
    seen = Seen()
    names = [f"name {number}" for number in range(5000)]
    assert all(seen.add(name) for name in names)
    assert not any(seen.add(name) for name in names)
    assert len(seen) == 5000
    counted = Occurrences()
    assert [counted.count(name) for name in ("a", "b", "a", "a", "b")] == [1, 1, 2, 3, 2]


_PLAN = """
import resource, sys
from pathlib import Path
from veridical.pairs import run_folder, shards
from veridical.pairs.config import BuildConfig, checked
config = checked(BuildConfig(Path(sys.argv[1]) / "out", construction="povid", records=sys.argv[2], model="nowhere"))
found = shards.read(config, config.out / "work")
source = shards.open_source(config, found.items, found.held_out)
run_folder.digest_of(source.items)
numbers = shards.lacking(config, source.items)
print(len(found.items), len(found.held_out), len(numbers), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def planned(folder: Path, records: int) -> tuple[int, int, int, int]:
    """Records used, kept back, shards, and the most memory in MiB, of planning a build in a process of its own."""
    folder.mkdir()
    for number in range(20):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / f"{number}.png")
    with (folder / "records.jsonl").open("w") as file:
        for number in range(records):
            text = f"A cup, and {number} more things on a table."
            row = {"id": f"record-{number}", "file_name": f"{number % 20}.png", "text": text}
            file.write(json.dumps(row) + "\n")
    command = [sys.executable, "-c", _PLAN, str(folder), str(folder / "records.jsonl")]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    used, kept, shards, memory = map(int, told)
    return used, kept, shards, memory


def test_a_plan_of_many_records_takes_the_memory_of_one_of_few(tmp_path):
    few, many = planned(tmp_path / "few", 200), planned(tmp_path / "many", 8000)
    assert many[0] + many[1] == 8000
    assert 0 < many[1] < 4000
    assert many[2] == -(-many[0] // 256)
    # A record took about 3 kB where all of them were held.
    assert many[3] - few[3] < 12, (few, many)
