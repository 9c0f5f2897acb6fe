"""Files as people have them: marks and encodings, one bad row in the middle, folders of shards, paths of other
machines, images in every shape, and what real sets add to their formats. Every row is used or listed."""

import base64
import csv
import gzip
import io
import json

import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from veridical.errors import DataWarning, UserError
from veridical.formats.published.catalogue import read_published, recognise
from veridical.formats.sources import read_records
from veridical.pairs.dataset import read_pairs
from veridical.pairs.importing import ImportConfig, import_published, run
from veridical.pairset import PairSet

FLAT = {"question": "What is it?", "chosen": "A cup.", "rejected": "A cat.", "image": "a.jpg"}


def jpeg(side: int = 64) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), (200, 90, side)).save(buffer, "JPEG")
    return buffer.getvalue()


def lines(*rows: object) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


@pytest.fixture
def imported(tmp_path):
    """Writes files, imports one of them (or the folder), and gives the pairs, the rejects by id, and the counts."""

    def make(files: dict[str, bytes], source: str = "", *, roots=(), aspect="mean", images=("a.jpg",)):
        folder = tmp_path / "in"
        for name, content in {**dict.fromkeys(images, jpeg()), **files}.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        config = ImportConfig((str(folder / source),), tmp_path / "out", roots, aspect)
        manifest = import_published(config)
        rejects = (tmp_path / "out" / "rejects.jsonl").read_text().splitlines()
        pairs = read_pairs(tmp_path / "out") if manifest["pairs_out"] else []
        return pairs, {one["id"]: one for one in map(json.loads, rejects)}, manifest["import"]

    return make


ROWS = [FLAT | {"id": 1}, FLAT | {"id": 2, "chosen": "A mug."}]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.json", lines(*ROWS)),
        ("rows.jsonl", json.dumps(ROWS).encode()),
        ("rows.json", b"\xef\xbb\xbf" + json.dumps(ROWS, indent=1).encode()),
        ("rows.jsonl", b"\xef\xbb\xbf" + lines(*ROWS).replace(b"\n", b"\r\n")),
        ("rows.json", json.dumps({"data": ROWS}).encode()),
        ("rows.json.gz", gzip.compress(json.dumps(ROWS).encode())),
        ("rows.json", json.dumps(ROWS)[:-1].encode() + b",]"),
    ],
    ids=["lines in .json", "array in .jsonl", "mark", "mark and CRLF", "wrapped", "gz", "last comma"],
)
def test_rows_by_whichever_wrapping(imported, name, content):
    pairs, rejects, _ = imported({name: content}, name)
    assert [(pair.id, pair.chosen) for pair in pairs] == [("mmpr/1", "A cup."), ("mmpr/2", "A mug.")]
    assert not rejects


def test_one_bad_row_in_a_json_array_is_one_row(imported):
    content = json.dumps([FLAT, "BAD", FLAT, FLAT]).replace('"BAD"', '{"question": }').encode()
    pairs, rejects, read = imported({"rows.json": content}, "rows.json")
    assert len(pairs) == 3
    assert {name: one["reason"] for name, one in rejects.items()} == {"rows.json:2": "not-json"}
    assert read["rows"] == 4


def test_half_a_character_in_what_a_set_says_of_a_row_rejects_that_row(imported):
    """RLAIF-V says of each row where it comes from, and that is kept with the pair."""
    text = json.dumps({"question": "What?", "chosen": "A cup.", "rejected": "A fork."})
    rows = [
        {"idx": n, "image": "a.jpg", "origin_dataset": origin, "text": text} for n, origin in enumerate(["x", "\ud800"])
    ]
    pairs, rejects, _ = imported({"rows.json": json.dumps(rows).encode()}, "rows.json")
    assert [pair.provenance.parameters["origin_dataset"] for pair in pairs] == ["x"]
    assert [one["detail"].partition(" (")[0] for one in rejects.values()] == ["a text holds half of a character"]


