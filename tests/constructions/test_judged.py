"""The constructions that lean on judges, followed by hand.

The judge is the real oracle of the picture world; what the model says, scores or affirms is given, so that what must
come out can be worked out on paper.
"""

import json
import math
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path as FilePath

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.constructions.follow import follow as by_hand

from veridical.constructions.bpo_image import BpoImageSettings
from veridical.constructions.bpo_inject import BpoInjectSettings, bpo_inject
from veridical.constructions.ha_dpo import HaDpoSettings, ha_dpo
from veridical.constructions.povid import PovidSettings, povid
from veridical.constructions.protocol import LogProbs, Sample, Score, YesNo
from veridical.constructions.ranked import RankedSettings, judge_needs, ranked
from veridical.constructions.self_correct import SelfCorrectSettings, self_correct
from veridical.constructions.sentence_beams import Path, followed, ranks
from veridical.constructions.spa import SpaSettings, spa
from veridical.errors import UserError
from veridical.judges.interface import (
    Compare,
    Detect,
    ExtractClaims,
    Inject,
    MakeQuestions,
    Rate,
    Restyle,
    ToQuestion,
    Verify,
)
from veridical.judges.lexicon_sources import find_words
from veridical.judges.oracle import OracleSettings, findings
from veridical.judges.panel import Panel
from veridical.judges.registry import JudgeContext
from veridical.pairs.summary import same_wording
from veridical.records import Annotations, ImageFile, Message, ObjectInImage, Record, Rejection

WORDS = find_words("world", True, [])
ORACLE = OracleSettings().open(JudgeContext(WORDS))
PANEL = Panel((ORACLE,))
RECORD = Record(
    "r1",
    (ImageFile(FilePath("a.png"), "00"),),
    (Message("user", "Describe this image."),),
    reference="There is a fork and a cup on the table.",
    annotations=Annotations((ObjectInImage("fork"), ObjectInImage("cup"), ObjectInImage("burger")), "table"),
    source="folder",
)
OWN = "There is a fork, a knife and a cup on the table."
CAPTIONS = (
    "There is a fork on the table.",
    "There is a fork and a knife on the table.",
    "There is a fork, a knife and a spoon on the table.",
    "There is a fork, a cup and a burger on the table.",
)


follow = partial(by_hand, panel=PANEL)


def wrong(text, record=RECORD) -> bool:
    return findings(text, record.annotations, WORDS.lexicon, WORDS.scenes).wrong


def kinds(asked) -> Counter:
    return Counter(type(request) for request in asked)


# bpo-inject


def test_bpo_injection_gives_one_chosen_and_two_rejected():
    settings = BpoInjectSettings(kind="object", image=BpoImageSettings(view="noise:700"))
    asked, pairs = follow(bpo_inject(RECORD, settings, 0), ["A boat."])
    assert [pair.id for pair in pairs] == ["r1/injected", "r1/noisy-image"]
    injected, noise = pairs
    assert injected.chosen == noise.chosen == RECORD.reference
    assert wrong(injected.rejected)
    assert noise.rejected == "A boat."
    assert noise.provenance.parameters["image"]["view"] == "noise:700"
    assert [request.mode for request in asked if isinstance(request, Inject)] == ["description"]


def test_bpo_injection_alone_asks_the_model_nothing():
    asked, [pair] = follow(bpo_inject(RECORD, BpoInjectSettings(negatives="injected", verify=True), 0))
    assert kinds(asked) == {Inject: 1, Detect: 1}
    assert wrong(pair.rejected)


def test_bpo_answers_questions_wrongly():
    record = replace(RECORD, prompt=(Message("user", "Is there a fork in the image?"),), reference="Yes, there is.")
    asked, [pair] = follow(bpo_inject(record, BpoInjectSettings(negatives="injected"), 0))
    assert asked[0].mode == "question"
    assert pair.rejected == "No, there is."


def test_bpo_drops_a_record_with_a_completion_that_is_too_long():
    _, outcome = follow(bpo_inject(RECORD, BpoInjectSettings(kind="object"), 0), ["a word " * 200])
    assert outcome.reason == "rejected-too-long"


