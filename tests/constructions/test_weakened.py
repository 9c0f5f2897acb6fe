"""Constructions in which the model goes on from the reference, followed by hand."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.constructions.follow import follow

from veridical.constructions.bdhs import BdhsSettings, bdhs
from veridical.constructions.dropout_ntp import DropoutNtpSettings, dropout_ntp
from veridical.constructions.protocol import Answer, Rejected, Retrieve, Sample
from veridical.constructions.re_align import ReAlignSettings, re_align
from veridical.constructions.sapo import SapoSettings, sapo, spliced
from veridical.errors import UserError
from veridical.judges.sentences import sentences
from veridical.records import ImageFile, Message, Record, Rejection
from veridical.vlm.images.views import Clean, NoImage, Noise, TokenMask

REFERENCE = "There is a fork and a cup on the table. I can also see a burger. The scene is a kitchen."
RECORD = Record("r1", (ImageFile(Path("a.png"), "00"),), (Message("user", "Describe this image."),), REFERENCE)
TRUE = sentences(REFERENCE)


def samples(asked):
    return [request for request in asked if isinstance(request, Sample)]


def test_bdhs_completes_each_sentence_behind_the_true_ones():
    asked, [pair] = follow(bdhs(RECORD, BdhsSettings(), 3), [" one dog.", " two dogs.", " three dogs."])
    [request] = samples(asked)
    assert request.context.view == TokenMask(0.99)
    assert request.sampling.stop == (".", "。")
    assert len(set(request.keys)) == 3
    beginnings = []
    for number, after in enumerate(request.after):
        before = "".join(TRUE[:number])
        assert REFERENCE.startswith(after)  # no sentence here says yes or no
        assert after == after.rstrip()
        beginning = after[len(before.rstrip()) :].strip()
        assert TRUE[number].startswith(beginning)
        assert len(beginning) < len(TRUE[number].rstrip())  # at least the full stop is left to say
        beginnings.append(beginning)
    said = [
        f"{b} {c} dog{'s' * (c != 'one')}.".strip() for b, c in zip(beginnings, ("one", "two", "three"), strict=True)
    ]
    assert pair.rejected == " ".join(said)
    assert pair.chosen == REFERENCE
    assert (pair.provenance.variant, pair.provenance.attempts) == ("guided", 1)
    assert 0 < pair.provenance.scores["similarity"] < 0.97
    assert pair.provenance.parameters["view"] == "token-mask:0.99"


def test_bdhs_draws_masks_and_cuts_anew_and_answers_freely_at_last():
    def repeat(request):
        """Completions that say the reference again."""
        ends = [len("".join(TRUE[: number + 1]).rstrip()) for number in range(3)]
        return [REFERENCE[len(after) : end] for after, end in zip(request.after, ends, strict=True)]

    steps, given = bdhs(RECORD, BdhsSettings(tries=3), 3), []
    request = next(steps)
    for _ in range(2):
        given.append(request)
        request = steps.send([Answer(text, True) for text in repeat(request)])
    assert given[0].after != given[1].after
    assert given[0].context.key != given[1].context.key != request.context.key
    assert request.after == ()
    assert request.context.view == TokenMask(0.99)
    # The last answer is kept however similar it is.
    similarity = steps.send([Answer(REFERENCE.replace("burger", "pizza"), True)])
    with pytest.raises(StopIteration) as end:
        steps.send(0.99)
    [pair] = end.value.value
    assert similarity.second == REFERENCE
    assert (pair.provenance.variant, pair.provenance.attempts) == ("free", 3)
    assert pair.provenance.scores == {"similarity": 0.99}


def test_bdhs_with_one_try_has_no_free_one():
    _, outcome = follow(bdhs(RECORD, BdhsSettings(tries=1, guidance="none"), 3), [REFERENCE])
    assert (outcome.reason, outcome.detail) == ("rejected-too-similar", "1 x too-similar")
    assert outcome.remedy


def test_bdhs_without_guidance_answers_freely_from_the_start():
    asked, [pair] = follow(bdhs(RECORD, BdhsSettings(guidance="none", view="noise:500"), 3), ["A dog."])
    assert samples(asked)[0].after == ()
    assert samples(asked)[0].context.view == Noise(500)
    assert (pair.rejected, pair.provenance.variant, pair.provenance.attempts) == ("A dog.", "free", 1)


def test_bdhs_swaps_yes_and_no_by_chance():
    record = replace(RECORD, reference="Yes, there is. No dogs are here. Now it rains.", source="folder")
    seen = set()
    for seed in range(40):
        request = next(bdhs(record, BdhsSettings(), seed))
        first, second, third = (
            re.findall(r"\w+", after[len("".join(sentences(record.reference)[:number])) :])[:1]
            for number, after in enumerate(request.after)
        )
        seen |= {("first", *first), ("second", *second), ("third", *third)}
    assert {("first", "Yes"), ("first", "No"), ("second", "No"), ("second", "Yes")} <= seen
    assert {word for place, *words in seen if place == "third" for word in words} == {"Now"}


def test_a_view_that_is_none_is_refused_at_once():
    with pytest.raises(UserError, match="did you mean 'noise'"):
        BdhsSettings(view="nois:4")


def test_dropout_goes_on_from_half_of_the_words_without_the_image():
    asked, [pair] = follow(dropout_ntp(RECORD, DropoutNtpSettings(), 0), [" boat."])
    assert asked[0].context.view == NoImage()
    assert asked[0].after == ("There is a fork and a cup on the table.",)
    assert pair.rejected == "There is a fork and a cup on the table. boat."
    sampling = asked[0].sampling
    assert (sampling.temperature, sampling.top_k) == (0.7, 50)  # the released code's


def test_dropout_may_cut_anywhere_and_see_something():
    settings = DropoutNtpSettings(cut="random", view="token-mask:0.5")
    afters = {next(dropout_ntp(RECORD, settings, seed)).after[0] for seed in range(60)}
    assert len(afters) > 10
    assert all(REFERENCE.startswith(after) and 0 < len(after) < len(REFERENCE) for after in afters)
    assert next(dropout_ntp(RECORD, settings, 0)).context.view == TokenMask(0.5)


def test_sapo_attaches_the_rest_of_the_reference():
    steps = sapo(RECORD, SapoSettings(segment=3), 1)
    request = next(steps)
    assert request.sampling.max_new_tokens == 3
    assert request.context.view == Clean()
    with pytest.raises(StopIteration) as end:
        steps.send([Answer(" red big do", False)])
    [pair] = end.value.value
    words, cut = REFERENCE.split(), len(request.after[0].split())
    assert pair.rejected.split() == [*words[:cut], "red", "big", *words[cut + 2 :]]


def test_sapo_attaches_nothing_where_the_model_ended_its_turn():
    assert spliced("a b c d e", "a b", Answer(" x.", True)) == "a b x."
    assert spliced("a b c d e", "a b", Answer(" x y", False)) == "a b x d e"
    assert spliced("a b c d e", "", Answer("x y z", False)) == "x y c d e"
    assert spliced("a b", "a b", Answer(" x y z", False)) == "a b x y"


@given(st.text("ab .", min_size=2, max_size=30), st.text("xy ", max_size=12), st.integers(0, 9))
def test_sapo_keeps_beginning_and_end(text, written, cut):
    words = text.split()
    beginning = " ".join(words[:cut])
    result = spliced(" ".join(words), beginning, Answer(f" {written}", False)).split()
    assert result[: len(words[:cut])] == words[:cut]
    new = max(len(result), len(words)) - len(words[:cut])
    assert len(result) >= min(len(words), len(words[:cut]) + new)


@pytest.mark.parametrize("segment", [None, 2, 5, 40])
def test_sapo_leaves_an_original_tail_whatever_the_cut(segment):
    """Unless the model ends its turn, the reference's last word stands at the end of the rejected side."""
    lasting = 0
    for seed in range(40):
        steps = sapo(RECORD, SapoSettings(segment=segment, tries=1), seed)
        request = next(steps)
        with pytest.raises(StopIteration) as end:
            steps.send([Answer("".join(f" z{i}" for i in range(request.sampling.max_new_tokens)), False)])
        [pair] = end.value.value
        assert " z0" in f" {pair.rejected}"
        lasting += pair.rejected.split()[-1] == REFERENCE.split()[-1]
    assert lasting == 40