def test_half_a_character_and_a_number_that_is_none(imported):
    row = FLAT | {"chosen_score": 1.0, "rejected_score": float("nan")}
    pairs, rejects, _ = imported({"rows.json": json.dumps([row, FLAT | {"chosen": "A \ud800."}]).encode()}, "rows.json")
    assert [pair.weights for pair in pairs] == [(1.0, 1.0)]
    assert rejects["rows.json:2"]["detail"] == "a text holds half of a character"


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("rows.jsonl", json.dumps(FLAT).encode("utf-16"), "UTF-16"),
        ("rows.jsonl", b"nonsense\n", "none of its first 1 rows can be read: Expecting value"),
        ("rows.jsonl", b"", "has no rows"),
        ("rows.jsonl.gz", gzip.compress(lines(*ROWS) * 500)[:-30], "can't be read"),
        ("rows.json", b'[{"question": "What', "not valid JSON"),
        ("rows.jsonl", lines({"frage": "Was?", "antwort": "Ja."}), "antwort, frage; rename these"),
        ("rows.jsonl", lines({"completions": {"annotations": [{}], "model": ["m", "n"]}}), "completions"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(imported, name, content, says):
    with pytest.raises(UserError, match=says):
        imported({name: content}, name)


def test_a_row_that_is_left_out_is_named_with_its_file(imported):
    rows = [FLAT | {"id": 5}, FLAT | {"id": 6, "image": "gone.jpg"}]
    _, rejects, _ = imported({"train/rows.jsonl": lines(*rows), "test/rows.jsonl": lines(rows[0])})
    assert rejects["6"]["detail"].endswith("(train/rows.jsonl:2)")


def test_one_row_of_lists_alone_in_a_json_file(imported):
    said = {name: [{"role": "assistant", "content": text}] for name, text in (("chosen", "A."), ("rejected", "B."))}
    row = {"prompt": [{"role": "user", "content": "What?"}], "images": ["a.jpg"], **said}
    [pair], _, read = imported({"r.json": json.dumps(row).encode()}, "r.json")
    assert (read["format"], pair.chosen) == ("trl", "A.")


def test_the_first_row_decides_nothing_where_it_is_damaged(imported):
    pairs, rejects, _ = imported({"rows.jsonl": lines(FLAT | {"chosen": None}, FLAT)}, "rows.jsonl")
    assert len(pairs) == 1
    assert rejects["rows.jsonl:1"]["reason"] == "missing-field"


def test_rows_with_one_id_all_stay_and_belong_together(imported):
    rows = [FLAT | {"id": 7}, FLAT | {"id": "7", "chosen": "B."}, FLAT | {"id": 7, "chosen": "C."}]
    pairs, _, read = imported({"rows.jsonl": lines(*rows)}, "rows.jsonl")
    assert [pair.id for pair in pairs] == ["mmpr/7", "mmpr/7#2", "mmpr/7#3"]
    assert {pair.record_id for pair in pairs} == {"7"}
    assert read["repeated_ids"] == 2


def test_shards_of_one_name_in_several_folders_and_their_own_images(tmp_path, capsys):
    for part, side in (("train", 64), ("test", 80)):
        (tmp_path / "in" / part).mkdir(parents=True)
        (tmp_path / "in" / part / "a.jpg").write_bytes(jpeg(side))
        (tmp_path / "in" / part / "part-0.jsonl").write_bytes(lines(FLAT | {"chosen": part}))
    (tmp_path / "in" / "dataset_infos.json").write_text('{"default": {"description": ""}}')
    run(ImportConfig((str(tmp_path / "in"),), tmp_path / "out"))
    sizes = {pair.chosen: Image.open(pair.images[0].path).width for pair in read_pairs(tmp_path / "out")}
    assert sizes == {"train": 64, "test": 80}
    assert "out of 2 files: test/part-0.jsonl (1), train/part-0.jsonl (1)" in capsys.readouterr().out


def test_all_parts_that_datasets_saved_are_read_and_named(tmp_path):
    import datasets

    rows = [FLAT | {"image": {"bytes": jpeg(), "path": None}}]
    parts = {name: datasets.Dataset.from_list(rows) for name in ("train", "test")}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "in")
    manifest = import_published(ImportConfig((str(tmp_path / "in"),), tmp_path / "out"))
    assert (manifest["pairs_out"], set(manifest["import"]["files"].values())) == (2, {1})


