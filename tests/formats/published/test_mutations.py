"""Thousands of damaged rows: each is used or listed, none ends an import, nothing else is read."""

import json
import random
import sys
from pathlib import Path

import pytest
from PIL import Image
from tests.formats.published.test_formats import ROWS

from veridical.errors import UserError
from veridical.formats.published.catalogue import read_published
from veridical.formats.published.images import ImageFinder
from veridical.formats.published.registry import FORMATS
from veridical.pairs.importing import ImportConfig, _outcome, import_published
from veridical.records import Rejection

PER_FORMAT = 120
NASTY = (
    None, True, -1, 1e308, float("nan"), "", " ", "\x00", "\ud800", "a\u2028b", "x" * 100_000, [], {}, [[]],
    [None], {"": {}},
    "../../etc/passwd", "/etc/passwd", "/dev/zero", "http://example.org/a.jpg", "file:///etc/passwd", "..\\..\\a.jpg",
    "<image>" * 50, "<|im_end|>", '{"a": ', b"\xff\xd8\xff", b"GIF89a", b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    {"bytes": b"<html></html>", "path": "/etc/passwd"}, {"bytes": None, "path": "/etc/shadow"}, "link.jpg",
    "data:image/png;base64,!!",
)  # fmt: skip


def deep(levels):
    value = "x"
    for _ in range(levels):
        value = [value]
    return value


def mutated(row, draw):
    """A copy of a row with one to three places changed, dropped, doubled or replaced by a value of another kind."""
    row = json.loads(json.dumps(row, default=lambda value: value.decode("latin-1")))
    for _ in range(draw.randint(1, 3)):
        _change(row, draw)
    return row


def _change(node, draw):
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            return
        key = draw.choice(keys)
        inner = node[key]
        if isinstance(inner, dict | list) and inner and draw.random() < 0.6:
            node = inner
            continue
        kind = draw.random()
        if kind < 0.15:
            del node[key]
        elif kind < 0.25 and isinstance(inner, str):
            node[key] = inner[: draw.randrange(len(inner) + 1)]
        elif kind < 0.3:
            node[key] = deep(draw.choice((5, 3000)))
        else:
            node[key] = draw.choice(NASTY)
        return


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for name in ("a.jpg", "b.jpg", "2334455.jpg", "000000000042.jpg"):
        Image.new("RGB", (32, 32), (9, 9, 9)).save(folder / name)
    outside = tmp_path_factory.mktemp("outside") / "secret.jpg"
    Image.new("RGB", (32, 32)).save(outside)
    (folder / "link.jpg").symlink_to(outside)
    return folder


@pytest.fixture
def opened():
    """The paths that were opened for reading while the test ran."""
    found, active = [], [True]

    def hook(event, arguments):
        if event == "open" and active[0] and isinstance(arguments[0], str | bytes | Path):
            found.append(str(arguments[0]))

    sys.addaudithook(hook)
    yield found
    active[0] = False


@pytest.mark.parametrize("name", sorted(ROWS))
def test_every_mutated_row_is_used_or_listed(name, images, tmp_path, opened):
    from veridical.formats.published.catalogue import Reading, _one
    from veridical.formats.published.types import ReadOptions

    draw = random.Random(f"mutations/{name}")
    form, find = FORMATS.get(name), ImageFinder((images,), tmp_path / "unpacked")
    reading, used, listed = Reading(form), 0, 0
    for number in range(PER_FORMAT):
        before = reading.no_comparison
        found = list(_one(mutated(ROWS[name], draw), f"rows:{number}", form, ReadOptions(), reading))
        assert found or reading.no_comparison == before + 1
        for item in found:
            outcome = _outcome(item, find, name, set()) if form.kind == "pairs" else item
            listed += isinstance(outcome, Rejection)
            used += not isinstance(outcome, Rejection)
            if isinstance(outcome, Rejection):
                assert outcome.reason
                assert outcome.remedy
    assert listed
    bad = ("/etc/", "/dev/zero", "secret.jpg")
    assert not [path for path in opened if any(part in path for part in bad)]


WHOLE = json.dumps([ROWS["bpo"]] * 3)


@pytest.mark.parametrize(
    "content", [WHOLE[:-20], WHOLE[: len(WHOLE) // 2], "[", "\x00" * 100, "[[[" * 5000, "nonsense"]
)
def test_files_cut_short_or_of_another_kind_are_refused_by_name(tmp_path, content):
    path = tmp_path / "rows.json"
    path.write_text(content)
    with pytest.raises(UserError, match=r"rows\.json"):
        list(read_published(path, "bpo")[1])


@pytest.mark.parametrize("content", ["{}", "[]"])
def test_files_without_rows_have_none(tmp_path, content):
    path = tmp_path / "rows.json"
    path.write_text(content)
    assert list(read_published(path, "bpo")[1]) == []


def test_an_import_of_mixed_rows_counts_all_of_them(tmp_path, images):
    draw = random.Random(1)
    good = ROWS["bpo"] | {"image": "a.jpg"}
    rows = [
        good | {"id": str(n)} if n % 3 else {**good, draw.choice(list(good)): draw.choice(NASTY)} for n in range(60)
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row, default=repr) + "\n" for row in rows))
    manifest = import_published(ImportConfig(("bpo", str(path)), tmp_path / "out", (images,)))
    read = manifest["import"]
    rejected = sum(manifest["rejected"].values())
    assert read["rows"] == 60
    assert manifest["records_used"] + rejected + read["rows_without_comparison"] == 60
    assert manifest["records_used"] >= 40