def test_bpo_keeps_the_negative_that_it_got():
    _, [pair] = follow(bpo_inject(RECORD, BpoInjectSettings(kind="object"), 0), [RECORD.reference])
    assert pair.provenance.variant == "injected"
    record = replace(RECORD, reference="Something.")
    _, [pair] = follow(bpo_inject(record, BpoInjectSettings(kind="object"), 0), ["A boat."])
    assert pair.provenance.variant == "noisy-image"
    _, outcome = follow(bpo_inject(record, BpoInjectSettings(kind="object", negatives="injected"), 0))
    assert (outcome.reason, outcome.detail) == ("rejected-not-injected", "2 x not-injected")


@pytest.mark.parametrize("construction", [(bpo_inject, BpoInjectSettings()), (povid, PovidSettings())])
@pytest.mark.parametrize(
    ("reference", "reason"), [(None, "no-reference"), ("", "chosen-empty"), ("a word " * 200, "chosen-too-long")]
)
def test_unfit_references_cost_nothing(construction, reference, reason):
    procedure, settings = construction
    asked, outcome = follow(procedure(replace(RECORD, reference=reference), settings, 0))
    assert asked == []
    assert isinstance(outcome, Rejection)
    assert outcome.reason == reason
    assert outcome.remedy


# povid


def test_povid_corrupts_descriptions_by_every_kind_alike():
    drawn: Counter = Counter()
    grey = Annotations((ObjectInImage("fork", None, ("grey",)), ObjectInImage("cup")), "table")
    for index in range(300):
        record = replace(RECORD, id=f"r{index}", annotations=grey)
        _, [pair] = follow(povid(record, PovidSettings(), 1))
        drawn[pair.provenance.variant] += 1
        assert pair.chosen == RECORD.reference
        assert pair.rejected != pair.chosen
    assert set(drawn) == {"object", "attribute", "relation"}
    assert min(drawn.values()) > 70  # a third each: 100, and three and a half standard deviations of 8.2


def test_povid_reasons_wrongly_in_answers():
    record = replace(RECORD, prompt=(Message("user", "What could happen here?"),), reference="Someone may eat.")
    asked, [pair] = follow(povid(record, PovidSettings(), 0))
    assert (pair.provenance.variant, asked[0].kind, asked[0].mode) == ("reasoning", "reasoning", "question")
    assert pair.rejected.startswith("Someone may eat.")


def test_povid_can_give_several_rejected_answers_to_one_chosen():
    _, pairs = follow(povid(RECORD, PovidSettings(every_kind=True, verify=True), 0))
    assert {pair.provenance.variant for pair in pairs} <= {"object", "attribute", "relation"}
    assert len({pair.rejected for pair in pairs}) == len(pairs) >= 2
    assert all(wrong(pair.rejected) for pair in pairs)


def test_povid_gets_a_yes_wrong_only_once():
    record = replace(RECORD, prompt=(Message("user", "Is there a fork?"),), reference="Yes, there is a fork.")
    _, pairs = follow(povid(record, PovidSettings(every_kind=True), 0))
    assert [pair.rejected for pair in pairs] == ["No, there is a fork."]


@given(number=st.integers(0, 10_000), errors=st.integers(1, 2))
def test_injected_objects_are_never_there_and_the_rest_stays(number, errors):
    record = replace(RECORD, id=f"r{number}")
    settings = PovidSettings(in_descriptions=("object",), errors=errors)
    _, outcome = follow(povid(record, settings, number))
    [pair] = outcome
    named = set(WORDS.lexicon.names(pair.rejected))
    assert named >= {"fork", "cup"}
    assert len(named - RECORD.annotations.names) == errors


# ranked


@pytest.mark.parametrize(
    ("settings", "chosen", "rejected"),
    [
        # Rates: 1/3, (1 - 1)/3, (1 - 2)/3, 1.
        (RankedSettings(candidates=4), CAPTIONS[3], CAPTIONS[2]),
        (RankedSettings(candidates=4, score="compare"), CAPTIONS[3], CAPTIONS[2]),
        (RankedSettings(candidates=4, score="claims"), CAPTIONS[0], CAPTIONS[2]),
        # Of the texts of about one length, the first and the second are seven and ten words.
        (RankedSettings(candidates=4, length_gap=0.1), CAPTIONS[3], CAPTIONS[2]),
    ],
)
def test_ranking_takes_best_and_worst(settings, chosen, rejected):
    asked, [pair] = follow(ranked(RECORD, settings, 0), CAPTIONS)
    assert (pair.chosen, pair.rejected) == (chosen, rejected)
    assert pair.provenance.scores["margin"] > 0
    assert pair.provenance.scores["candidates"] == 4
    assert set(kinds(asked)) == {Sample, *judge_needs(settings)}