@pytest.mark.parametrize("kind", ["tsv", "csv"])
@pytest.mark.parametrize("side", [16, 200])
def test_base64_images_and_cells_of_many_lines(imported, kind, side):
    buffer = io.StringIO()
    table = csv.writer(buffer, delimiter="\t" if kind == "tsv" else ",")
    table.writerow(["ds_name", "idx", "image", "text", "origin_split"])
    text = {"question": 'What\nis "it"?', "chosen": "A\ncup.", "rejected": "A cat."}
    split = base64.b64encode(b'{"model": "muffin"}').decode()
    table.writerow(["RLHF-V", 5, base64.b64encode(jpeg(side)).decode(), json.dumps(text, indent=1), split])
    [pair], _, read = imported({f"rows.{kind}": buffer.getvalue().encode()}, f"rows.{kind}")
    assert (pair.id, pair.prompt[0].text, pair.chosen) == ("rlhf-v/5", 'What\nis "it"?', "A\ncup.")
    assert Image.open(pair.images[0].path).width == side
    assert (read["format"], pair.provenance.judge) == ("rlhf-v", "people")
    assert pair.provenance.parameters["origin_split"] == {"model": "muffin"}


def test_a_tsv_whose_quotes_mean_nothing(imported):
    rows = [
        "question\tchosen\trejected\timage", 'What?\tHe said "hi"\t"Stop" signs\ta.jpg', '"Unclosed\tA\tB\ta.jpg',
        "Who?\tA\tB\ta.jpg", "More?\tA\tB\ta.jpg\tagain", "Less?\tA",
    ]  # fmt: skip
    pairs, rejects, _ = imported({"rows.tsv": "\r\n".join(rows).encode()}, "rows.tsv")
    assert [pair.prompt[0].text for pair in pairs] == ["What?", '"Unclosed', "Who?"]
    assert pairs[0].rejected == '"Stop" signs'
    assert [one["reason"] for one in rejects.values()] == ["bad-csv", "bad-csv"]


@pytest.mark.parametrize("shape", [
    "a.jpg", "./a.jpg", ["a.jpg"], '["a.jpg"]', {"path": "a.jpg", "bytes": None}, [{"path": "a.jpg"}],
    {"bytes": base64.b64encode(jpeg()).decode(), "path": "elsewhere.jpg"}, base64.b64encode(jpeg()).decode(),
    base64.encodebytes(jpeg()).decode(), "data:image/jpeg;base64," + base64.b64encode(jpeg()).decode(),
    "/home/somebody/data/a.jpg", "..\\somebody\\a.jpg",
], ids=lambda shape: str(shape)[:24])  # fmt: skip
def test_an_image_in_every_shape(imported, shape):
    [pair], _, _ = imported({"rows.jsonl": lines(FLAT | {"image": shape})}, "rows.jsonl")
    assert Image.open(pair.images[0].path).size == (64, 64)


def test_paths_of_another_machine_end_below_the_root(imported):
    files = {"rows.jsonl": lines(FLAT | {"image": "/home/u/coco/train2017/x/0001.jpg"})}
    [pair], _, _ = imported({"train2017/x/0001.jpg": jpeg(), **files}, "rows.jsonl")
    assert pair.images


def test_an_image_of_the_same_name_in_another_folder_is_another_image(imported):
    rows = lines(FLAT | {"image": "wikiart/1.jpg"}, FLAT | {"image": "coco/000000000042.jpg"})
    pairs, rejects, _ = imported(
        {"images/1.jpg": jpeg(), "train2017/000000000042.jpg": jpeg(), "r.jsonl": rows}, "r.jsonl"
    )
    assert [pair.id for pair in pairs] == ["mmpr/r.jsonl:2"]
    assert rejects["r.jsonl:1"]["detail"].startswith("no file wikiart/1.jpg below")


def test_rows_without_an_image_are_counted_and_said(tmp_path, capsys):
    (tmp_path / "rows.jsonl").write_bytes(lines({**FLAT, "image": None, "img": "a.jpg", "origin_dataset": "x"}))
    run(ImportConfig((str(tmp_path / "rows.jsonl"),), tmp_path / "out"))
    said = capsys.readouterr().out
    assert "1 rows name no image" in said
    assert "not read: img (1)" in said


