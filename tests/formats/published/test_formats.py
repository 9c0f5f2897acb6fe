"""Each published format, in the shape that its makers write it, with its traps: recognised, and read field by field."""

import base64
import gzip
import json
from itertools import pairwise

import pyarrow
import pyarrow.parquet
import pytest

from veridical.errors import DataWarning, UserError
from veridical.formats.published.catalogue import read_published, recognise, recognise_row
from veridical.formats.published.registry import FORMATS
from veridical.formats.published.types import Answer, Comparison, Example, ReadOptions
from veridical.records import Message, Rejection


def one(row, name=None, options=None):
    """What the one row of a format says."""
    found = list(FORMATS.get(name or recognise_row(row)).read(row, "file:1", options or ReadOptions()))
    assert len(found) == 1
    return found[0]


def user(text):
    return (Message("user", text),)


ROWS = {
    "rlhf-v": {
        "ds_name": "RLHF-V", "image": {"bytes": b"jpeg", "path": "a.jpg"}, "idx": 3, "origin_dataset": "LRV",
        "text": json.dumps({"question": "What is it?", "chosen": "A cup.", "rejected": "A cat.", "logps": [0.1]}),
        "origin_split": json.dumps({"model": "Muffin", "type": "question answering"}), "image_path": "x/a.jpg",
    },
    "rlaif-v": {
        "ds_name": "RLAIF-V", "image": {"bytes": b"jpeg", "path": "a.jpg"}, "question": "What is it?",
        "chosen": "A cup.", "rejected": "A cat.", "origin_dataset": "LCS-558K", "origin_split": '{"model": "LLaVA"}',
        "idx": "0", "image_path": "a.jpg",
    },
    "bpo": {
        "prompt": "What is on the desk?\n<image>", "image": "coco/train2017/000000000042.jpg",
        "completions": [
            {"score": 0, "response": "A radio.", "type": "llm-hal"},
            {"score": 1, "response": "A lamp.", "type": "gt"},
            {"score": 0, "response": "A clock.", "type": "mllm-hal"},
        ],
    },
    "povid": {
        "id": "COCO_train2014_000000000042", "image": "./data/coco/COCO_train2014_000000000042.jpg",
        "conversations": [{"from": "human", "value": "<image>\nDescribe it."}, {"from": "gpt", "value": "A cup."}],
        "rejected_conversations": [
            {"from": "human", "value": "<image>\nDescribe it."}, {"from": "gpt", "value": "A cat."},
        ],
    },
    "vlfeedback": {
        "id": "svit-7", "prompt": "What is shown?", "models": ["m1", "m2", "m3"], "img_path": "images/svit-7.jpg",
        "completions": [
            {"model": m, "response": text, "annotations": {
                aspect: {"Rating": rating, "Rationale": "because"}
                for aspect, rating in zip(
                    ("Helpfulness", "Ethical Considerations", "Visual Faithfulness"), ratings, strict=True
                )}}
            for m, text, ratings in (
                ("m1", "A cup.", "455"), ("m2", "A cat.", "152"), ("m3", "A dog.", ("N/A", "5", "5")),
            )
        ],
    },
    "llava-rlhf": {
        "id": "000000000042", "image": "000000000042.jpg", "hallucination": True, "preference": 2,
        "conversations": [
            {"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A thing."},
            {"from": "human", "value": "Which?"}, {"from": "gpt", "value": "to be replaced"},
        ],
        "output_1": {"from": "llava", "value": "A cat."}, "output_2": {"from": "llava", "value": "A cup."},
    },
    "mmpr": {"image": ["a.jpg", "b.jpg"], "question": "What differs between <image> and <image>?",
             "chosen": "The cup.", "rejected": "The cat.", "answer_gt": "cup"},
    "spa-vl": {"image": {"bytes": b"jpeg", "path": None}, "question": "What is it?", "chosen": "A cup.",
               "rejected": "A cat.", "image_name": "17.jpg", "class1": "privacy"},
    "hsa-dpo": {"id": "2334455", "question": "<image>\nDescribe it.", "chosen": "A cup.", "rejected": "A cat.",
                "chosen_score": 1.0, "rejected_score": 2.5},
    "opa-dpo": {"queries": "<image>\nDescribe it.", "image_bytes": b"jpeg", "standard_response": "A cup.",
                "original_generate_response": "A cat.", "AI_pseudo_response": "A mug.",
                "AI_json_report": '{"sentences": 1}'},
    "sentinel": {"image_path": "a.jpg", "question": "Describe it.", "context": "A table.", "y_win": "On it is a cup.",
                 "y_lose": "On it is a cat.", "image_id": 42, "type": "y+"},
    "mdpo": {"img_path": "a.jpg", "chosen": "A cup.", "rejected": "A cat.",
             "prompt": "A chat with an assistant. USER: <image>\nWhat is it? ASSISTANT:"},
    "mm-rlhf": {"id": 9, "image": "short/a.jpg", "prompt": "What is it?", "chosen": "A cup.", "rejected": "A cat."},
    "align-anything": {"question": "What is it?", "image": {"bytes": b"jpeg", "path": None}, "response_1": "A cat.",
                       "response_2": "A cup.", "overall_response": 2},
    "llama-factory": {"conversations": [{"from": "human", "value": "<image>What is it?"}], "images": ["a.jpg"],
                      "chosen": {"from": "gpt", "value": "A cup."}, "rejected": {"from": "gpt", "value": "A cat."}},
    "ms-swift": {"messages": [{"role": "user", "content": "<image>What is it?"},
                              {"role": "assistant", "content": "A cup."}],
                 "rejected_response": "A cat.", "images": ["a.jpg"]},
    "trl": {"images": [{"bytes": b"jpeg", "path": None}],
            "prompt": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]}],
            "chosen": [{"role": "assistant", "content": [{"type": "text", "text": "A cup."}]}],
            "rejected": [{"role": "assistant", "content": "A cat."}]},
    "ha-dpo": {"image_id": 2334455, "chosen": ["A cup.", "One cup."], "rejected": ["A cat.", "One cat."]},
    "llava": {"id": "7", "image": "a.jpg", "conversations": [
        {"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A cup."},
        {"from": "human", "value": "Which colour?"}, {"from": "gpt", "value": "Red."}]},
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_a_row_is_recognised(name):
    assert recognise_row(ROWS[name]) == name


