"""Constructions on single sentences and single edits, followed by hand with the real oracle and writer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.constructions.follow import ORACLE, follow

from veridical.bounds import check
from veridical.constructions.caption_edit import CaptionEditSettings, caption_edit
from veridical.constructions.protocol import Answer, Sample
from veridical.constructions.sentinel import SentinelSettings, sentinel
from veridical.errors import UserError
from veridical.judges.interface import Inject
from veridical.judges.panel import Panel
from veridical.records import Annotations, ImageFile, Message, ObjectInImage, Record

RECORD = Record(
    "r1",
    (ImageFile(Path("a.png"), "00"),),
    (Message("user", "Describe this image."),),
    reference="There is a fork and a cup on the table.",
    annotations=Annotations((ObjectInImage("fork"), ObjectInImage("cup"), ObjectInImage("burger"))),
)
OWN = "There is a fork, a knife and a cup on the table."


def test_sentinel_follows_clean_sentences_and_pairs_them_with_wrong_ones():
    asked, pairs = follow(
        sentinel(RECORD, SentinelSettings(candidates=3), 0),
        ["There is a fork on the table.", "There is a knife on the table.", "There is a fork on the table."],
        [" I can also see a cup.", " I can also see a spoon.", " I can also see a boat."],
        ["", "", ""],
    )
    requests = [request for request in asked if isinstance(request, Sample)]
    assert [request.after[0] for request in requests] == [
        "",
        "There is a fork on the table.",
        "There is a fork on the table. I can also see a cup.",
    ]
    assert all(request.sampling.stop == (".", "。") for request in requests)
    assert [(pair.context, pair.chosen, pair.rejected) for pair in pairs] == [
        ("", "There is a fork on the table.", "There is a knife on the table."),
        ("There is a fork on the table.", "I can also see a cup.", "I can also see a spoon."),
    ]
    assert all(pair.open_ended for pair in pairs)
    assert len({pair.id for pair in pairs}) == 2
    assert [pair.provenance.scores["sentence"] for pair in pairs] == [0, 1]


def test_sentinel_can_go_on_from_hallucinations_to_compare_with():
    asked, [pair] = follow(
        sentinel(RECORD, SentinelSettings(candidates=2, context="hallucinated", first_sentence=1, max_sentences=2), 0),
        ["There is a fork on the table.", "There is a knife on the table."],
        [" I can also see a cup.", " I can also see a spoon."],
    )
    last = [request for request in asked if isinstance(request, Sample)][-1]
    assert set(last.after) == {"There is a knife on the table."} == {pair.context}
    assert (pair.chosen, pair.rejected) == ("I can also see a cup.", "I can also see a spoon.")


def test_sentinel_never_goes_on_from_a_hallucination():
    asked, outcome = follow(
        sentinel(RECORD, SentinelSettings(candidates=2), 0),
        ["There is a knife on the table.", "There is a spoon on the table."],
    )
    assert sum(isinstance(request, Sample) for request in asked) == 1
    assert outcome.reason == "sentence-all-wrong"


def test_sentinel_prefers_clean_sentences_that_name_something_and_ignores_repeats():
    _, pairs = follow(
        sentinel(RECORD, SentinelSettings(candidates=3), 0),
        ["It is what it is.", "There is a fork on the table.", "There is a knife on the table."],
        ["There is a fork on the table."] * 3,
    )
    assert [pair.chosen for pair in pairs] == ["There is a fork on the table."]


class Doubtful:
    """A judge that can't tell whether there is a cup."""

    name = "doubtful"

    def detect(self, requests):
        found = ORACLE.detect(requests)
        return [replace(one, unsure=tuple(m for m in one.named if m.name == "cup")) for one in found]


def test_sentinel_ignores_what_detectors_disagree_on():
    _, [pair] = follow(
        sentinel(RECORD, SentinelSettings(candidates=3, max_sentences=1), 0),
        ["There is a cup.", "There is a fork.", "There is a cup and a knife."],
        panel=Panel((Doubtful(),)),
    )
    assert (pair.chosen, pair.rejected) == ("There is a fork.", "There is a cup and a knife.")
    settings = SentinelSettings(candidates=1, max_sentences=1)
    _, outcome = follow(sentinel(RECORD, settings, 0), ["There is a cup."], panel=Panel((Doubtful(),)))
    assert outcome.reason == "sentence-unsure"


def test_sentinel_without_a_wrong_sentence_has_nothing_to_teach():
    _, outcome = follow(
        sentinel(RECORD, SentinelSettings(candidates=1, max_sentences=1), 0), ["There is a fork on the table."]
    )
    assert outcome.reason == "nothing-invented"


def test_corrected_answers_keep_their_edits_as_spans():
    _, [pair] = follow(caption_edit(RECORD, CaptionEditSettings(), 0), [OWN])
    assert pair.rejected == OWN
    assert "knife" not in pair.chosen
    removed = " ".join(pair.rejected[start:end] for start, end in pair.spans.rejected)
    assert "knife" in removed
    assert len(removed.split()) <= 4
    assert pair.provenance.scores["edited"] <= 0.5


def test_right_answers_and_rewritten_ones_are_no_edits():
    _, outcome = follow(caption_edit(RECORD, CaptionEditSettings(), 0), [RECORD.reference])
    assert outcome.reason == "nothing-invented"
    _, outcome = follow(caption_edit(RECORD, CaptionEditSettings(max_edited=0.05), 0), [OWN])
    assert outcome.reason == "chosen-more-than-edited"
    with pytest.raises(UserError, match="max_edited is 5"):
        check(CaptionEditSettings(max_edited=5))


def test_corrupted_references_stay_close():
    settings = CaptionEditSettings(direction="corrupt", tries=3)
    asked, [pair] = follow(
        caption_edit(RECORD, settings, 0),
        None,
        "Two dogs play in a park with a ball while it rains.",
        RECORD.reference.replace("cup", "bowl"),
        panel=Panel(),
    )
    assert all(isinstance(request, Inject) for request in asked)
    assert len({request.key for request in asked}) == 3
    assert pair.chosen == RECORD.reference
    assert pair.provenance.attempts == 3
    assert [pair.rejected[start:end] for start, end in pair.spans.rejected] == ["bowl"]


def test_no_model_time_for_references_that_cannot_be_corrupted():
    settings = CaptionEditSettings(direction="corrupt")
    for reference, reason in ((None, "no-reference"), ("", "chosen-empty"), ("a word " * 200, "chosen-too-long")):
        asked, outcome = follow(caption_edit(replace(RECORD, reference=reference), settings, 0))
        assert (asked, outcome.reason) == ([], reason)


def test_answers_that_were_cut_off_are_not_corrected():
    _, outcome = follow(caption_edit(RECORD, CaptionEditSettings(), 0), [Answer("There is a kn", False)])
    assert outcome.reason == "answer-unfinished"