SHAREGPT = {"conversations": [{"from": "human", "value": "What?"}], "chosen": {"from": "gpt", "value": "A."},
            "rejected": {"from": "gpt", "value": "B."}}  # fmt: skip


@pytest.mark.parametrize("field", ["video", "videos", "audios"])
def test_what_is_about_a_film_or_a_sound_is_not_taken_for_text(imported, field):
    pairs, rejects, _ = imported({"r.jsonl": lines(SHAREGPT | {field: ["a.mp4"]}, SHAREGPT | {field: []})}, "r.jsonl")
    assert len(pairs) == 1
    assert rejects["r.jsonl:1"]["reason"] in ("video", "audio")


def test_conversations_and_images_written_as_json_in_cells(imported):
    table = {name: [json.dumps(value)] for name, value in SHAREGPT.items() if name == "conversations"}
    table |= {"chosen": [SHAREGPT["chosen"]], "rejected": [SHAREGPT["rejected"]], "images": ['["a.jpg"]']}
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(table), buffer)
    [pair], _, _ = imported({"r.parquet": buffer.getvalue()}, "r.parquet")
    assert (pair.prompt[0].text, len(pair.images)) == ("What?", 1)


@pytest.mark.parametrize("text", [
    {"question": "Q?", "chosen": "A.", "rejected": "B."},
    json.dumps(json.dumps({"question": "Q?", "chosen": "A.", "rejected": "B."})),
])  # fmt: skip
def test_rlhf_v_with_its_text_parsed_or_written_twice(imported, text):
    [pair], _, read = imported({"r.jsonl": lines({"text": text, "image": "a.jpg", "idx": 1})}, "r.jsonl")
    assert (read["format"], pair.prompt[0].text, pair.chosen) == ("rlhf-v", "Q?", "A.")


def test_a_text_of_a_parquet_file_that_is_none_costs_its_row(imported):
    texts = pyarrow.array([b"A \xff.", b"A cup."], pyarrow.binary())
    texts = pyarrow.Array.from_buffers(pyarrow.string(), 2, texts.buffers())
    rest = {name: [FLAT[name]] * 2 for name in ("question", "rejected", "image")}
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(rest | {"chosen": texts}), buffer)
    pairs, rejects, _ = imported({"r.parquet": buffer.getvalue()}, "r.parquet")
    assert len(pairs) == 1
    assert rejects["r.parquet:1"]["reason"] == "bad-value"


def turns(*texts: str) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[n % 2], "value": text} for n, text in enumerate(texts)]


def test_povid_with_several_answers_that_differ_is_a_pair_for_each(imported):
    row = {"id": 3, "image": "a.jpg", "conversations": turns("<image>\nOne?", "A1.", "Two?", "A2."),
           "rejected_conversations": turns("One?", "B1.", "Two?", "B2.")}  # fmt: skip
    pairs, _, _ = imported({"r.json": json.dumps([row]).encode()}, "r.json")
    assert [(pair.id, pair.chosen, pair.rejected) for pair in pairs] == [
        ("povid/3/1", "A1.", "B1."), ("povid/3/2", "A2.", "B2."),
    ]  # fmt: skip
    assert [turn.text for turn in pairs[1].prompt] == ["One?", "A1.", "Two?"]
    assert {pair.record_id for pair in pairs} == {"3"}


def test_povid_and_csr_with_other_questions_or_a_templates_words(imported):
    asked = {"id": "1", "image": "a.jpg", "conversations": turns("USER: <image>\nWhat is it? ASSISTANT:", "A."),
             "rejected_conversations": turns("<image>\nWhat is it?", "B.")}  # fmt: skip
    other = asked | {"id": "2", "rejected_conversations": turns("<image>\nWho is it?", "B.")}
    [pair], rejects, _ = imported({"r.json": json.dumps([asked, other]).encode()}, "r.json")
    assert pair.prompt[0].text == "What is it?"
    assert rejects["r.json:2"]["reason"] == "other-questions"