def test_every_format_has_a_row_here():
    assert set(FORMATS) == {*ROWS, "veridical", "coco", "visual-genome", "vl-rewardbench"}


@pytest.mark.parametrize("name", [name for name in ROWS if name not in ("llava", "vlfeedback", "opa-dpo", "ha-dpo")])
def test_all_its_fields_are_known(name):
    assert not ROWS[name].keys() - FORMATS.get(name).fields


def test_rlhf_v_reads_the_json_inside_text():
    found = one(ROWS["rlhf-v"])
    assert (found.id, found.images, found.prompt) == ("3", (b"jpeg",), user("What is it?"))
    assert [(a.text, a.source) for a in found.answers] == [("A cup.", "corrected by people"), ("A cat.", "model")]
    assert found.notes["origin_split"] == {"model": "Muffin", "type": "question answering"}


def test_rlhf_v_older_rows_write_their_split_in_base64():
    row = {**ROWS["rlhf-v"], "origin_split": base64.b64encode(b"train").decode(), "dataset_name": "vqa"}
    assert one(row).notes["origin_split"] == "train"


def test_rlaif_v_keeps_who_answered():
    found = one(ROWS["rlaif-v"])
    assert (found.id, found.notes["origin_split"]) == ("0", {"model": "LLaVA"})
    assert found.answers == (Answer("A cup.", "model"), Answer("A cat.", "model"))


def test_bpo_holds_both_negatives_and_loses_its_placeholder():
    found = one(ROWS["bpo"])
    assert found.prompt == user("What is on the desk?")
    assert [(a.text, a.source, a.score) for a in found.answers] == [
        ("A lamp.", "annotation", 1.0), ("A radio.", "injected", 0.0), ("A clock.", "own", 0.0),
    ]  # fmt: skip


