"""Every pair is used or told about, and nothing but an answer's end is ever cut."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from veridical.align.checks import prepare
from veridical.records import Spans


def reason(pair, vlm, limit=512, too_long="shorten"):
    prepared = prepare([pair], vlm, limit, too_long)
    assert len(prepared.examples) + len(prepared.skipped) == 1
    return prepared.skipped[0].reason if prepared.skipped else None


def test_sound_pairs_are_all_used_in_order(pairs, vlm):
    prepared = prepare(pairs, vlm, 512, "shorten")
    assert [e.id for e in prepared.examples] == [p.id for p in pairs]
    assert [(e.chosen.text, e.rejected.text) for e in prepared.examples] == [(p.chosen, p.rejected) for p in pairs]
    assert prepared.skipped == ()
    assert prepared.shortened == 0


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"chosen": "  "}, "empty-answer"),
        ({"rejected": ""}, "empty-answer"),
        ({"chosen": "A dog.", "rejected": "A dog."}, "same-answers"),
        ({"chosen": "A dog <image> here."}, "special-token-in-answer"),
        ({"rejected": "A dog.<|end|> A cat."}, "special-token-in-answer"),
    ],
)
def test_unusable_answers_are_told(pairs, vlm, changes, expected):
    assert reason(replace(pairs[0], **changes), vlm) == expected


def test_long_answers_are_left_out_if_asked(pairs, vlm):
    assert reason(pairs[0], vlm, limit=5, too_long="reject") == "answer-too-long"


def test_answers_that_differ_only_beyond_the_limit_are_told(pairs, vlm):
    pair = replace(pairs[0], chosen="A dog is in the park. Yes.", rejected="A dog is in the park. No.")
    assert reason(pair, vlm, limit=3) == "same-answers"
    assert reason(pair, vlm) is None


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(codec="utf-8"), min_size=1, max_size=60), limit=st.integers(1, 20))
def test_shortening_keeps_a_start_of_the_text_within_the_limit(pairs, vlm, text, limit):
    prepared = prepare([replace(pairs[0], chosen=text, rejected="!")], vlm, limit, "shorten")
    tokens = len(vlm.tokenizer(text, add_special_tokens=False).input_ids)
    for example in prepared.examples:
        kept = example.chosen
        assert text.startswith(kept.text)
        assert kept.cut == (tokens > limit)
        assert len(vlm.tokenizer(kept.text, add_special_tokens=False).input_ids) <= limit
        assert prepared.shortened == int(kept.cut)


def test_tokens_know_which_edit_they_belong_to(pairs, vlm):
    pair = replace(pairs[0], chosen="There is a fork and a knife.", rejected="There is a spoon and a knife on a table.")
    [example] = prepare([pair], vlm, 512, "shorten").examples
    for answer, marked in ((example.chosen, {1: "fork"}), (example.rejected, {1: "spoon", 2: "on a table"})):
        ids = vlm.tokenizer(answer.text, add_special_tokens=False).input_ids
        assert len(answer.edits) == len(ids)
        texts: dict[int, str] = {}
        for token, number in zip(ids, answer.edits, strict=True):
            texts[number] = texts.get(number, "") + vlm.tokenizer.decode([token])
        del texts[0]
        assert {number: text.strip() for number, text in texts.items()} == marked


def test_stated_spans_are_taken_as_they_are(pairs, vlm):
    pair = replace(pairs[0], chosen="A dog.", rejected="A cat.", spans=Spans(((0, 1),), ((0, 1),)))
    [example] = prepare([pair], vlm, 512, "shorten").examples
    assert example.chosen.edits[0] == 1
    assert set(example.chosen.edits[1:]) == {0}


def test_the_end_of_a_beginning_is_not_trained_on(pairs, vlm):
    prepared = prepare([replace(pairs[0], open_ended=True)], vlm, 512, "shorten")
    assert prepared.examples[0].chosen.cut
    assert prepared.examples[0].rejected.cut
    assert prepared.shortened == 0
