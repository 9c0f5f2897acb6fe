"""Pairs from somebody else: no file outside their folder is read, damage is noticed, TRL's files are imported."""

import json
import os
import warnings
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from veridical import PairSet
from veridical.errors import DataWarning, UserError
from veridical.pairs.dataset import read_pairs, to_trl, write_shard
from veridical.pairs.export import ExportConfig, run
from veridical.pairs.joined import joined_manifest
from veridical.pairs.opening import check_source, pairs_folder
from veridical.records import ImageFile, Message, Pair, Provenance


def pair(picture: Path, name: str) -> Pair:
    made = Provenance("bdhs", "guided", {}, 0, "m")
    return Pair(name, name, (ImageFile(picture, "0"),), (Message("user", "What?"),), "A cup.", "A fork.", made)


@pytest.fixture
def folder(tmp_path):
    """A finished build of two shards."""
    Image.new("RGB", (20, 10), "red").save(tmp_path / "a.png")
    shards = [
        {"file": f"pairs/{name}.parquet", "sha256": write_shard([pair(tmp_path / "a.png", name)], tmp_path / "o", name)}
        for name in ("00000", "00001")
    ]
    (tmp_path / "o" / "manifest.json").write_text(json.dumps({"shards": shards}))
    return tmp_path / "o"


def edit(folder: Path, **columns) -> None:
    """Change columns of the first shard's row; the folder is then one without a manifest."""
    shard = folder / "pairs" / "00000.parquet"
    table = pyarrow.parquet.read_table(shard)
    row = {**table.to_pylist()[0], **columns}
    kept = {name: value for name, value in row.items() if value is not ...}
    schema = table.schema if kept.keys() == row.keys() and "prompt" not in columns else None
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([kept], schema=schema), shard)
    (folder / "manifest.json").unlink()


def test_a_report_shows_pairs_of_any_file(folder, tmp_path):
    from veridical.pairs.export import export
    from veridical.report.command import ReportConfig
    from veridical.report.command import run as report

    file = export(folder, tmp_path / "swift.jsonl", "ms-swift").path
    page = report(ReportConfig((file,), tmp_path / "report.html")).read_text()
    assert "2 pairs by <em>ms-swift</em>" in page


def test_a_whole_folder_is_read(folder):
    (folder / "pairs" / ".00002.parquet.1-1.partial").write_bytes(b"half")
    (folder / "pairs" / ".partial-00002.parquet").write_bytes(b"half")
    assert [one.id for one in read_pairs(folder)] == ["00000", "00001"]


@pytest.mark.parametrize("name", ["/etc/passwd", "../secret.png", "images/link.png"])
@pytest.mark.parametrize("column", ["images", "rejected_images"])
def test_no_file_outside_the_folder_is_opened(folder, name, column):
    Image.new("RGB", (20, 10)).save(folder.parent / "secret.png")
    (folder / "images" / "link.png").symlink_to(folder.parent / "secret.png")
    edit(folder, **{column: [{"bytes": None, "path": name}], column.removesuffix("s") + "_sha256": ["0"]})
    for read in (read_pairs, to_trl, lambda at: run(ExportConfig(at, at.parent / "x.parquet"))):
        with pytest.raises(UserError, match=r"00000\.parquet, row 0 \(00000\): .*leads out"):
            read(folder)


def test_pairs_that_nothing_vouches_for_are_used_with_a_word(folder):
    (folder / "manifest.json").unlink()
    with pytest.warns(DataWarning, match=r"has no manifest\.json, so nothing says whether its pairs are whole"):
        assert len(PairSet.load(folder)) == 2
    PairSet.load(folder).save(folder.parent / "saved")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(PairSet.load(folder.parent / "saved")) == 2
    flip = folder.parent / "saved" / "pairs" / "00000.parquet"
    flip.write_bytes(flip.read_bytes().replace(b"A cup.", b"A cat."))
    with pytest.raises(UserError, match="is damaged or was altered"):
        PairSet.load(folder.parent / "saved")


def test_a_shard_that_was_altered_is_not_used(folder):
    shard = folder / "pairs" / "00001.parquet"
    shard.write_bytes(shard.read_bytes().replace(b"A cup.", b"A cat."))
    with pytest.raises(UserError, match=r"00001\.parquet is damaged or was altered"):
        read_pairs(folder)


