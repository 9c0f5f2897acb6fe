import contextlib
import hashlib
import json
import os
import unicodedata

import numpy
import pytest
from PIL import Image

from veridical.errors import UserError
from veridical.formats.sources import read_records
from veridical.records import Message, ObjectInImage, Record, Region, Rejection, Relation


@pytest.fixture
def read(tmp_path):
    def read(source, **options):
        found = list(read_records(str(source), tmp_path / "work", **options))
        records = {item.id: item for item in found if isinstance(item, Record)}
        rejects = {item.id: item for item in found if isinstance(item, Rejection)}
        assert len(records) + len(rejects) == len(found)
        return records, rejects

    return read


def picture(path, mode="RGB", size=(32, 24), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    levels = numpy.random.default_rng(len(path.name)).integers(0, 256, (size[1], size[0], 4), dtype=numpy.uint8)
    if mode == "I;16":
        Image.fromarray(levels[..., 0].astype(numpy.uint16) * 257).save(path)
    else:
        image = Image.fromarray(levels[..., :3]).convert(mode)
        image.save(path, **options)
    return path


def metadata(folder, *rows):
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_a_folder_as_people_really_have_them(tmp_path, read):
    """Everything usable is read; everything else is named with its reason and what to do."""
    folder = tmp_path / "photos"
    whole = picture(folder / "good.png").read_bytes()
    picture(folder / "cmyk.jpg", "CMYK")
    picture(folder / "deep.png", "I;16")
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:])
    picture(folder / "été 北京.png")
    picture(folder / "uncaptioned.png")
    picture(folder / "one.png", size=(1, 1))
    (folder / "corrupt.png").write_bytes(whole[: len(whole) // 2])
    (folder / "text.png").write_text("not a picture")
    (folder / "notes.txt").write_text("not a picture either, and not called one")
    names = ["good.png", "cmyk.jpg", "deep.png", "moving.gif", "été 北京.png", "one.png", "corrupt.png", "text.png"]
    metadata(folder, *({"file_name": name, "text": f"A {name}."} for name in [*names, "gone.png"]))
    records, rejects = read(folder)
    assert set(records) == {"good.png", "cmyk.jpg", "deep.png", "moving.gif", "été 北京.png", "uncaptioned.png"}
    assert {name: reject.reason for name, reject in rejects.items()} == {
        "one.png": "image-too-small",
        "corrupt.png": "corrupt-image",
        "text.png": "not-an-image",
        "gone.png": "missing-image",
    }
    assert all(reject.remedy for reject in rejects.values())
    assert records["good.png"].reference == "A good.png."
    assert records["good.png"].images[0].sha256 == hashlib.sha256(whole).hexdigest()
    assert records["uncaptioned.png"].reference is None
    assert records["good.png"].prompt == (Message("user", "Describe this image."),)


def test_a_folder_without_captions_is_read_in_natural_order(tmp_path, read):
    for name in ("img10.png", "img2.png", "b/img1.png", ".hidden.png", "b/.trash/x.png"):
        picture(tmp_path / "in" / name)
    records, rejects = read(tmp_path / "in", prompt="What is here?")
    assert list(records) == ["b/img1.png", "img2.png", "img10.png"]
    assert not rejects
    assert records["img2.png"].prompt == (Message("user", "What is here?"),)


def test_metadata_in_subfolders_in_csv_and_parquet(tmp_path, read):
    import pyarrow
    import pyarrow.parquet

    for folder in ("a", "b"):
        picture(tmp_path / "in" / folder / "x.png")
    (tmp_path / "in/a/metadata.csv").write_text("file_name,text\nx.png,From csv\n")
    table = pyarrow.table({"file_name": ["x.png"], "text": ["From parquet"]})
    pyarrow.parquet.write_table(table, tmp_path / "in/b/metadata.parquet")
    records, _ = read(tmp_path / "in")
    assert {name: record.reference for name, record in records.items()} == {
        "a/x.png": "From csv",
        "b/x.png": "From parquet",
    }


def test_own_fields_of_a_row(tmp_path, read):
    picture(tmp_path / "in/x.png")
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What?"}]
    objects = [{"name": "cup", "box": [0, 0.5, 1, 1], "attributes": ["red"]}, {"name": "fork"}, "boat"]
    known = {
        "objects": objects,
        "scene": "table",
        "relations": [["cup", "left of", "fork"]],
        "regions": [{"text": "a red cup"}],
        "facts": ["It is full."],
    }
    metadata(tmp_path / "in", {"file_name": "x.png", "id": 7, "prompt": turns, **known})
    records, _ = read(tmp_path / "in")
    record = records["7"]
    assert record.prompt == (Message("system", "Be brief."), Message("user", "What?"))
    assert record.annotations.objects == (
        ObjectInImage("cup", (0.0, 0.5, 1.0, 1.0), ("red",)),
        ObjectInImage("fork"),
        ObjectInImage("boat"),
    )
    assert record.annotations.scene == "table"
    assert record.annotations.relations == (Relation("cup", "left of", "fork"),)
    assert record.annotations.regions == (Region("a red cup"),)
    assert record.annotations.facts == ("It is full.",)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"file_name": "../secret.png"}, "path-outside"),
        ({"file_name": "link.png"}, "path-outside"),
        ({"file_name": "x.png", "text": 5}, "bad-text"),
        ({"file_name": "x.png", "prompt": [{"role": "assistant", "content": "a"}]}, "bad-prompt"),
        ({"file_name": "x.png", "prompt": 3}, "bad-prompt"),
        ({"file_name": "x.png", "objects": {"bbox": []}}, "bad-objects"),
        ({"file_name": "x.png", "objects": [{"name": "cup", "box": [1, 2]}]}, "bad-objects"),
        ({"file_name": "x.png", "objects": [{"name": "cup", "attributes": "red"}]}, "bad-objects"),
        ({"file_name": "x.png", "relations": [["cup", "left of"]]}, "bad-relations"),
        ({"file_name": "x.png", "regions": ["a cup"]}, "bad-regions"),
        ({"file_name": "x.png", "facts": "One."}, "bad-facts"),
        ({"text": "no image"}, "no-image"),
        ({"image": 5}, "bad-image-field"),
        ({"file_name": "a\0b.png"}, "bad-image-field"),
        ({"file_name": "folder"}, "missing-image"),
    ],
)
def test_rows_that_cannot_be_used(tmp_path, read, row, reason):
    picture(tmp_path / "secret.png")
    folder = picture(tmp_path / "in/x.png").parent
    (folder / "folder").mkdir()
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    metadata(folder, {"id": "bad", **row})
    _, rejects = read(folder)
    assert rejects["bad"].reason == reason


