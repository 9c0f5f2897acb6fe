"""The procedures, followed by hand: what they ask for, and what they make of given answers.

Judges are the real oracle; the model's answers are given, so that what must come out can be worked out on paper.
"""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.constructions.follow import PANEL, follow

from veridical.constructions.balanced_correction import BalancedCorrectionSettings, balanced_correction
from veridical.constructions.bpo_image import BpoImageSettings, bpo_image
from veridical.constructions.chosen import OWN_CAPTION
from veridical.constructions.protocol import Answer, signed
from veridical.constructions.registry import CONSTRUCTIONS, construction, judge_needs, settings_type
from veridical.errors import UserError
from veridical.judges.interface import METHODS
from veridical.records import Annotations, ImageFile, Message, ObjectInImage, Record, Rejection
from veridical.vlm.images.views import Clean, Noise

RECORD = Record(
    "r1",
    (ImageFile(Path("a.png"), "00"),),
    (Message("user", "Describe this image."),),
    reference="There is a fork and a cup on the table.",
    annotations=Annotations((ObjectInImage("fork"), ObjectInImage("cup"), ObjectInImage("burger"))),
    source="folder",
)
OWN = "There is a fork, a knife and a cup on the table."


def test_bpo_takes_the_answer_to_the_noised_image():
    settings = BpoImageSettings(view="noise:700", candidates=2, temperature=0.5)
    asked, [pair] = follow(bpo_image(RECORD, settings, 5), ["There is a fork on the table.", "A boat."])
    assert [request.context.view for request in asked] == [Noise(700)]
    assert len(set(asked[0].keys)) == 2
    assert (pair.chosen, pair.rejected) == (RECORD.reference, "There is a fork on the table.")
    assert pair.provenance.parameters["view"] == "noise:700"
    assert (pair.provenance.attempts, pair.provenance.chosen_source) == (1, "reference")


def test_the_builder_says_how_a_pair_was_made():
    settings = BpoImageSettings(view=None, alpha=0.5)
    _, [pair] = follow(bpo_image(RECORD, settings, 5), ["A boat."])
    made = signed(pair, "bpo-image", settings, 5)
    assert made.id == "r1/bpo-image/noisy-image"
    assert (made.provenance.construction, made.provenance.seed) == ("bpo-image", 5)
    assert (made.provenance.parameters["alpha"], made.provenance.parameters["view"]) == (0.5, "noise:900")
    assert signed(made, "another", settings, 6) == made


@pytest.mark.parametrize(("source", "step"), [("folder", 900), ("world:pairs", 450)])
def test_bpo_default_noise_depends_on_the_source_and_is_written_down(source, step):
    asked, [pair] = follow(bpo_image(replace(RECORD, source=source), BpoImageSettings(), 0), ["A boat."])
    assert asked[0].context.view == Noise(step)
    assert pair.provenance.parameters["view"] == f"noise:{step}"


def test_bpo_without_a_reference_takes_the_own_greedy_caption():
    record = replace(RECORD, reference=None, annotations=None)
    asked, [pair] = follow(bpo_image(record, BpoImageSettings(), 0), ["A cup."], ["A boat."])
    assert asked[0].context.view == Clean()
    assert asked[0].sampling.temperature == 0
    assert (pair.chosen, pair.provenance.chosen_source) == ("A cup.", OWN_CAPTION)
    asked, outcome = follow(bpo_image(record, BpoImageSettings(without_reference="reject"), 0))
    assert asked == []
    assert outcome.reason == "no-reference"


@pytest.mark.parametrize(
    ("answers", "settings", "reason"),
    [
        (["there is a FORK and a cup on the  table."], {}, "rejected-same-as-chosen"),
        ([""], {}, "rejected-empty"),
        ([Answer("There is", False)], {}, "rejected-unfinished"),
        (["A fork and a cup on a table."], {"only_invented": True}, "rejected-nothing-invented"),
        (["A knife."], {"match_objects": True}, "rejected-other-object-count"),
        (["A knife.", ""], {"match_objects": True, "candidates": 2}, "rejected-none-fits"),
    ],
)
def test_bpo_rejects_with_a_reason(answers, settings, reason):
    _, outcome = follow(bpo_image(RECORD, BpoImageSettings(**settings), 0), answers)
    assert isinstance(outcome, Rejection)
    assert outcome.reason == reason
    assert outcome.remedy


def test_bpo_keeps_the_first_candidate_that_qualifies():
    settings = BpoImageSettings(candidates=4, match_objects=True, only_invented=True)
    answers = ["A fork and a cup.", "A knife.", "A fork and a knife.", "A cup and a boat."]
    _, [pair] = follow(bpo_image(RECORD, settings, 0), answers)
    assert (pair.rejected, pair.provenance.attempts) == ("A fork and a knife.", 3)


@pytest.mark.parametrize(
    ("name", "settings"),
    [("bpo-image", BpoImageSettings(only_invented=True)), ("balanced-correction", BalancedCorrectionSettings())],
)
def test_no_model_time_is_spent_on_a_record_that_the_judge_knows_nothing_of(name, settings):
    """The builder asks the judges beforehand, by what a construction says it needs."""
    assert PANEL.lacks(judge_needs(name, settings), RECORD) is None
    assert PANEL.lacks(judge_needs(name, settings), replace(RECORD, annotations=None)).reason == "no-annotations"


