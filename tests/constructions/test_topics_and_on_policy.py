"""TPR and OPA-DPO, followed by hand with the real oracle."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.constructions.follow import follow

from veridical.constructions.opa_dpo import OpaDpoSettings, opa_dpo
from veridical.constructions.protocol import Sample, YesNo
from veridical.constructions.ranked import RankedSettings
from veridical.constructions.tpr import TprSettings, tpr
from veridical.records import Annotations, ImageFile, Message, ObjectInImage, Record
from veridical.runs import identity_of

RECORD = Record(
    "r1",
    (ImageFile(Path("a.png"), "00"),),
    (Message("user", "Describe this image."),),
    reference="There is a fork and a cup on the table.",
    annotations=Annotations((ObjectInImage("fork"), ObjectInImage("cup"), ObjectInImage("burger")), "table"),
)
FIRST = "There is a fork. I can see a knife and a cup."
OTHERS = ("I can see two forks. I can see a cup.", "There is a boat.")


def settings(**changes) -> TprSettings:
    return TprSettings(**{"candidates": 3, "ask_again": 1, "hard_share": 0.0, **changes})


def test_each_topic_is_replaced_by_its_best_and_its_worst():
    asked, [pair] = follow(tpr(RECORD, settings(), 0), [FIRST, *OTHERS], ["There is a fork.", "I can see a boat."])
    samples = [request for request in asked if isinstance(request, Sample)]
    assert samples[1].after == ("", "There is a fork.")
    # On the fork: one fork is there, so "two forks" is false; on the cup: the sentence without the knife is true.
    assert pair.chosen == "There is a fork. I can see a cup."
    # The boat was said in the second place, so it competes there; of equally false ones the last is taken.
    assert pair.rejected == "I can see two forks. I can see a boat."
    assert (pair.provenance.variant, dict(pair.provenance.scores)) == ("easy", {"difficulty": 0.0, "topics": 2})


def test_hard_pairs_have_what_is_just_below_the_best():
    asked, [pair] = follow(
        tpr(RECORD, settings(check="model", ask_again=0, hard_share=1.0), 0),
        ["There is a fork.", "Here is a fork.", "A fork can be seen."],
        0.6,
        0.9,
        0.2,
    )
    assert sum(isinstance(request, YesNo) for request in asked) == 3
    assert (pair.chosen, pair.rejected) == ("Here is a fork.", "There is a fork.")
    assert pair.provenance.scores["difficulty"] == 1


def test_nothing_worse_gives_no_pair():
    _, outcome = follow(tpr(RECORD, settings(ask_again=0), 0), ["There is a fork.", "I can see a cup.", "A cup."])
    assert outcome.reason == "none-better"


def test_reference_and_correction_are_preferred_to_the_own_answer():
    own = "There is a fork and a knife on the table."
    asked, pairs = follow(opa_dpo(RECORD, OpaDpoSettings(tries=1), 0), [own])
    assert [(pair.provenance.variant, pair.rejected) for pair in pairs] == [("reference", own), ("corrected", own)]
    assert pairs[0].chosen == RECORD.reference
    assert "knife" not in pairs[1].chosen
    [request] = [request for request in asked if isinstance(request, Sample)]
    assert (request.sampling.temperature, request.sampling.top_k, request.sampling.top_p) == (1.0, 30, 0.95)


@pytest.mark.parametrize("own", ["There is a fork on the table.", "There is a cup on the table."])
def test_a_right_answer_gives_the_first_pair_alone(own):
    _, [pair] = follow(opa_dpo(RECORD, OpaDpoSettings(tries=1), 0), [own])
    assert pair.provenance.variant == "reference"


def test_pools_count_by_content(tmp_path):
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    for file in (first, second):
        file.write_text('{"id": "1", "text": "A dog."}\n')
    assert identity_of(RankedSettings(pool=(first,))) == identity_of(RankedSettings(pool=(second,)))
    before = identity_of(RankedSettings(pool=(second,)))
    second.write_text('{"id": "1", "text": "A cat."}\n')
    assert identity_of(RankedSettings(pool=(second,))) != before
    assert identity_of(RankedSettings())["pool"] == []
