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
from veridical.pairs.importing import ImportConfig, import_published, outcome
from veridical.records import Rejection

PER_FORMAT = 120
MORE = {
    "vl-rewardbench": {
        "id": "RLAIF-V-1", "query": "What is it?", "response": ["A cat.", "A cup."], "human_ranking": [1, 0],
        "image": "a.jpg", "models": ["m", "n"], "query_source": "x",
    },
    "veridical": {
        "id": "p", "record_id": "r", "images": [{"path": "a.jpg"}], "prompt": [{"role": "user", "content": "What?"}],
        "chosen": [{"role": "assistant", "content": "A."}], "rejected": [{"role": "assistant", "content": "B."}],
        "construction": "x", "variant": "y", "parameters": "{}", "scores": {"s": 1.0}, "seed": 1, "attempts": 1,
        "weights": [1.0, 2.0], "chosen_spans": [[0, 1]], "rejected_spans": [[0, 1]], "rejected_images": ["b.jpg"],
        "others": [{"text": "C.", "source": "s", "score": 1.0, "weight": 1.0, "images": ["b.jpg"]}],
    },
}  # fmt: skip
"""Rows of formats whose tests are elsewhere."""
WHOLE_FILES = {
    "coco": {
        "images": [{"id": 5, "file_name": "a.jpg", "width": 32, "height": 32}, {"id": 6, "file_name": "b.jpg"}],
        "annotations": [{"image_id": 5, "category_id": 1, "bbox": [1, 1, 9, 9]}, {"image_id": 6, "caption": "A cup."}],
        "categories": [{"id": 1, "name": "cup"}],
    },
    "visual-genome": [
        {"id": 1, "regions": [{"phrase": "a cup", "x": 1, "y": 1, "width": 3, "height": 3}]},
        {"image_id": 2, "objects": [{"names": ["cup"], "x": 1, "y": 1, "w": 3, "h": 3}]},
    ],
}  # fmt: skip
NASTY = (
    None, True, -1, 1e308, float("nan"), "", " ", "\x00", "\ud800", "a\u2028b", "x" * 100_000, [], {}, [[]],
    [None], {"": {}},
    "../../etc/passwd", "/etc/passwd", "/dev/zero", "http://example.org/a.jpg", "file:///etc/passwd", "..\\..\\a.jpg",
    "<image>" * 50, "<|im_end|>", '{"a": ', b"\xff\xd8\xff", b"GIF89a", b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    {"bytes": b"<html></html>", "path": "/etc/passwd"}, {"bytes": None, "path": "/etc/shadow"}, "link.jpg",
    "data:image/png;base64,!!", "bomb.png", "page.png", "drawing.jpg", "cut.jpg",
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


def png_header(width, height):
    """The beginning of a PNG file that says how large it is and then holds next to nothing."""
    import struct
    import zlib

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for name in ("a.jpg", "b.jpg", "2334455.jpg", "000000000042.jpg"):
        Image.new("RGB", (32, 32), (9, 9, 9)).save(folder / name)
    outside = tmp_path_factory.mktemp("outside") / "secret.jpg"
    Image.new("RGB", (32, 32)).save(outside)
    (folder / "link.jpg").symlink_to(outside)
    (folder / "bomb.png").write_bytes(png_header(60_000, 60_000))
    (folder / "page.png").write_bytes(b"<!DOCTYPE html><html><script>alert(1)</script></html>")
    (folder / "drawing.jpg").write_bytes(
        b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'
    )
    (folder / "cut.jpg").write_bytes((folder / "a.jpg").read_bytes()[:40])
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


@pytest.mark.parametrize("name", sorted(WHOLE_FILES))
@pytest.mark.filterwarnings("ignore::veridical.errors.DataWarning")
def test_every_mutated_file_is_read_or_refused_by_name(name, tmp_path, opened):
    draw, read, refused = random.Random(f"mutations/{name}"), 0, []
    path = tmp_path / "rows.json"
    for _ in range(PER_FORMAT // 2):
        content = mutated(WHOLE_FILES[name], draw)
        try:
            path.write_text(json.dumps(content, default=repr))
        except RecursionError:
            path.write_text("[" * 3000 + "]" * 3000)
        try:
            read += len(list(read_published(path, name)[1]))
        except UserError as error:
            refused.append(str(error))
    assert all("rows.json" in one for one in refused)
    assert read > PER_FORMAT // 4
    assert not [place for place in opened if "/etc/" in place]


@pytest.mark.parametrize("name", sorted(ROWS | MORE))
def test_every_mutated_row_is_used_or_listed(name, images, tmp_path, opened):
    from veridical.formats.published.catalogue import Reading, _one
    from veridical.formats.published.types import ReadOptions

    draw = random.Random(f"mutations/{name}")
    form, find = FORMATS.get(name), ImageFinder((images,), tmp_path / "unpacked")
    reading, used, listed = Reading(form), 0, 0
    for number in range(PER_FORMAT):
        before = reading.no_comparison
        found = list(_one(mutated((ROWS | MORE)[name], draw), f"rows:{number}", form, ReadOptions(), reading))
        assert found or reading.no_comparison == before + 1
        for item in found:
            done = outcome(item, find, form, item.id) if form.kind == "pairs" else item
            listed += isinstance(done, Rejection)
            used += not isinstance(done, Rejection)
            if isinstance(done, Rejection):
                assert done.reason
                assert done.remedy
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


@pytest.mark.parametrize("name", ["bomb.png", "page.png", "drawing.jpg", "cut.jpg", "link.jpg"])
def test_what_only_looks_like_an_image_is_one_rejected_row(tmp_path, images, name):
    rows = [ROWS["bpo"] | {"image": "a.jpg", "id": "good"}, ROWS["bpo"] | {"image": name, "id": "bad"}]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    manifest = import_published(ImportConfig(("bpo", str(path)), tmp_path / "out", (images,)))
    assert (manifest["records_used"], sum(manifest["rejected"].values())) == (1, 1)


def test_a_compressed_file_that_grows_without_bound_is_read_in_bounded_memory(tmp_path, images, monkeypatch):
    """A line of any length is one rejected row, whatever it unpacks to."""
    import gzip
    import tracemalloc

    from veridical.formats.published import tables

    monkeypatch.setattr(tables, "MAX_LINE", 2**20)
    path = tmp_path / "rows.jsonl.gz"
    good = json.dumps(ROWS["bpo"] | {"image": "a.jpg"})
    with gzip.open(path, "wt", compresslevel=1) as file:
        file.write('{"prompt": "')
        for _ in range(64):
            file.write("x" * 2**20)
        file.write(f'"}}\n{good}\n')
    assert path.stat().st_size < 2**20
    tracemalloc.start()
    manifest = import_published(ImportConfig(("bpo", str(path)), tmp_path / "out", (images,)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (manifest["records_used"], manifest["rejected"]) == (1, {"too-long": 1})
    assert peak < 32 * 2**20


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