def test_bpo_rejects_a_reference_that_is_too_long():
    asked, outcome = follow(bpo_image(replace(RECORD, reference="a word " * 200), BpoImageSettings(), 0))
    assert asked == []
    assert outcome.reason == "chosen-too-long"


@pytest.mark.parametrize(
    ("correction", "chosen"),
    [
        ("remove", "There is a fork and a cup on the table."),
        ("replace", "There is a fork, a burger and a cup on the table."),
        ("complete", "There is a fork, a cup and a burger on the table."),
    ],
)
def test_balanced_correction_corrects_the_own_description(correction, chosen):
    settings = BalancedCorrectionSettings(correction=correction, omission_share=0)
    asked, [pair] = follow(balanced_correction(RECORD, settings, 0), [OWN])
    assert asked[0].context.view == Clean()
    assert (pair.chosen, pair.rejected) == (chosen, OWN)
    assert pair.id == "r1/correction"
    assert pair.provenance.scores == {"invented": 1}


def test_balanced_correction_omission_pairs_leave_out_one_true_object():
    _, [correction, omission] = follow(
        balanced_correction(RECORD, BalancedCorrectionSettings(omission_share=1), 0), [OWN]
    )
    assert omission.chosen == correction.chosen
    assert omission.rejected in ("There is a fork on the table.", "There is a cup on the table.")


def test_balanced_correction_repetition_pairs_name_a_true_object_again_in_the_invented_ones_place():
    settings = BalancedCorrectionSettings(omission_share=0, repetition_share=1)
    _, [correction, repetition] = follow(balanced_correction(RECORD, settings, 0), [OWN])
    assert repetition.chosen == correction.chosen == "There is a fork and a cup on the table."
    assert repetition.rejected in ("There is a fork, a fork and a cup on the table.",
                                   "There is a fork, a cup and a cup on the table.")  # fmt: skip
    assert repetition.provenance.variant == "repetition"


def test_balanced_correction_questions_come_as_one_no_and_one_yes():
    _, pairs = follow(
        balanced_correction(RECORD, BalancedCorrectionSettings(omission_share=0, question_share=1), 0), [OWN]
    )
    no, yes = pairs[1:]
    assert (no.prompt[0].text, no.chosen, no.rejected) == ("Is there a knife in the image?", "No.", "Yes.")
    # The burger is there, and the description left it out.
    assert (yes.prompt[0].text, yes.chosen, yes.rejected) == ("Is there a burger in the image?", "Yes.", "No.")


def test_balanced_correction_shares_are_kept_over_many_records():
    settings = BalancedCorrectionSettings(omission_share=0.7, question_share=0.25)
    variants = []
    for index in range(400):
        _, pairs = follow(balanced_correction(replace(RECORD, id=f"r{index}"), settings, 1), [OWN])
        variants += [pair.provenance.variant for pair in pairs]
    assert variants.count("correction") == 400
    assert 250 < variants.count("omission") < 310  # 280, and three standard deviations of 9.2
    assert variants.count("question-no") == variants.count("question-yes")
    assert 74 < variants.count("question-no") < 126


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        (["There is a fork on the table."], "description-nothing-invented"),
        ([""], "description-empty"),
        (["There is a knife on the table."], "not-corrected"),
        (["Lots of knives!"], "not-corrected"),
    ],
)
def test_balanced_correction_rejects_with_a_reason(answers, reason):
    _, outcome = follow(balanced_correction(RECORD, BalancedCorrectionSettings(), 0), answers)
    assert outcome.reason == reason
    assert outcome.remedy


def test_balanced_correction_right_descriptions_can_give_omission_pairs():
    settings = BalancedCorrectionSettings(omission_share=1, omit_from="all", question_share=1)
    _, [pair] = follow(balanced_correction(RECORD, settings, 0), ["There is a fork and a cup on the table."])
    assert pair.provenance.variant == "omission"


def test_balanced_correction_takes_the_first_candidate_that_makes_something_up():
    settings = BalancedCorrectionSettings(candidates=2, temperature=1.0, omission_share=0)
    _, [pair] = follow(balanced_correction(RECORD, settings, 0), ["There is a fork on the table.", OWN])
    assert (pair.rejected, pair.provenance.attempts) == (OWN, 2)


def test_the_registry_knows_functions_and_settings():
    for name in CONSTRUCTIONS:
        settings = settings_type(name)()
        assert name == construction(name).__name__.replace("_", "-")
        assert judge_needs(name, settings) <= METHODS.keys()
        assert construction(name).__doc__
    assert settings_type("bpo-image") is BpoImageSettings
    assert construction("balanced-correction") is balanced_correction
    with pytest.raises(UserError, match="did you mean 'bpo-image'"):
        construction("bpo_image")


def test_bpo_by_contrast_shows_the_clean_image_and_weakens_a_stream():
    settings = BpoImageSettings(variant="contrast", view="noise:700", alpha=-1.0)
    [asked], [pair] = follow(bpo_image(RECORD, settings, 5), ["A boat."])
    assert asked.context.view == Clean()
    [stream] = asked.sampling.decoding.streams()
    assert stream.view == Noise(700)
    clean, noised = torch.tensor([[2.0, 1.9, -9.0]]), torch.tensor([[0.0, 3.0, 9.0]])
    # The third token is out of the question on the clean image; of the others the noised image decides.
    mixed = asked.sampling.decoding.logits(clean, [noised], torch.zeros(1))
    assert mixed.tolist() == [[0.0, 3.0, float("-inf")]]
    assert pair.provenance.variant == "contrast"