def test_comparing_asks_for_every_two_once():
    asked, [pair] = follow(ranked(RECORD, RankedSettings(candidates=4, score="compare"), 0), CAPTIONS)
    assert kinds(asked)[Compare] == 6
    # Margins of the rate's differences, capped at 1: the best is ahead by 2/3, 1 and 1 (4/3 capped).
    assert pair.provenance.scores["chosen_score"] == pytest.approx((2 / 3 + 1 + 1) / 3)


def test_dividing_and_conquering_asks_the_model_about_each_claim():
    settings = RankedSettings(candidates=2, score="claims", check="model")
    # The scene is a claim, too: fork, knife, table. The other text makes no new ones.
    asked, [pair] = follow(ranked(RECORD, settings, 0), CAPTIONS[1::-1], 0.9, 0.2, 0.8)
    assert kinds(asked) == {Sample: 1, ExtractClaims: 2, ToQuestion: 3, YesNo: 3}
    questions = [request.context.prompt[0].text for request in asked if isinstance(request, YesNo)]
    assert questions[1] == "Is there a knife in the image?"
    assert (pair.chosen, pair.rejected) == (CAPTIONS[0], CAPTIONS[1])
    assert (pair.provenance.scores["chosen_score"], pair.provenance.scores["rejected_score"]) == (0, -1)


def test_all_pairs_come_widest_first_and_no_more_than_asked_for():
    settings = RankedSettings(candidates=4, pairs="all", most_pairs=3, margin=0.5)
    _, pairs = follow(ranked(RECORD, settings, 0), CAPTIONS)
    margins = [pair.provenance.scores["margin"] for pair in pairs]
    assert margins == pytest.approx([4 / 3, 1, 2 / 3])
    assert len({pair.id for pair in pairs}) == 3


def test_a_random_pair_is_any_two_that_differ_and_the_better_is_chosen():
    settings = RankedSettings(candidates=4, pairs="random", length_gap=1.0)
    rates = dict(zip(CAPTIONS, (1 / 3, 0, -1 / 3, 1), strict=True))
    drawn = set()
    for seed in range(60):
        _, [pair] = follow(ranked(RECORD, settings, seed), CAPTIONS)
        assert rates[pair.chosen] > rates[pair.rejected]
        drawn.add((pair.chosen, pair.rejected))
    assert len(drawn) == 6


def test_likelihood_orders_what_the_judge_has_ranked_but_pairs_no_equals():
    settings = RankedSettings(candidates=3, likelihood_weight=0.4, pairs="all", most_pairs=9)
    same = "I can see a fork on the table."
    scored = [LogProbs((-1.0,) * 3, ()), LogProbs((-9.0,), ()), LogProbs((-2.0, -4.0), ())]
    asked, pairs = follow(ranked(RECORD, settings, 0), [CAPTIONS[0], same, CAPTIONS[1]], scored)
    assert isinstance(asked[-1], Score)
    # By the judge both of one fork are better than the knife's; the unlikely one stays ahead of it by its rank there.
    assert [(pair.chosen, pair.rejected) for pair in pairs] == [(CAPTIONS[0], CAPTIONS[1]), (same, CAPTIONS[1])]


def test_chair_ranks_by_the_share_that_is_invented():
    # Invented shares 0, 1/2, 2/3, 0; recall 1/3, 1/3, 1/3, 1.
    settings = RankedSettings(candidates=3, score="chair")
    asked, [pair] = follow(ranked(RECORD, settings, 0), CAPTIONS[:3])
    assert (pair.chosen, pair.rejected) == (CAPTIONS[0], CAPTIONS[2])
    assert pair.provenance.scores["margin"] == pytest.approx(2 / 3)
    assert set(kinds(asked)) == {Sample, *judge_needs(settings)} == {Sample, Detect}
    settings = RankedSettings(candidates=2, score="chair", recall_weight=0.5)
    _, [pair] = follow(ranked(RECORD, settings, 0), [CAPTIONS[0], CAPTIONS[3]])
    assert pair.chosen == CAPTIONS[3]
    assert pair.provenance.scores["margin"] == pytest.approx(0.5 * (1 - 1 / 3))