def test_sapo_tries_other_cuts():
    def again(request):
        return Answer(REFERENCE[len(request.after[0]) :], True)

    steps = sapo(RECORD, SapoSettings(tries=2), 1)
    first = next(steps)
    second = steps.send([again(first)])
    assert first.after != second.after
    with pytest.raises(Rejected) as end:
        steps.send([again(second)])
    assert end.value.reason == "rejected-same-as-chosen"


def test_re_align_walks_down_the_similar_images():
    others = [replace(RECORD, id=name, images=(ImageFile(Path(f"{name}.png"), name),)) for name in ("o1", "o2")]
    steps = re_align(RECORD, ReAlignSettings(images=2), 4)
    assert next(steps) == Retrieve(RECORD, 2, "embeddings")
    request = steps.send(others)
    assert (request.context.images, request.context.view) == (others[0].images, Clean())
    steps.send([Answer(" dog.", True)] * 3)
    request = steps.send(0.96)
    assert request.context.images == others[1].images
    steps.send([Answer(" dog.", True)] * 3)
    with pytest.raises(StopIteration) as end:
        steps.send(0.5)
    [pair] = end.value.value
    assert pair.images == RECORD.images
    assert (pair.provenance.attempts, pair.provenance.rejected_source) == (2, "completed on the image of o2")
    # The retrieved image is one that the chosen answer isn't true of.
    assert [(one.text, one.images) for one in pair.others] == [(pair.chosen, others[1].images)]


def test_re_align_needs_other_images():
    _, outcome = follow(re_align(RECORD, ReAlignSettings(), 4), [])
    assert isinstance(outcome, Rejection)
    assert outcome.reason == "no-similar-image"


@pytest.mark.parametrize(
    ("construct", "settings"),
    [
        (bdhs, BdhsSettings(without_reference="reject")),
        (dropout_ntp, DropoutNtpSettings(without_reference="reject")),
        (sapo, SapoSettings(without_reference="reject")),
        (re_align, ReAlignSettings(without_reference="reject")),
    ],
)
def test_no_model_time_for_records_that_cannot_be_used(construct, settings):
    for reference, reason in (
        (None, "no-reference"),
        ("", "chosen-empty"),
        ("a word " * 200, "chosen-too-long"),
    ):
        asked, outcome = follow(construct(replace(RECORD, reference=reference), settings, 0))
        assert asked == []
        assert outcome.reason == reason
        assert outcome.remedy


@pytest.mark.parametrize("construct", [(dropout_ntp, DropoutNtpSettings()), (sapo, SapoSettings())])
def test_a_single_word_cannot_be_cut(construct):
    make, settings = construct
    asked, outcome = follow(make(replace(RECORD, reference="Kitchen."), settings, 0))
    assert (asked, outcome.reason) == ([], "chosen-too-short")