@pytest.mark.parametrize("content", ["{", "[]", "[" * 5000, "\0"])
def test_a_manifest_that_is_damaged_is_named_by_all_that_read_it(folder, content):
    (folder / "manifest.json").write_text(content)
    for use in (read_pairs, joined_manifest, lambda path: run(ExportConfig(path, path.parent / "x.jsonl"))):
        with pytest.raises(UserError, match=r"manifest\.json: damaged"):
            use(folder)


def test_a_shard_that_is_gone_or_came_along_is_noticed(folder):
    shard = folder / "pairs" / "00001.parquet"
    shard.rename(folder / "pairs" / "00002.parquet")
    with pytest.raises(UserError, match=r"00001\.parquet is missing"):
        read_pairs(folder)
    (folder / "pairs" / "00001.parquet").write_bytes((folder / "pairs" / "00002.parquet").read_bytes())
    with pytest.raises(UserError, match=r"00002\.parquet is none of the shards"):
        read_pairs(folder)


@pytest.mark.parametrize(
    "columns",
    [
        {"chosen_source": ...},
        {"image_sha256": []},
        {"chosen": None},
        {"chosen": [{"role": "assistant", "content": None}]},
        {"prompt": "a text"},
        {"parameters": "{"},
        {"images": None},
        {"id": None},
        {"seed": None},
        {"parameters": "[1]"},
        {"prompt": [{"role": "user", "content": None}]},
    ],
)
def test_a_row_that_is_no_pair_is_named(folder, columns):
    edit(folder, **columns)
    with pytest.raises(UserError, match=r"00000\.parquet, row 0: no pair as veridical writes them"):
        read_pairs(folder)


@pytest.mark.parametrize("name", ["pipe.png", "giant.png"])
def test_pipes_and_sparse_giants_are_no_images(folder, name):
    os.mkfifo(folder / "images" / "pipe.png")
    (folder / "images" / "giant.png").touch()
    os.truncate(folder / "images" / "giant.png", 2**42)
    edit(folder, images=[{"bytes": None, "path": f"images/{name}"}], image_sha256=["0"])
    with pytest.raises(UserError, match=r"is a device or a pipe|has 4398046511104 bytes"):
        run(ExportConfig(folder, folder.parent / "x.parquet"))
    assert not (folder.parent / "x.parquet").exists()


def test_bytes_that_flipped_are_told_in_a_sentence(folder):
    shard = folder / "pairs" / "00000.parquet"
    content = bytearray(shard.read_bytes())
    for place in range(8, len(content), 40):
        content[place] ^= 255
    shard.write_bytes(content)
    (folder / "manifest.json").unlink()
    with pytest.raises(UserError, match="damaged"):
        read_pairs(folder)


def test_trls_columns_alone_are_imported(tmp_path):
    Image.new("RGB", (20, 10), "red").save(tmp_path / "a.png")
    said = {name: [{"role": "assistant", "content": text}] for name, text in (("chosen", "A."), ("rejected", "B."))}
    image = {"bytes": (tmp_path / "a.png").read_bytes(), "path": "a.png"}
    row = {"images": [image], "prompt": [{"role": "user", "content": "Describe it."}], **said}
    (tmp_path / "in" / "pairs").mkdir(parents=True)
    for file in (tmp_path / "in" / "pairs" / "0.parquet", tmp_path / "file.parquet"):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), file)
    for source in (tmp_path / "in", tmp_path / "file.parquet"):
        [found] = read_pairs(pairs_folder(source, tmp_path / "work"))
        assert (found.prompt, found.chosen, found.rejected) == ((Message("user", "Describe it."),), "A.", "B.")
        assert [one.chosen for one in PairSet.load(source)] == ["A."]


def test_where_no_pairs_can_be_is_refused(tmp_path):
    (tmp_path / "unfinished" / ".work").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    for name, why in (("unfinished", "unfinished build"), ("empty", "no pairs"), ("gone", "no such file")):
        with pytest.raises(UserError, match=why):
            check_source(tmp_path / name)