def test_lines_that_are_not_json_are_named_by_file_and_line(tmp_path, read):
    folder = picture(tmp_path / "in/x.png").parent
    (folder / "metadata.jsonl").write_text('\n{"file_name": "x.png"}\n{oops\n[1]\n')
    records, rejects = read(folder)
    assert list(records) == ["x.png"]
    assert {name: reject.reason for name, reject in rejects.items()} == {
        "metadata.jsonl:3": "not-json",
        "metadata.jsonl:4": "not-json",
    }


def test_ids_are_unique_and_a_second_caption_gets_its_own(tmp_path, read):
    folder = picture(tmp_path / "in/x.png").parent
    row = {"file_name": "x.png"}
    metadata(folder, row | {"text": "One."}, row | {"text": "Two."}, row | {"id": "a"}, row | {"id": "a"})
    records, rejects = read(folder)
    assert {name: record.reference for name, record in records.items()} == {
        "x.png": "One.",
        "x.png#2": "Two.",
        "a": None,
    }
    assert rejects["a"].reason == "duplicate-id"


def test_decomposed_and_composed_names_are_the_same(tmp_path, read):
    folder = tmp_path / "in"
    picture(folder / unicodedata.normalize("NFD", "café.png"))
    metadata(folder, {"file_name": unicodedata.normalize("NFC", "café.png"), "text": "A café."})
    records, rejects = read(folder)
    assert not rejects
    assert [record.reference for record in records.values()] == ["A café."]


def test_a_file_of_records_with_paths_and_one_with_bytes(tmp_path, read):
    import pyarrow
    import pyarrow.parquet

    content = picture(tmp_path / "pics/x.png").read_bytes()
    lines = [{"images": ["pics/x.png"], "caption": "One."}, {"image": "/etc/hostname"}, {"images": []}]
    (tmp_path / "r.jsonl").write_text("\n".join(map(json.dumps, lines)))
    records, rejects = read(tmp_path / "r.jsonl")
    assert records["pics/x.png"].reference == "One."
    assert [reject.reason for reject in rejects.values()] == ["path-outside", "no-image"]
    table = pyarrow.table({"image": [{"bytes": content, "path": "x.png"}], "text": ["Two."]})
    pyarrow.parquet.write_table(table, tmp_path / "r.parquet")
    records, _ = read(tmp_path / "r.parquet")
    [record] = records.values()
    assert record.images[0].sha256 == hashlib.sha256(content).hexdigest()
    assert record.images[0].path.read_bytes() == content