def test_answers_of_other_models_compete(tmp_path):
    lines, listed = tmp_path / "lines.jsonl", tmp_path / "listed.json"
    lines.write_text(json.dumps({"id": "r1", "text": CAPTIONS[3], "model": "big"}) + "\n")
    completions = [{"model": "small", "response": CAPTIONS[2]}, {"model": "middle", "response": CAPTIONS[1]}]
    listed.write_text(json.dumps([{"img_path": "images/a.png", "completions": completions}]))
    asked, [pair] = follow(ranked(RECORD, RankedSettings(candidates=0, pool=(lines,), with_reference=True), 0))
    assert not any(isinstance(request, Sample) for request in asked)
    assert (pair.chosen, pair.provenance.chosen_source) == (CAPTIONS[3], "answer of big")
    _, [pair] = follow(ranked(RECORD, RankedSettings(candidates=1, pool=(listed,)), 0), [CAPTIONS[0]])
    assert (pair.provenance.chosen_source, pair.provenance.rejected_source) == ("own sample", "answer of small")
    _, outcome = follow(ranked(replace(RECORD, id="r9", images=()), RankedSettings(candidates=0, pool=(lines,)), 0))
    assert outcome.reason == "too-few-candidates"
    for wrong, said in (
        ("[1]", "not an object"),
        ("{", "can't be read"),
        ('{"id": "r1"}', "a text"),
        ("", "no answers"),
    ):
        bad = tmp_path / f"bad{len(wrong)}.jsonl"
        bad.write_text(wrong)
        with pytest.raises(UserError, match=said):
            follow(ranked(RECORD, RankedSettings(candidates=0, pool=(bad,)), 0))


def test_sentence_beams_by_hand():
    """Two beams, two sentences. Rates of sentences by the oracle: fork 1/3, knife -1/3; cup 1/3, spoon -1/3."""
    settings = RankedSettings(
        candidates=2, search="sentence-beams", likelihood_weight=0.1, max_sentences=2, length_gap=1
    )
    fork, knife, cup, spoon = "There is a fork.", "There is a knife.", " There is a cup.", " There is a spoon."
    scored = [
        # Per token, the end of the turn last: the knife is likelier (-1 a token against -2).
        [LogProbs((-2.0, -2.0, -9.0), ()), LogProbs((-1.0, -1.0, -9.0), ())],
        # The knife, with a cup (two tokens more, -1 each), with a spoon (-3 each); then the fork, the same.
        [
            LogProbs((-1.0,) * 2 + (-9.0,), ()),
            LogProbs((-1.0,) * 4 + (-9.0,), ()),
            LogProbs((-1.0, -1.0, -3.0, -3.0, -9.0), ()),
        ],
        [
            LogProbs((-2.0,) * 2 + (-9.0,), ()),
            LogProbs((-2.0, -2.0, -1.0, -1.0, -9.0), ()),
            LogProbs((-2.0, -2.0, -3.0, -3.0, -9.0), ()),
        ],
    ]
    asked, [pair] = follow(
        ranked(RECORD, settings, 0), [fork, knife], scored[0], [cup, spoon, cup, spoon], scored[1], scored[2]
    )
    assert pair.chosen == fork + cup
    assert pair.rejected == knife + spoon
    # Fork: rank 2 of 2 by likelihood, 1 of 2 by the judge; cup: first by both. (0.1 * 1 + 0.9 * 0.5 + 0.5) / 3.
    assert pair.provenance.scores["chosen_score"] == pytest.approx(-(0.1 * 1 + 0.9 * 0.5 + 0.5) / 3)
    # Knife: 1 of 2, 2 of 2; spoon: last by both.
    assert pair.provenance.scores["rejected_score"] == pytest.approx(-(0.1 * 0.5 + 0.9 * 1 + 1) / 3)
    after = [request.after for request in asked if isinstance(request, Sample)]
    assert after == [("", ""), (knife, knife, fork, fork)]
    with pytest.raises(UserError, match="sentence-beams"):
        RankedSettings(search="sentence-beams", score="chair")


def test_sentence_beams_end_where_the_model_ends_its_turn():
    settings = RankedSettings(candidates=2, search="sentence-beams", max_sentences=5, length_gap=1)
    even = [LogProbs((-1.0, -9.0), ()), LogProbs((-1.0, -9.0), ())]
    _, [pair] = follow(ranked(RECORD, settings, 0), ["There is a fork.", "There is a knife."], even, ["", "", "", ""])
    assert (pair.chosen, pair.rejected) == ("There is a fork.", "There is a knife.")


