"""The verifier: what it learns from a judge's findings, how it is measured, and the judge that comes out."""

import hashlib
import json
from typing import get_args

import pytest
import torch

from veridical.errors import UserError
from veridical.files import write_json
from veridical.judge_training.verifier import VerifierConfig, balanced, checked, run
from veridical.judges.interface import Detect, FaultKind, Inject, JudgeError, Rate, Verify
from veridical.judges.lexicon_sources import find_words
from veridical.judges.oracle import OracleSettings
from veridical.judges.panel import Panel
from veridical.judges.registry import JudgeContext
from veridical.judges.sentences import sentences
from veridical.judges.verifier import RIGHT, Verifier, VerifierSettings, _asked, question, read_verdict, verdict
from veridical.pairs.dataset import read_pairs, write_build
from veridical.records import Message, Pair, Provenance
from veridical.vlm.inputs.context import Context
from veridical.vlm.load import load
from veridical.vlm.model.adapters import LoraSettings
from veridical.vlm.prefix.encode import encode
from veridical.vlm.scores.scoring import score
from veridical.world.records import world_records

ORACLE = OracleSettings().open(JudgeContext(find_words("world", True, [])))
PROVENANCE = Provenance("test", "test", {}, 0, "")


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """The references of 60 scenes and the same with a wrong number, as a build would leave them."""
    out = tmp_path_factory.mktemp("build")
    records = world_records("pairs", 60, 2, out / "drawn")
    wrong = ORACLE.inject([Inject(record, record.reference, "count", (record.id,)) for record in records])
    pairs = [
        Pair(r.id, r.id, r.images, r.prompt, r.reference, text, PROVENANCE)
        for r, text in zip(records, wrong, strict=True)
    ]
    write_build(out, pairs)
    built = {"records": "world:pairs", "limit": 60, "seed": 2, "prompt": "Describe this image.", "lexicon": "auto"}
    (shard,) = (out / "pairs").glob("*.parquet")
    listed = {"file": f"pairs/{shard.name}", "sha256": hashlib.sha256(shard.read_bytes()).hexdigest()}
    write_json(out / "manifest.json", {"identity": built, "shards": [listed]})
    return out, {record.id: record for record in records}


@pytest.mark.parametrize(
    ("kind", "reason", "said"),
    [
        (None, "", "Yes."),
        ("count", "there are two cups", "No, count: there are two cups."),
        ("other", "a. b.", "No, other: a. b."),
    ],
)
def test_verdicts_read_back(kind, reason, said):
    assert verdict(kind, reason) == said
    assert read_verdict(said) == (None if kind is None else (kind, reason.rstrip(".")))


@pytest.mark.parametrize("text", ["", "Yes", "No.", "No, odd: x.", "Yes. No.", "no, count: x."])
def test_what_is_no_verdict_is_not_guessed(text):
    with pytest.raises(ValueError, match="no verdict"):
        read_verdict(text)


def test_every_sentence_is_checked_once_by_the_judge(build):
    folder, records = build
    found, failed = checked(folder, records, Panel((ORACLE,)))
    assert failed == 0
    assert len({(one.record.id, one.sentence) for one in found}) == len(found)
    wrong = [one for one in found if one.kind]
    assert {one.kind for one in wrong} == {"count"}
    assert len(wrong) == 60
    for one in found:
        [again] = ORACLE.detect([Detect(one.record, one.sentence)])
        assert again.wrong == (one.kind is not None)
    even = balanced(found, 0)
    assert sum(one.kind is None for one in even) == sum(one.kind is not None for one in even) == 60
    assert balanced(found, 0) == even != balanced(found, 1)


def test_a_verifier_is_trained_measured_and_judges(build, llava_folder, tmp_path, capsys):
    folder, records = build
    config = VerifierConfig(
        pairs=folder, out=tmp_path / "verifier", model=str(llava_folder), learning_rate=5e-3, epochs=4,
        lora=LoraSettings(rank=32, alpha=64), device="cpu",
    )  # fmt: skip
    run(config)
    about = json.loads((config.out / "verifier.json").read_text())
    held_out = [json.loads(line) for line in (config.out / "held-out.jsonl").read_text().splitlines()]
    learnt = read_pairs(config.out / "feedback")
    assert about["teacher"] == "oracle"
    assert about["trained_on"] == len(learnt) > 60
    assert {pair.record_id for pair in learnt}.isdisjoint(row["record"] for row in held_out)
    assert about["held_out"]["right"] == about["held_out"]["wrong"] == len(held_out) / 2
    expected = about["held_out"]["passed"] + about["held_out"]["caught"]
    assert about["balanced_accuracy"] == pytest.approx(expected / len(held_out), abs=1e-4)
    assert f"{100 * about['balanced_accuracy']:.1f} %" in capsys.readouterr().out

    judge = VerifierSettings(model=str(config.out), device="cpu").open(JudgeContext())
    scores = judge.verify([Verify(records[row["record"]], row["sentence"]) for row in held_out])
    passed = [score > 0.5 for score in scores]
    assert sum(ok == (row["kind"] is None) for ok, row in zip(passed, held_out, strict=True)) == expected
    record = records[held_out[0]["record"]]
    [rate] = judge.rate([Rate(record, record.prompt, record.reference)])
    parts = [part.strip() for part in sentences(record.reference)]
    assert rate == pytest.approx(sum(judge.verify([Verify(record, part) for part in parts])) / len(parts), abs=1e-5)
    [findings] = judge.detect([Detect(record, record.reference)])
    # A sentence is at fault where "No" is the likelier, or the whole can't be read, for want of a reason.
    if isinstance(findings, JudgeError):
        assert findings.reason == "judge-unreadable"
    else:
        wrong = {part for part in parts if judge.verify([Verify(record, part)])[0] <= 0.5}
        assert {record.reference[fault.start : fault.end] for fault in findings.faults} == wrong

    before = (config.out / "verifier.json").stat().st_mtime_ns
    run(config)
    assert (config.out / "verifier.json").stat().st_mtime_ns == before


def test_the_class_is_the_likeliest_whatever_the_model_would_spell(llava_folder):
    """Against a separate score of "No, class:" by itself; weights drawn at random favour no class for a reason."""
    [record] = world_records("pairs", 1, 4, llava_folder.parent)
    vlm = load(str(llava_folder), device="cpu")
    said = Verifier("test", vlm)._verdicts([_asked(record, f"There are {n} cats.") for n in range(12)])
    for number, text in enumerate(said):
        if text == RIGHT:
            continue
        with torch.no_grad():
            prefix = encode(vlm, [Context(record.images, question(f"There are {number} cats."))])
            rated = {k: float(score(vlm, prefix, [[f"No, {k}:"]])[0][0][:-1].sum()) for k in get_args(FaultKind)}
        assert text.startswith(f"No, {max(rated, key=rated.__getitem__)}:")
    assert any(text != RIGHT for text in said)


def test_what_a_verifier_needs(tmp_path, build, llava_folder):
    folder, _ = build
    with pytest.raises(UserError, match="judge train verifier"):
        VerifierSettings(model=str(tmp_path)).open(JudgeContext())
    with pytest.raises(UserError, match=r"no pairs/\*\.parquet here"):
        run(VerifierConfig(pairs=tmp_path, out=tmp_path / "out"))
    with pytest.raises(UserError, match=r"held_out is 0\.0; it must be above 0 and below 1"):
        run(VerifierConfig(pairs=folder, out=tmp_path / "out", model=str(llava_folder), held_out=0.0))
    assert question("A cup.") == (Message("user", "Is this true of the image? A cup."),)