def test_a_limit_counts_what_is_usable(tmp_path, read):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "0.png").write_text("no picture")
    for index in range(1, 5):
        picture(folder / f"{index}.png")
    records, rejects = read(folder, limit=2)
    assert (list(records), list(rejects)) == (["1.png", "2.png"], ["0.png"])


def test_the_world_is_a_source(read):
    records, rejects = read("world:anti-bias", limit=3, seed=4)
    assert len(records) == 3
    assert not rejects
    assert {record.source for record in records.values()} == {"world:anti-bias"}
    with pytest.raises(UserError, match="no split"):
        read("world:nowhere", limit=3)


@pytest.mark.parametrize("name", ["nowhere", "empty", "notes.txt", "broken.parquet"])
def test_sources_that_cannot_be_read_at_all(tmp_path, read, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "broken.parquet").write_text("x")
    with pytest.raises(UserError, match=name):
        read(tmp_path / name)
    with pytest.raises(UserError, match="limit"):
        read("world", limit=0)


def raw(folder, *lines):
    (folder / "r.jsonl").write_text("".join(line + "\n" for line in lines), encoding="utf-8", errors="surrogateescape")
    return folder / "r.jsonl"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"image": "x.png", "text": "half \\ud83d"}', "not-unicode"),
        ('{"image": "x.png", "prompt": [{"role": "user", "content": "\\udc00?"}]}', "not-unicode"),
        ('{"image": "x.png", "id": "\\ud83d"}', "not-unicode"),
        ('{"image": "x.png", "text": "\udce9t\udce9"}', "not-unicode"),  # Latin-1
        ('{"image": "x.png", "x": ' + "1" * 5000 + "}", "not-json"),
        ('{"image": ' + "[" * 100_000 + "}", "not-json"),
        ('{"image": "' + "a" * 300 + '.png"}', "missing-image"),
        ('{"image": {"bytes": "text"}}', "bad-image-field"),
        ('{"image": "data:image/png;base64,?"}', "bad-image-field"),
        ('{"image": "data:image/png;base64,AAAA"}', "not-an-image"),
        ('{"image": "x.png", "objects": [{"name": "cup", "box": [0, 0, 1, ' + "9" * 400 + "]}]}", "bad-objects"),
        ('{"image": "x.png", "objects": [{"name": "cup", "box": [100, 200, 300, 400]}]}', "bad-objects"),
        ('{"image": "x.png", "objects": [{"name": "cup", "box": [0.5, 0.5, 0.1, 0.1]}]}', "bad-objects"),
        ('{"image": "x.png", "regions": [{"text": "a cup", "box": [NaN, 0, 1, 1]}]}', "bad-regions"),
        ('{"image": "x.png", "conversations": [{"from": "human", "value": "<image>What?"}]}', "published-format"),
        ('{"image": "x.png", "text": "A cup.", "ratings": [1, 2]}', "published-format"),
        ('{"image": "x.png", "text": "A cup.", "question": "What?"}', "published-format"),
        ('{"image": "x.png", "text": "[1, 2]"}', "published-format"),
    ],
)
def test_a_bad_line_is_rejected_and_the_next_one_is_read(tmp_path, read, line, reason):
    picture(tmp_path / "x.png")
    records, rejects = read(raw(tmp_path, line, '{"image": "x.png", "id": "good"}'))
    assert list(records) == ["good"]
    [reject] = rejects.values()
    assert reject.reason == reason
    assert reject.remedy
    json.dumps([reject.id, reject.detail], ensure_ascii=False).encode()


def test_texts_beside_images_are_their_captions(tmp_path, read):
    for name in ("a.png", "b.png", "c.png", "d.png", "e.png"):
        picture(tmp_path / "in" / name)
    (tmp_path / "in/a.txt").write_text("A cup.\n")
    (tmp_path / "in/b.png.txt").write_text("A fork.")
    (tmp_path / "in/d.txt").write_bytes(b"caf\xe9")
    (tmp_path / "outside.txt").write_text("Top secret.")
    (tmp_path / "in/e.txt").symlink_to(tmp_path / "outside.txt")
    records, rejects = read(tmp_path / "in")
    assert {name: record.reference for name, record in records.items()} == {
        "a.png": "A cup.", "b.png": "A fork.", "c.png": None, "e.png": None,
    }  # fmt: skip
    assert {name: reject.reason for name, reject in rejects.items()} == {
        "d.png": "not-unicode", "e.txt": "path-outside",
    }  # fmt: skip