def test_bpo_with_nothing_but_ties_is_no_comparison():
    row = {**ROWS["bpo"], "completions": [{"score": 0, "response": "A."}, {"score": 0, "response": "B."}]}
    assert list(FORMATS.get("bpo").read(row, "x", ReadOptions())) == []


def test_povid_takes_the_last_answers():
    found = one(ROWS["povid"])
    assert found.prompt == user("Describe it.")
    assert [a.text for a in found.answers] == ["A cup.", "A cat."]


def test_povid_multi_turn_keeps_the_earlier_turns():
    turns = [
        {"from": "human", "value": "<image>\nHello."}, {"from": "gpt", "value": "Hi."},
        {"from": "human", "value": "What is it?"}, {"from": "gpt", "value": "A cup."},
    ]  # fmt: skip
    row = {
        "image": "a.jpg",
        "conversations": turns,
        "contrastive_conversations": [*turns[:3], {"from": "gpt", "value": "A cat."}],
    }
    found = one(row)
    assert [m.role for m in found.prompt] == ["user", "assistant", "user"]
    assert found.prompt[0].text == "Hello."


def test_vlfeedback_pairs_by_mean_and_leaves_out_what_has_no_rating():
    found = one(ROWS["vlfeedback"])
    assert [(a.text, a.source, a.score) for a in found.answers] == [
        ("A cup.", "m1", pytest.approx(14 / 3)), ("A cat.", "m2", pytest.approx(8 / 3)),
    ]  # fmt: skip


def test_vlfeedback_pairs_by_one_aspect():
    by_sight = list(FORMATS.get("vlfeedback").read(ROWS["vlfeedback"], "x", ReadOptions(aspect="Visual Faithfulness")))
    assert [[a.source for a in found.answers] for found in by_sight] == [["m1", "m2"], ["m3", "m2"]]


def test_vlfeedback_as_a_mapping_of_lists():
    row = ROWS["vlfeedback"]
    lists = {key: [c[key] for c in row["completions"]] for key in ("annotations", "model", "response")}
    assert one({**row, "completions": lists}).answers == one(row).answers


def test_llava_rlhf_takes_out_the_answer_that_stands_for_the_outputs():
    found = one(ROWS["llava-rlhf"])
    assert [m.text for m in found.prompt] == ["What is it?", "A thing.", "Which?"]
    assert [a.text for a in found.answers] == ["A cup.", "A cat."]
    assert found.notes == {"hallucination": True}
    wrapped = {**ROWS["llava-rlhf"], "conversations": [ROWS["llava-rlhf"]["conversations"]]}
    assert one(wrapped) == found


def test_mmpr_with_two_images_says_where_they_were():
    found = one(ROWS["mmpr"])
    assert found.prompt == user("What differs between (image 1) and (image 2)?")
    assert found.images == ("a.jpg", "b.jpg")


def test_mmpr_without_an_image_is_a_question_about_text():
    found = one({"question": "What is 2+2?", "chosen": "4", "rejected": "5"})
    assert found.images == ()


def test_mmpr_with_too_few_images_is_refused():
    _, found = read_all([{**ROWS["mmpr"], "image": "a.jpg"}], "mmpr")
    assert [r.reason for r in found] == ["image-count"]


def test_hsa_dpo_finds_its_image_by_id_and_keeps_the_severity():
    found = one(ROWS["hsa-dpo"])
    assert found.images == ("2334455.jpg",)
    assert [a.weight for a in found.answers] == [1.0, 2.5]


def test_opa_dpo_makes_a_pair_of_each_better_answer():
    found = list(FORMATS.get("opa-dpo").read(ROWS["opa-dpo"], "x", ReadOptions()))
    assert [[a.text for a in f.answers] for f in found] == [["A cup.", "A cat."], ["A mug.", "A cat."]]
    assert len({f.id for f in found}) == 2