def test_mdpo_prompts_of_several_turns(imported):
    row = {"img_path": "a.jpg", "chosen": "A.", "rejected": "B.",
           "prompt": "A chat. USER: <image>\nOne? ASSISTANT: Yes.</s>USER: Two? ASSISTANT:"}  # fmt: skip
    [pair], _, _ = imported({"r.json": json.dumps([row]).encode()}, "r.json")
    assert [(turn.role, turn.text) for turn in pair.prompt] == [
        ("user", "One?"), ("assistant", "Yes."), ("user", "Two?"),
    ]  # fmt: skip


def test_ms_swift_in_queries_and_responses(imported):
    row = {"query": "<image>What?", "response": "A.", "rejected_response": "B.", "images": ["a.jpg"],
           "history": [["Hello.", "Hi."]], "system": "You see."}  # fmt: skip
    [pair], _, read = imported({"r.jsonl": lines(row)}, "r.jsonl")
    assert read["format"] == "ms-swift"
    assert [turn.text for turn in pair.prompt] == ["You see.", "Hello.", "Hi.", "What?"]


def test_trl_with_sides_that_repeat_the_prompt_and_images_in_its_messages(imported):
    asked = {"role": "user", "content": [{"type": "image", "image": "a.jpg"}, {"type": "text", "text": "What?"}]}
    sides = {
        name: [asked, {"role": "assistant", "content": text}] for name, text in (("chosen", "A."), ("rejected", "B."))
    }
    [pair], _, _ = imported({"r.jsonl": lines({"prompt": [asked], **sides})}, "r.jsonl")
    assert (pair.prompt[0].text, pair.chosen, len(pair.images)) == ("What?", "A.", 1)


def test_sentinel_by_image(imported):
    rows = [{"question": "What?", "context": context, "y_win": "A.", "y_lose": lost, "type": "y+"}
            for context, lost in ((None, "B."), ("It is.", "B."), (None, None))]  # fmt: skip
    pairs, rejects, _ = imported({"r.json": json.dumps({"/data/coco/a.jpg": rows}).encode()}, "r.json")
    assert [(pair.context, len(pair.images)) for pair in pairs] == [("", 1), ("It is.", 1)]
    assert [one["reason"] for one in rejects.values()] == ["missing-field"]


def test_safe_rlhf_v_by_help_or_by_safety_with_who_answered(imported):
    row = {
        "question": "Q?", "image": "a.jpg", "response_1": "One.", "response_2": "Two.", "response_1_from": "m1",
        "response_2_from": "m2", "more_helpful_response_id": 2, "safer_response_id": 1, "image_severity": 3,
    }  # fmt: skip
    [pair], _, read = imported({"r.jsonl": lines(row)}, "r.jsonl", aspect="safer_response_id")
    assert (pair.chosen, pair.provenance.chosen_source, pair.provenance.rejected_source) == ("One.", "m1", "m2")
    assert not read["unknown_fields"]


def test_vlfeedback_with_other_aspects_is_refused_not_dropped(imported):
    answers = [{"annotations": {"Taste": {"Rating": rating}}, "model": "m", "response": rating} for rating in "12"]
    row = {"id": "svit-1", "prompt": "Q?", "img_path": "a.jpg", "completions": answers}
    _, rejects, _ = imported({"r.jsonl": lines(row)}, "r.jsonl")
    assert rejects["r.jsonl:1"]["remedy"].endswith("those: Taste")


def test_vlfeedback_pairs_of_one_row_belong_together(imported):
    answers = [{"annotations": {"Taste": {"Rating": rating}}, "model": "m", "response": rating} for rating in "1234"]
    row = {"id": "svit-1", "prompt": "Q?", "img_path": "a.jpg", "completions": answers}
    pairs, _, _ = imported({"r.jsonl": lines(row)}, "r.jsonl", aspect="Taste")
    assert (len(pairs), {pair.record_id for pair in pairs}) == (6, {"svit-1"})
    assert pairs[0].provenance.parameters["dataset"] == "svit"