def test_rows_of_published_sets_are_refused_with_their_name_and_the_command(tmp_path, read):
    """RLHF-V's parquet has JSON in `text`, which was taken for the caption."""
    picture(tmp_path / "x.png")
    texts = {"question": "What is there?", "chosen": "A cup.", "rejected": "A cat."}
    rows = {
        "rlhf-v": {"image": "x.png", "text": json.dumps(texts), "ds_name": "RLHF-V", "idx": 1},
        "rlaif-v": {"image": "x.png", "ds_name": "R", "idx": 1, "origin_dataset": "o", **texts},
        "spa-vl": {"image": "x.png", "image_name": "x", **texts},
        "llava": {"id": "1", "image": "x.png", "conversations": [{"from": "human", "value": "What?"}]},
    }
    for name, row in rows.items():
        records, rejects = read(raw(tmp_path, json.dumps(row)))
        assert not records
        [reject] = rejects.values()
        assert reject.reason == "published-format"
        assert f"`veridical data import {name} " in reject.remedy
    records, _ = read(raw(tmp_path, '{"image": "x.png", "text": "[A cup] {on} a table."}'))
    assert [record.reference for record in records.values()] == ["[A cup] {on} a table."]


def test_a_data_url_is_an_image(tmp_path, read):
    import base64

    content = picture(tmp_path / "pics/x.png").read_bytes()
    url = "data:image/png;base64," + base64.b64encode(content).decode()
    records, _ = read(raw(tmp_path, json.dumps({"image": url, "text": "A cup."})))
    [record] = records.values()
    assert record.images[0].path.read_bytes() == content


def test_a_large_field_of_csv_is_read_and_a_larger_one_rejected(tmp_path, read, monkeypatch):
    import csv

    picture(tmp_path / "x.png")
    (tmp_path / "r.csv").write_text(f"image,text\nx.png,A fork.\nx.png,{'word ' * 30_000}\nx.png,A cup.\n")
    records, _ = read(tmp_path / "r.csv")
    assert [len(record.reference) for record in records.values()] == [7, 149_999, 6]
    assert csv.field_size_limit() == 131_072
    monkeypatch.setattr("veridical.formats.tables.MAX_FIELD", 1000)
    records, rejects = read(tmp_path / "r.csv")
    assert [record.reference for record in records.values()] == ["A fork.", "A cup."]
    assert [reject.reason for reject in rejects.values()] == ["bad-csv"]


def test_linked_folders_are_read_inside_and_named_outside(tmp_path, read):
    folder = tmp_path / "in"
    picture(folder / "own.png")
    picture(folder / "sub/a.png", size=(40, 40))
    picture(tmp_path / "elsewhere/o.png")
    (tmp_path / "elsewhere/meta.jsonl").write_text('{"file_name": "own.png", "text": "Top secret."}\n')
    (folder / "again").symlink_to(folder / "sub")
    (folder / "round").symlink_to(folder)
    (folder / "more").symlink_to(tmp_path / "elsewhere")
    (folder / "metadata.jsonl").symlink_to(tmp_path / "elsewhere/meta.jsonl")
    records, rejects = read(folder)
    assert set(records) in ({"own.png", "sub/a.png"}, {"own.png", "again/a.png"})
    assert records["own.png"].reference is None
    assert {name: reject.reason for name, reject in rejects.items()} == {
        "more": "path-outside",
        "metadata.jsonl": "path-outside",
    }


def test_the_links_of_the_hub_cache_are_the_data_sets_own(tmp_path, read):
    repository = tmp_path / "datasets--me--photos"
    blob = picture(repository / "blobs/0123", format="PNG")
    snapshot = repository / "snapshots/abc"
    snapshot.mkdir(parents=True)
    (snapshot / "a.png").symlink_to(blob)
    (snapshot / "b.png").symlink_to(picture(tmp_path / "secret.png"))
    records, rejects = read(snapshot)
    assert list(records) == ["a.png"]
    assert {name: reject.reason for name, reject in rejects.items()} == {"b.png": "path-outside"}


def test_a_data_set_as_the_hub_keeps_it(tmp_path, read):
    import pyarrow
    import pyarrow.parquet

    content = picture(tmp_path / "x.png").read_bytes()
    (tmp_path / "in/data").mkdir(parents=True)
    for part in range(2):
        table = pyarrow.table({"image": [{"bytes": content, "path": "x.png"}], "text": [f"Part {part}."]})
        pyarrow.parquet.write_table(table, tmp_path / f"in/data/train-{part:05}-of-00002.parquet")
    records, rejects = read(tmp_path / "in")
    assert [record.reference for record in records.values()] == ["Part 0.", "Part 1."]
    assert not rejects