def test_opa_dpo_keeps_the_sentences_that_were_revised_and_their_weights():
    own, revised = "A table. On it is a cat. It is sad.", "A table. On it is a mug. It is calm. Light falls in."
    report = {
        "image_description": "A mug.",
        "Sentence 1": {
            "copied content": "A table.", "rewritten content": "A table.", "score": 4, "error type": "correct",
        },
        "Sentence 2": {
            "copied_content": "On it is a cat.", "rewritten_content": "On it is a mug.", "score": 1,
            "error_type": "image_recognition_error",
        },
        "Sentence 3": {
            "copied content": "It is sad.", "rewritten content": "It is calm.", "score": "3",
            "error type": "language_comprehension_error",
        },
        "Added": {"rewritten content": "Light falls in."},
    }  # fmt: skip
    row = {
        **ROWS["opa-dpo"], "original_generate_response": own, "AI_pseudo_response": revised,
        "AI_json_report": json.dumps(report),
    }  # fmt: skip
    gold, found = FORMATS.get("opa-dpo").read(row, "x", ReadOptions())
    assert (dict(gold.scores), gold.spans) == ({"corrected": 0.0}, None)
    assert [own[a:b] for a, b in found.spans.rejected] == ["A table.", "On it is a cat.", "It is sad.", ""]
    assert [revised[a:b] for a, b in found.spans.chosen] == [
        "A table.", "On it is a mug.", "It is calm.", "Light falls in.",
    ]  # fmt: skip
    assert [found.scores[f"severity/{n}"] for n in (1, 2, 3, 4)] == [1.0, 2.5, 1.5, 1.0]
    assert [found.scores[f"seen/{n}"] for n in (1, 2, 3, 4)] == [1.0, 3.0, 1.0, 1.0]
    elsewhere = {**row, "original_generate_response": "Something else."}
    _, lost = FORMATS.get("opa-dpo").read(elsewhere, "x", ReadOptions())
    assert (dict(lost.scores), lost.spans) == ({"corrected": 1.0}, None)


def test_sentinel_keeps_its_context_apart():
    found = one(ROWS["sentinel"])
    assert (found.context, [a.text for a in found.answers]) == ("A table.", ["On it is a cup.", "On it is a cat."])


def test_mdpo_takes_the_question_out_of_the_vicuna_prompt():
    assert one(ROWS["mdpo"]).prompt == user("What is it?")


def test_mm_rlhf_videos_are_refused():
    _, found = read_all([{"video": "a.mp4", "prompt": "What?", "chosen": "A.", "rejected": "B."}], "mm-rlhf")
    assert [r.reason for r in found] == ["video"]


def test_align_anything_ties_are_no_comparison():
    for row in ({**ROWS["align-anything"], "overall_response": 0}, {**ROWS["align-anything"], "response_1": "A cup."}):
        assert list(FORMATS.get("align-anything").read(row, "x", ReadOptions())) == []


def test_llama_factory_alpaca_with_history_and_system():
    row = {"instruction": "What is it?", "input": "Be brief.", "images": ["a.jpg"], "chosen": "A cup.",
           "rejected": "A cat.", "history": [["Hello.", "Hi."]], "system": "You see."}  # fmt: skip
    assert recognise_row(row) == "llama-factory"
    assert one(row).prompt == (
        Message("system", "You see."), Message("user", "Hello."), Message("assistant", "Hi."),
        Message("user", "What is it?\nBe brief."),
    )  # fmt: skip


def test_ms_swift_with_images_of_its_own_on_the_rejected_side():
    row = {**ROWS["ms-swift"], "rejected_images": ["b.jpg"]}
    del row["rejected_response"]
    found = one(row, "ms-swift")
    assert [(a.text, a.images) for a in found.answers] == [("A cup.", None), ("A cup.", ("b.jpg",))]


ASKED = {"role": "user", "content": "What is it?"}