def test_flat_rows_of_no_known_set_are_not_said_to_be_of_one(imported):
    row = {"prompt": "<image>What?", "image": "a.jpg", "chosen": "A.", "rejected": "B."}
    [pair], _, read = imported({"r.jsonl": lines(row)}, "r.jsonl")
    assert (read["format"], pair.provenance.judge, pair.prompt[0].text) == ("trl", "", "What?")


def test_ha_dpo_with_all_its_files(imported):
    said = {"chosen": ["A."], "rejected": ["B."]}
    asked = {"image_id": 7, "question": "Is it?", "chosen": "No.", "reject": "Yes.", "correct": False}
    files = {
        "llava-v1.5/desc_data.json": json.dumps({"7": said}).encode(),
        "minigpt4/desc_data.json": json.dumps([{"image_id": 7} | said]).encode(),
        "llava-v1.5/pope_data.json": json.dumps([asked]).encode(),
        "minigpt4/pope_data.json": json.dumps([{k: v for k, v in asked.items() if k != "correct"}]).encode(),
        "x/pope_data.json": json.dumps(
            [{"image_id": 7, "question": "Is it?", "answer": "no", "chosen": "No.", "rejected": "Yes."}]
        ).encode(),
    }
    pairs, rejects, _ = imported(files, images=("VG_100K/7.jpg",))
    assert (len(pairs), {pair.record_id for pair in pairs}) == (5, {"7"})
    assert not rejects


@pytest.mark.parametrize(
    "annotation", ["annotations/p.jsonl", "MMPR-v1.1/annotations/p.jsonl", "/data/MMPR/annotations/p.jsonl"]
)
def test_mmpr_with_the_paths_and_the_last_comma_of_its_repository(imported, annotation):
    meta = f'{{"part": {{"root": "images/s", "annotation": "{annotation}", "repeat_time": 1,}},}}'
    row = {"image": "a.jpg", "question": "<image>\nWhat?", "chosen": "A.", "rejected": "B."}
    files = {"m/meta.json": meta.encode(), "m/annotations/p.jsonl": lines(row)}
    [pair], _, _ = imported(files, "m", images=("m/images/s/a.jpg",))
    assert pair.provenance.parameters == {"part": "part"}


@pytest.mark.parametrize("annotation", ["../secret.jsonl", "/etc/passwd", "link.jsonl", "annotations.zip"])
def test_mmpr_reads_no_part_outside_its_folder(imported, tmp_path, annotation):
    meta = json.dumps({"part": {"root": "", "annotation": annotation}}).encode()
    (tmp_path / "in" / "m").mkdir(parents=True)
    (tmp_path / "in" / "m" / "link.jsonl").symlink_to(tmp_path / "in" / "secret.jsonl")
    with pytest.raises(UserError, match="there is no"):
        imported({"m/meta.json": meta, "secret.jsonl": lines(FLAT)}, "m")


COCO = {
    "images": [{"id": 5, "file_name": "a.jpg", "width": 64, "height": 64}, {"id": 6}],
    "annotations": [
        {"image_id": 5, "category_id": 1, "bbox": [-5, 1, 100, 10]}, {"image_id": 5, "category_id": 99},
        {"image_id": 77, "category_id": 1}, {"category_id": 1},
    ],
    "categories": [{"id": 1, "name": "cup"}],
}  # fmt: skip


def test_coco_lists_what_it_cannot_place(tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg())
    for name, content in (("annotations/instances.json", COCO), ("annotations/notes.json", [{"x": 1}])):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_text(json.dumps(content))
    import_published(ImportConfig((str(tmp_path / "in"),), tmp_path / "out", (tmp_path,)))
    (record,) = map(json.loads, (tmp_path / "out" / "metadata.jsonl").read_text().splitlines())
    assert record["objects"] == [{"name": "cup", "box": [0.0, 1 / 64, 1.0, 11 / 64], "attributes": []}]
    rejects = [json.loads(line) for line in (tmp_path / "out" / "rejects.jsonl").read_text().splitlines()]
    assert sorted(one["reason"] for one in rejects) == [
        "another-format", "no-such-category", "no-such-image", "not-of-the-format", "not-of-the-format",
    ]  # fmt: skip