def test_what_is_not_read_is_said_once(tmp_path, read):
    folder = tmp_path / "in"
    for index in range(3):
        picture(folder / f"{index}.png")
    (folder / "phone.heic").write_bytes(b"x")
    (folder / "captions.csv").write_text("a,b\n")
    metadata(folder, *({"file_name": f"{index}.png", "titel": "x", "text": "A cup."} for index in range(3)))
    with pytest.warns(UserWarning, match="not read") as said:
        records, _ = read(folder)
    assert len(records) == 3
    [warning] = said
    text = str(warning.message)
    assert "field `titel` (3)" in text
    assert ".heic images (1)" in text
    assert "file captions.csv (captions are read from metadata.csv) (1)" in text


@pytest.mark.parametrize("options", [{"format": "PNG"}, {"format": "JPEG", "quality": 80}, {"format": "WEBP"}])
def test_the_quick_check_of_an_image_finds_what_opening_it_finds(tmp_path, options):
    from veridical.vlm.images.files import ImageError, check_image, open_image

    whole = picture(tmp_path / "x", size=(200, 160), **options).read_bytes()

    def fault(function, path):
        try:
            function(path)
        except ImageError as error:
            return error.reason
        return None

    for place in (len(whole), *range(1, len(whole), len(whole) // 15)):
        path = tmp_path / f"{place}"
        path.write_bytes(whole[:place])
        assert fault(check_image, path) == fault(open_image, path), place


def test_files_are_checked_side_by_side_and_come_in_order():
    import threading
    from functools import partial

    from veridical.formats.parallel import in_order

    both = threading.Barrier(2, timeout=20)
    begun = []

    def work(number):
        begun.append(number)
        if number < 2:
            both.wait()
        return number

    found = in_order((partial(work, number) for number in range(1000)), workers=2)
    assert [next(found) for _ in range(5)] == [0, 1, 2, 3, 4]
    found.close()
    assert len(begun) < 20


@pytest.mark.parametrize("content", [
    [{"type": "image"}, {"type": "text", "text": "How many cups?"}],
    [{"type": "text", "text": "How many "}, {"type": "text", "text": "cups?"}],
    "How many cups?",
])  # fmt: skip
def test_a_prompt_of_content_parts_is_read_as_its_text(tmp_path, content):
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    row = {"image": "a.png", "prompt": [{"role": "user", "content": content}]}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    (record,) = read_records(str(tmp_path / "rows.jsonl"), tmp_path / "work")
    assert record.prompt == (Message("user", "How many cups?"),)


@pytest.mark.parametrize("content", [[{"type": "video"}], [{"type": "text", "text": 3}], [], [7]])
def test_parts_that_are_no_text_are_refused(tmp_path, content):
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    row = {"image": "a.png", "prompt": [{"role": "user", "content": content}]}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    (found,) = read_records(str(tmp_path / "rows.jsonl"), tmp_path / "work")
    assert found.reason == "bad-prompt"


def test_files_that_are_none_and_names_that_are_not_utf8_are_named(tmp_path, read):
    folder = tmp_path / "photos"
    picture(folder / "good.png")
    os.mkfifo(folder / "pipe.png")
    (folder / "gone.png").symlink_to("nowhere.png")
    with contextlib.suppress(OSError):  # some file systems take UTF-8 names only
        (folder / os.fsdecode(b"caf\xe9.png")).write_bytes((folder / "good.png").read_bytes())
    records, rejects = read(folder)
    assert set(records) == {"good.png"}
    reasons = {name: reject.reason for name, reject in rejects.items()}
    latin = {name: reason for name, reason in reasons.items() if name.startswith("caf")}
    assert {"pipe.png": "not-a-file", "gone.png": "broken-link", **latin} == reasons
    assert set(latin.values()) <= {"not-unicode"}


@pytest.mark.parametrize(
    ("image", "reason", "remedy"),
    [
        ("https://example.org/a.png", "missing-image", "download"),
        ("a" * 5000 + ".png", "missing-image", "restore"),
        ("data:image/svg+xml;utf8,<svg/>", "bad-image-field", "name the image's file"),
        ("loop.png", "missing-image", "restore"),
        ("pipe.png", "missing-image", "restore"),
    ],
)
def test_images_that_are_no_files_are_missing(tmp_path, read, image, reason, remedy):
    (tmp_path / "loop.png").symlink_to("loop.png")
    os.mkfifo(tmp_path / "pipe.png")
    source = tmp_path / "rows.jsonl"
    source.write_text(json.dumps({"id": "r1", "image": image}) + "\n")
    _, rejects = read(source)
    assert rejects["r1"].reason == reason
    assert remedy in rejects["r1"].remedy