def test_likely_and_unlikely_beginnings_are_followed():
    paths = [Path(str(place), -float(place)) for place in range(10)]
    assert [path.text for path in followed(paths, 5)] == ["0", "8", "9"]
    assert followed(paths[:3], 5) == paths[:3]
    assert ranks([0.1, 0.9, 0.5]) == [1.0, 1 / 3, 2 / 3]


def test_the_reference_can_compete():
    settings = RankedSettings(candidates=1, with_reference=True)
    _, [pair] = follow(ranked(RECORD, settings, 0), [OWN])
    assert (pair.chosen, pair.provenance.chosen_source) == (RECORD.reference, "reference")


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ([CAPTIONS[0], CAPTIONS[0].upper()], "candidates-alike"),
        (["", CAPTIONS[0]], "candidates-empty"),
        ([CAPTIONS[0], "I can see a fork on the table."], "none-better"),
    ],
)
def test_ranking_rejects_with_a_reason(answers, reason):
    _, outcome = follow(ranked(RECORD, RankedSettings(candidates=2), 0), answers)
    assert outcome.reason == reason
    assert outcome.remedy


@given(order=st.permutations(CAPTIONS), margin=st.floats(0, 2), gap=st.floats(0, 1))
def test_every_pair_keeps_margin_and_length(order, margin, gap):
    settings = RankedSettings(candidates=4, pairs="all", most_pairs=99, margin=margin, length_gap=gap)
    _, outcome = follow(ranked(RECORD, settings, 0), order)
    for pair in [] if isinstance(outcome, Rejection) else outcome:
        scores = ORACLE.rate([Rate(RECORD, RECORD.prompt, text) for text in (pair.chosen, pair.rejected)])
        assert scores[0] - scores[1] == pytest.approx(pair.provenance.scores["margin"])
        assert scores[0] - scores[1] >= margin
        lengths = sorted(len(text.split()) for text in (pair.chosen, pair.rejected))
        assert lengths[1] - lengths[0] <= gap * lengths[1]


def test_ranking_a_single_answer_is_refused():
    with pytest.raises(UserError, match="at least 2"):
        RankedSettings(candidates=1)


# self-correct


def test_the_judge_puts_the_own_description_right():
    asked, [pair] = follow(self_correct(RECORD, SelfCorrectSettings(rewriter="judge", enrich=False), 0), [OWN])
    assert (pair.chosen, pair.rejected) == ("There is a fork and a cup on the table.", OWN)
    assert (pair.provenance.variant, pair.provenance.scores["invented"]) == ("rectified", 1)
    assert kinds(asked)[Detect] == 2  # before and after


def test_enriching_fills_in_what_was_left_out():
    _, [pair] = follow(self_correct(RECORD, SelfCorrectSettings(rewriter="judge"), 0), [OWN])
    assert pair.chosen == "There is a fork, a cup and a burger on the table."


def test_the_model_corrects_itself_when_told_what_is_wrong():
    settings = SelfCorrectSettings(enrich=False)
    better, right = "There is a fork, a knife and a burger on the table.", "There is a fork on the table."
    asked, [pair] = follow(self_correct(RECORD, settings, 0), [OWN], [better], [right])
    assert (pair.chosen, pair.rejected, pair.provenance.attempts) == (right, OWN, 2)
    first, second = (request for request in asked[1:] if isinstance(request, Sample))
    assert [turn.role for turn in first.context.prompt] == ["user", "assistant", "user"]
    assert first.context.prompt[1].text == OWN
    assert "there is no knife" in first.context.prompt[2].text
    assert second.context.prompt[1].text == better


def test_by_default_the_model_corrects_itself_and_then_adds_what_it_left_out():
    """AVES-DPO's procedure; for the picture world's model, which can't be told, the judge rewrites."""
    right, full = "There is a fork and a cup on the table.", "There is a fork, a cup and a burger on the table."
    asked, [pair] = follow(self_correct(RECORD, SelfCorrectSettings(), 0), [OWN], [right], [full])
    assert (pair.chosen, pair.rejected, pair.provenance.variant) == (full, OWN, "enriched")
    orders = [request.context.prompt[-1].text for request in asked[1:] if isinstance(request, Sample)]
    assert "there is no knife" in orders[0]
    assert "leaves out what the image shows: burger" in orders[1]
    _, [drawn] = follow(self_correct(replace(RECORD, source="world:pairs"), SelfCorrectSettings(), 0), [OWN])
    assert (drawn.chosen, drawn.provenance.chosen_source) == (full, "own description, corrected by the judge")


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ([[RECORD.reference]], "nothing-wrong"),
        ([[""]], "description-empty"),
        ([[OWN], [OWN], [OWN], [OWN]], "still-wrong"),
        ([[OWN], [""]], "corrected-empty"),
    ],
)
def test_self_correction_rejects_with_a_reason(answers, reason):
    _, outcome = follow(self_correct(RECORD, SelfCorrectSettings(enrich=False), 0), *answers)
    assert outcome.reason == reason
    assert outcome.remedy


