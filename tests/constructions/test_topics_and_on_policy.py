"""TPR and OPA-DPO, followed by hand with the real oracle."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.constructions.follow import follow

from veridical.constructions.opa_dpo import OpaDpoSettings, opa_dpo, weighed
from veridical.constructions.protocol import Sample, YesNo
from veridical.constructions.ranked import RankedSettings
from veridical.constructions.tpr import TprSettings, tpr
from veridical.judges.interface import Fault
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
    assert (pair.provenance.variant, dict(pair.provenance.scores)) == (
        "easy",
        {"ease": 1.0, "margin": 2.0, "topics": 2},
    )


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
    assert (pair.provenance.scores["ease"], pair.provenance.scores["margin"]) == (0, pytest.approx(2 * (0.9 - 0.6)))


def test_the_model_writes_topics_into_its_answer_and_sentences_stand_in_where_it_fails():
    woven = "On the table there is a fork, and I can see a cup."
    asked, [pair] = follow(
        tpr(RECORD, settings(rewrite="model", ask_again=0), 0), [FIRST, *OTHERS], [woven], ["New text: A boat."]
    )
    first, second = [request for request in asked if isinstance(request, Sample)][1:]
    assert first.context.images == RECORD.images
    assert "1. I can see a cup." in first.context.prompt[0].text
    assert "Question: Describe this image." in first.context.prompt[0].text
    assert f"Text: {FIRST}" in first.context.prompt[0].text
    assert "1. I can see two forks." in second.context.prompt[0].text
    assert pair.chosen == woven
    assert pair.rejected == "I can see two forks. I can see a knife and a cup."  # what came back was no rewriting
    assert "rewritten by the model" in pair.provenance.chosen_source


@pytest.mark.parametrize("answer", ["", "A.", "It is. " * 40, "Facts: 1. A cup. A fork and a cup are here."])
def test_what_is_no_rewriting_is_not_taken(answer):
    _, [pair] = follow(tpr(RECORD, settings(rewrite="model", ask_again=0), 0), [FIRST, *OTHERS], [answer], [answer])
    assert pair.chosen == "There is a fork. I can see a cup."


def test_an_alternative_stands_in_one_place_alone():
    both = "I can see a fork, a cup and a boat."
    _, [pair] = follow(tpr(RECORD, settings(candidates=2, ask_again=0), 0), ["There is a fork. I can see a cup.", both])
    assert pair.rejected == f"{both} I can see a cup."
    assert pair.chosen == "There is a fork. I can see a cup."


def test_nothing_worse_gives_no_pair():
    _, outcome = follow(tpr(RECORD, settings(ask_again=0), 0), ["There is a fork.", "I can see a cup.", "A cup."])
    assert outcome.reason == "none-better"


def test_reference_and_correction_are_preferred_to_the_own_answer():
    own = "There is a fork and a knife on the table."
    asked, pairs = follow(opa_dpo(RECORD, OpaDpoSettings(tries=1), 0), [own])
    assert [(pair.provenance.variant, pair.rejected) for pair in pairs] == [("reference", own), ("corrected", own)]
    assert pairs[0].chosen == RECORD.reference
    assert "knife" not in pairs[1].chosen
    assert [pair.provenance.scores["corrected"] for pair in pairs] == [0, 1]
    [request] = [request for request in asked if isinstance(request, Sample)]
    assert (request.sampling.temperature, request.sampling.top_k, request.sampling.top_p) == (1.0, 30, 0.95)


def test_each_corrected_sentence_has_its_place_and_its_weights():
    own = "There is a fork and a knife on the table."
    _, (_, corrected) = follow(opa_dpo(RECORD, OpaDpoSettings(tries=1), 0), [own])
    assert [own[a:b] for a, b in corrected.spans.rejected] == [own]
    assert [corrected.chosen[a:b] for a, b in corrected.spans.chosen] == [corrected.chosen]
    scores = corrected.provenance.scores
    assert (scores["severity/1"], scores["seen/1"]) == (1.5, 3.0)
    assert "severity/2" not in scores


def test_passages_are_sentences_and_their_weights_go_by_their_faults():
    own, corrected = "A cup. A dog barks. It is sad. Here.", "A cup. A cat sits. It is calm. Light. Here."
    faults = [Fault("object", 9, 12, "no dog"), Fault("relation", 13, 18, "sits"), Fault("other", 20, 29, "calm")]
    spans, weights = weighed(corrected, own, faults[:2])
    assert [own[a:b] for a, b in spans.rejected] == ["A dog barks. It is sad."]
    assert [corrected[a:b] for a, b in spans.chosen] == ["A cat sits. It is calm. Light."]
    assert weights == {"severity/1": 2.0, "seen/1": 3.0}
    spans, weights = weighed(corrected.replace(" Light.", ""), own, faults)
    assert [own[a:b] for a, b in spans.rejected] == ["A dog barks.", "It is sad."]
    assert weights == {"severity/1": 2.0, "seen/1": 3.0, "severity/2": 1.5, "seen/2": 1.0}
    spans, _ = weighed("A cup. Here.", own, faults)
    assert [("A cup. Here."[a:b], own[c:d]) for (a, b), (c, d) in zip(spans.chosen, spans.rejected, strict=True)] == [
        ("", "A dog barks. It is sad.")
    ]


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