@pytest.mark.parametrize("row", [
    {"image": "a.jpg", "chosen": [ASKED, {"role": "assistant", "content": "A cup."}],
     "rejected": [ASKED, {"role": "assistant", "content": "A cat."}]},
    {"images": ["a.jpg"], "prompt": "What is it?", "chosen": "A cup.", "rejected": "A cat."},
])  # fmt: skip
def test_trl_with_an_implicit_prompt_or_with_texts(row):
    found = one(row)
    assert (found.prompt, [a.text for a in found.answers]) == (user("What is it?"), ["A cup.", "A cat."])


def test_ha_dpo_draws_by_image_and_seed():
    found = one(ROWS["ha-dpo"])
    assert found == one(ROWS["ha-dpo"])
    assert found.images == ("2334455.jpg",)
    assert found.answers[0].text in ROWS["ha-dpo"]["chosen"]
    drawn = {one({**ROWS["ha-dpo"], "image_id": n}, options=ReadOptions(seed=n)).prompt for n in range(1, 40)}
    assert len(drawn) == 4


def test_ha_dpo_questions_leave_out_what_the_model_had_right():
    row = {"image_id": 2334455, "question": "Is there a lamp?", "answer": "no", "correct": False,
           "chosen": "No, there is no lamp.", "reject": "Yes, there is a lamp."}  # fmt: skip
    assert [a.text for a in one(row).answers] == [row["chosen"], row["reject"]]
    assert list(FORMATS.get("ha-dpo").read({**row, "correct": True}, "x", ReadOptions())) == []


def test_ha_dpo_of_llava_is_keyed_by_image(tmp_path):
    path = tmp_path / "desc_data.json"
    path.write_text(json.dumps({"2334455": {"chosen": ["A cup."], "rejected": ["A cat."]}}))
    reading, found = read_published(path)
    assert [f.images for f in found] == [("2334455.jpg",)]
    assert (reading.format.name, reading.rows) == ("ha-dpo", 1)


def test_llava_conversations_become_records_with_their_last_answer():
    found = one(ROWS["llava"])
    assert isinstance(found, Example)
    assert [m.text for m in found.prompt] == ["What is it?", "A cup.", "Which colour?"]
    assert found.reference == "Red."


def test_coco_instances_and_captions(tmp_path):
    instances = tmp_path / "instances_val2017.json"
    instances.write_text(json.dumps({
        "info": {}, "images": [{"id": 5, "file_name": "000005.jpg", "width": 200, "height": 100}],
        "annotations": [{"image_id": 5, "category_id": 3, "bbox": [20, 10, 100, 50]}],
        "categories": [{"id": 3, "name": "cup"}],
    }))  # fmt: skip
    assert recognise(instances) == "coco"
    (found,) = read_published(instances)[1]
    (cup,) = found.annotations.objects
    assert (cup.name, cup.box) == ("cup", (0.1, 0.1, 0.6, 0.6))
    captions = tmp_path / "captions.json"
    captions.write_text(json.dumps({
        "images": [{"id": 5, "file_name": "000005.jpg"}],
        "annotations": [{"image_id": 5, "caption": "A cup. "}, {"image_id": 5, "caption": "One cup."}],
    }))  # fmt: skip
    assert [(f.id, f.reference) for f in read_published(captions)[1]] == [("5/1", "A cup."), ("5/2", "One cup.")]


def test_visual_genome_regions_with_and_without_image_data(tmp_path):
    regions = tmp_path / "region_descriptions.json"
    regions.write_text(json.dumps([
        {"id": 7, "regions": [{"phrase": "a red cup", "x": 10, "y": 10, "width": 40, "height": 20, "image_id": 7}]}
    ]))  # fmt: skip
    with pytest.warns(DataWarning, match=r"image_data\.json: isn't there"):
        (found,) = read_published(regions)[1]
    assert (found.images, found.annotations.regions[0].box) == (("7.jpg",), None)
    (tmp_path / "image_data.json").write_text(json.dumps([
        {"image_id": 7, "url": "https://example.org/VG_100K_2/7.jpg", "width": 100, "height": 100}
    ]))  # fmt: skip
    (found,) = read_published(regions)[1]
    assert found.images == ("VG_100K_2/7.jpg",)
    assert found.annotations.regions[0].box == (0.1, 0.1, 0.5, 0.3)