# spa


def test_spa_takes_the_answer_that_alignment_made_likelier():
    scored = [LogProbs((-1.0, -2.0), (-2.0, -5.0)), LogProbs((-1.0,), (-0.5,)), LogProbs((-3.0,), (-2.0,))]
    _, [pair] = follow(spa(RECORD, SpaSettings(candidates=3), 0), CAPTIONS[:3], scored)
    assert (pair.chosen, pair.rejected) == (CAPTIONS[0], CAPTIONS[2])
    # Rewards 0.1 * 4 and 0.1 * -1.
    assert pair.provenance.scores["margin"] == pytest.approx(0.5)
    assert pair.provenance.scores["confidence"] == pytest.approx(1 / (1 + math.exp(-0.5)))


def test_spa_per_token_divides_by_length():
    scored = [LogProbs((-1.0,) * 10, (-1.4,) * 10), LogProbs((-1.0,), (-2.0,))]
    _, [pair] = follow(spa(RECORD, SpaSettings(per_token=True), 0), CAPTIONS[:2], scored)
    assert pair.chosen == CAPTIONS[1]


def test_spa_without_any_alignment_has_nothing_to_say():
    same = [LogProbs((-1.0,), (-1.0,)), LogProbs((-2.0,), (-2.0,))]
    _, outcome = follow(spa(RECORD, SpaSettings(), 0), CAPTIONS[:2], same)
    assert outcome.reason == "no-margin"


# ha-dpo, beyond test_procedures


def test_ha_dpo_puts_both_sides_into_one_style():
    settings = HaDpoSettings(questions=False)
    asked, pairs = follow(ha_dpo(RECORD, settings, 0), [OWN])
    assert kinds(asked)[Restyle] == 3
    assert len({pair.chosen for pair in pairs}) == 3
    for pair in pairs:
        assert pair.provenance.variant == "style"
        assert not wrong(pair.chosen)
        assert wrong(pair.rejected)
        # Without their objects the two sides are the same, but for an article.
        assert same_wording(pair.chosen, pair.rejected, WORDS.lexicon) > 0.8


def test_ha_dpo_drops_rewritings_that_say_something_else():
    class Careless(type(ORACLE)):
        def restyle(self, requests):
            return [("There is a knife on the table.", request.texts[1]) for request in requests]

    panel = Panel((Careless(ORACLE.lexicon, ORACLE.writers, ORACLE.partner, ORACLE.scenes),))
    _, outcome = follow(ha_dpo(RECORD, HaDpoSettings(styles=2, questions=False), 0), [OWN], panel=panel)
    assert outcome.reason == "not-restyled"


def test_ha_dpo_corrects_counts_only_if_asked_to():
    text = "There are two forks and a cup on the table."
    _, outcome = follow(ha_dpo(RECORD, HaDpoSettings(styles=0, questions=False, faults="objects"), 0), [text])
    assert outcome.reason == "description-nothing-invented"
    _, [pair] = follow(ha_dpo(RECORD, HaDpoSettings(styles=0, questions=False), 0), [text])
    assert (pair.chosen, pair.rejected) == ("There is a fork and a cup on the table.", text)


def test_ha_dpo_asks_the_judges_questions_as_many_no_as_yes():
    settings = HaDpoSettings(styles=0)
    asked, pairs = follow(ha_dpo(RECORD, settings, 0), [OWN])
    assert kinds(asked)[MakeQuestions] == 1
    assert [(pair.prompt[0].text, pair.chosen) for pair in pairs[1:]] == [
        ("Is there a knife in the image?", "No."),
        ("Is there a burger in the image?", "Yes."),
    ]


def test_the_panel_knows_beforehand_what_a_record_lacks():
    bare = replace(RECORD, annotations=None)
    for kind in (Detect, Rate, Compare, Verify):
        assert PANEL.lacks([kind], bare).reason == "no-annotations"
        assert PANEL.lacks([kind], RECORD) is None
    assert PANEL.lacks([Inject, Restyle, ExtractClaims, ToQuestion], bare) is None