def test_visual_genome_rows_stand_alone_and_records_keep_their_ids_apart(tmp_path):
    for name in ("VG_100K/7.jpg", "VG_100K/8.jpg"):
        (tmp_path / "in" / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / "in" / name).write_bytes(jpeg())
    regions = [{"id": 7, "regions": [{"phrase": "a cup"}]}, None, {"id": 8, "regions": None}, {"id": 8, "regions": 3}]
    (tmp_path / "in" / "region_descriptions.json").write_text(json.dumps(regions))
    objects = [{"image_id": 7, "objects": [{"names": ["cup"], "x": 1, "y": 1, "w": 5, "h": 5}]}]
    (tmp_path / "in" / "objects.json").write_text(json.dumps(objects))
    assert recognise(tmp_path / "in") == "visual-genome"
    with pytest.warns(DataWarning, match=r"image_data\.json: isn't there, so boxes are left out"):
        manifest = import_published(ImportConfig((str(tmp_path / "in"),), tmp_path / "out"))
    assert (manifest["records_used"], sum(manifest["rejected"].values())) == (3, 2)
    ids = [json.loads(line)["id"] for line in (tmp_path / "out" / "metadata.jsonl").read_text().splitlines()]
    assert ids == ["7", "7#2", "8"]


def test_rows_in_memory_in_any_format():
    rows = [{**FLAT, "image": Image.new("RGB", (70, 70)), "idx": "3", "origin_dataset": "x"}] * 2 + [
        {**FLAT, "chosen": 1}
    ]
    found = PairSet.from_rows(rows)
    assert [pair.id for pair in found] == ["rlaif-v/3", "rlaif-v/3#2"]
    assert [one.reason for one in found.rejects] == ["bad-field"]
    with pytest.raises(UserError, match="none of the formats"):
        PairSet.from_rows([{"frage": 1}])
    with pytest.raises(UserError, match="none of 1 rows can be used as mmpr"):
        PairSet.from_rows([{**FLAT, "chosen": 1}], format="mmpr")


def test_a_file_is_read_in_one_reading(tmp_path):
    """A large array is not in memory: its first rows come before its end is read."""
    path = tmp_path / "rows.json"
    path.write_bytes(json.dumps([FLAT] * 5000).encode()[:-1])
    _, items = read_published(path, "mmpr")
    assert next(items).answers[0].text == "A cup."
    with pytest.raises(UserError, match="not valid JSON"):
        list(items)


@pytest.mark.parametrize("name", ["rows.json", "rows.tsv", "rows.jsonl.gz", "folder/rows.json"])
def test_records_are_not_read_from_what_is_to_be_imported(tmp_path, name):
    tabs = "\t".join(FLAT) + "\n" + "\t".join(FLAT.values())
    content = {"rows.tsv": tabs.encode(), "rows.jsonl.gz": gzip.compress(lines(FLAT))}.get(name, lines(FLAT))
    (tmp_path / "folder").mkdir()
    (tmp_path / name).write_bytes(content)
    source = tmp_path / name.split("/")[0]
    with pytest.raises(UserError, match=f"is in the format mmpr, .*data import mmpr {source}"):
        list(read_records(str(source), tmp_path / "work"))


def test_records_of_our_own_need_no_import(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(jpeg())
    config = ImportConfig((str(tmp_path / "photos"),), tmp_path / "out")
    with pytest.raises(UserError, match=r"needs no import: veridical build --records .*photos"):
        import_published(config)
    (tmp_path / "photos" / "metadata.jsonl").write_bytes(lines({"file_name": "a.jpg", "text": "A cup."}))
    with pytest.raises(UserError, match=r"need no import: veridical build --records .*photos"):
        import_published(config)


def test_records_are_no_pairs(tmp_path):
    (tmp_path / "llava.json").write_text(json.dumps([{"id": 1, "image": "a.jpg", "conversations": turns("Q?", "A.")}]))
    with pytest.raises(UserError, match=r"records of the format llava, .*data import .*llava\.json"):
        PairSet.load(tmp_path / "llava.json")


def test_an_import_into_its_own_source_is_refused(tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(lines(FLAT))
    with pytest.raises(UserError, match="give --out a folder elsewhere"):
        import_published(ImportConfig((str(tmp_path),), tmp_path / "out"))