def read_all(rows, name=None, tmp_path=None):
    """Rows by way of a JSON lines file."""
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        reading, found = read_published(path, name)
        return reading, list(found)


FLAT = {"question": "What is it?", "chosen": "A cup.", "rejected": "A cat.", "image": "a.jpg", "origin_dataset": "x"}


@pytest.mark.parametrize(("change", "reason"), [
    ({"chosen": 3}, "bad-field"), ({"chosen": "  "}, "empty-field"), ({"rejected": None}, "missing-field"),
    ({"image": 7}, "bad-image-field"), ({"question": "<image> <image> ?"}, "image-count"),
    ({"chosen": "A <image> cup."}, "placeholder-in-answer"),
])  # fmt: skip
def test_a_damaged_row_is_listed_with_its_reason_and_ends_nothing(change, reason):
    _, found = read_all([FLAT, {**FLAT, **change}, FLAT])
    assert [type(f) for f in found] == [Comparison, Rejection, Comparison]
    assert found[1].reason == reason
    assert found[1].id == "rows.jsonl:2"
    assert found[1].remedy


def test_unknown_fields_are_counted():
    reading, _ = read_all([{**FLAT, "colour": 1}, {**FLAT, "colour": 2, "size": 3}])
    assert dict(reading.unknown_fields) == {"colour": 2, "size": 1}


def test_the_same_rows_from_every_kind_of_file(tmp_path):
    text = "".join(json.dumps(FLAT | {"idx": str(n)}) + "\n" for n in range(3))
    rows = [json.loads(line) for line in text.splitlines()]
    (tmp_path / "a.jsonl").write_text(text)
    (tmp_path / "b.json").write_text(json.dumps(rows))
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "d.parquet")
    columns = list(rows[0])
    lines = ["\t".join(columns), *("\t".join(row[name] for name in columns) for row in rows)]
    (tmp_path / "e.tsv").write_text("\n".join(lines) + "\n")
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "part-0.jsonl").write_text(text)
    read = [list(read_published(path)[1]) for path in sorted(tmp_path.iterdir())]
    assert len(read) == 6
    assert all(one == other for one, other in pairwise(read))
    assert [found.id for found in read[0]] == ["0", "1", "2"]


def test_a_data_set_that_datasets_saved(tmp_path):
    import datasets

    datasets.Dataset.from_list([ROWS["opa-dpo"]]).save_to_disk(tmp_path / "saved")
    reading, found = read_published(tmp_path / "saved")
    assert (reading.format.name, len(list(found))) == ("opa-dpo", 2)


def test_mmpr_parts_and_shares(tmp_path):
    row = {"image": "a.jpg", "question": "<image>\nWhat?", "chosen": "A cup.", "rejected": "A cat."}
    (tmp_path / "part.jsonl").write_text("".join(json.dumps(row) + "\n" for _ in range(200)))
    (tmp_path / "meta.json").write_text(json.dumps({
        "whole": {"root": "images/x", "annotation": "part.jsonl", "repeat_time": 1},
        "half": {"root": "images/y", "annotation": "part.jsonl", "repeat_time": 0.5},
    }))  # fmt: skip
    found = list(read_published(tmp_path)[1])
    assert found[0].images == ("images/x/a.jpg",)
    assert 60 < len(found) - 200 < 140


@pytest.mark.parametrize(("name", "content", "says"), [
    ("a.json", '{"x": 1}', "none of the formats"), ("a.txt", "hello", "data is read from"),
    ("a.json", "[1, 2", "not valid JSON"), ("a.parquet", "PAR1", "damaged or no parquet"),
    ("a.jsonl", '{"caption": "A cup."}\n', "none of the formats"),
])  # fmt: skip
def test_a_file_that_is_none_of_them_is_refused_by_name(tmp_path, name, content, says):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=says):
        list(read_published(tmp_path / name)[1])
