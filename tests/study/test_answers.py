"""What a study answers, on numbers whose truth is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from veridical.protocols.inference import Effect, Needed
from veridical.protocols.statistics import resample
from veridical.study.answers import answers
from veridical.study.comparisons import matches
from veridical.study.definition import parse
from veridical.study.measure import MeasuredStudy, number, over_seeds, seed_pool, squared_weights
from veridical.study.tables import as_latex, escaped
from veridical.study.wording import said, settles

PICTURES = 200


def measured(study, truth, seeds=0.5, noise=30.0) -> MeasuredStudy:
    """Numbers of all cells: by arm a true mean, each training off by its own amount, each picture by its own."""
    rng = np.random.default_rng(1)
    hard = rng.normal(0, 20, PICTURES)
    weights = np.concatenate([np.ones((1, PICTURES)), resample(PICTURES, 0, 400)]) / PICTURES
    apart = (1 - np.eye(PICTURES)) / (PICTURES - 1)
    items = {"base": 50 + hard + rng.normal(0, noise, PICTURES)}
    for arm in study.arms:
        for seed in study.seeds:
            items[f"{arm.name}.s{seed}"] = (
                truth[arm.name] + hard + rng.normal(0, seeds) + rng.normal(0, noise, PICTURES)
            )
    cells = [name for name in items if name != "base"]
    return MeasuredStudy(
        {"m": {name: weights @ one for name, one in items.items()}},
        {"m": {name: apart @ one for name, one in items.items()}},
        {}, dict.fromkeys(cells, "base"), {"m": PICTURES}, {"m": "metric"}, {"m": "protocol/1"}, {},
    )  # fmt: skip


def study_of(axes, questions, seeds=(0, 1, 2), **more):
    return parse({"axes": axes, "questions": questions, "seeds": list(seeds), "metric": "m", **more})


def test_a_clear_difference_is_decided_and_a_small_one_is_not():
    axes = {"construction": ["povid", "bdhs"], "objective": ["dpo", "sft"]}
    study = study_of(axes, [{"compare": {"objective": ["dpo", "sft"]}, "expect": "better"}, {"factor": "construction"}])
    truth = {"povid.dpo": 30, "bdhs.dpo": 30.5, "povid.sft": 45, "bdhs.sft": 45.5}
    clear, open_one = answers(study, measured(study, truth))
    assert (clear.verdict, clear.holds) == ("better", True)
    assert clear.comparisons[0].effect.value == pytest.approx(-15, abs=3)
    assert "dpo is better than sft: metric \N{MINUS SIGN}1" in clear.sentence
    assert open_one.verdict == "undecided"
    assert set(open_one.best) == {"povid", "bdhs"}
    assert "can't be told from" in open_one.sentence
    assert "would settle" in open_one.sentence


def test_the_control_beats_what_is_worse_than_it():
    study = study_of({"objective": ["dpo", "sft"]}, [{"compare": {"objective": ["dpo", "sft"]}, "expect": "better"}])
    [answer] = answers(study, measured(study, {"dpo": 60, "sft": 40}))
    assert (answer.verdict, answer.holds) == ("worse", False)


def test_against_the_base_and_where_more_is_better():
    study = study_of({"objective": ["dpo"]}, [{"compare": {"objective": ["dpo", "base"]}, "better": "higher"}])
    [answer] = answers(study, measured(study, {"dpo": 70}))
    assert answer.verdict == "better"
    assert answer.comparisons[0].effect.value > 10


def test_one_seed_is_said_in_the_verdict():
    study = study_of({"objective": ["dpo", "sft"]}, [{"factor": "objective"}], seeds=[0])
    [answer] = answers(study, measured(study, {"dpo": 20, "sft": 60}))
    assert "One training seed: the interval says nothing about other trainings." in answer.sentence
    assert answer.comparisons[0].effect.seeds is None


def test_trainings_that_differ_much_leave_it_open():
    study = study_of({"objective": ["dpo", "sft"]}, [{"factor": "objective"}])
    [answer] = answers(study, measured(study, {"dpo": 40, "sft": 45}, seeds=8.0))
    assert answer.verdict == "undecided"
    assert "seeds would settle" in settles(answer.comparisons[0])
    far = replace(answer.comparisons[0], needed=Needed(10**6, None, None))
    assert "Not even 100 times as many pictures and seeds" in settles(far)
    both = replace(answer.comparisons[0], needed=Needed(10**6, None, 4))
    assert "About 4 times as many pictures and as many seeds would settle a difference" in settles(both)


def test_alike_within_a_margin_or_how_many_would_settle_it():
    asked = [{"compare": {"objective": ["dpo", "sft"]}, "expect": "alike", "margin": margin} for margin in (20, 2)]
    study = study_of({"objective": ["dpo", "sft"]}, asked)
    wide, narrow = answers(study, measured(study, {"dpo": 40, "sft": 40}))
    assert wide.holds is True
    assert "dpo and sft are alike within 20 points" in wide.sentence
    assert narrow.holds is None
    assert "Undecided whether dpo and sft are alike within 2 points" in narrow.sentence
    assert "would settle this" in narrow.sentence
    # Clearly apart, but perhaps by less than the margin.
    [apart] = answers(study_of({"objective": ["dpo", "sft"]}, asked[:1]), measured(study, {"dpo": 40, "sft": 58}))
    assert apart.holds is None
    assert "dpo is better than sft, undecided whether by 20 points" in apart.sentence


def test_the_same_models_are_said_to_be_the_same():
    study = study_of({"objective": ["dpo", "sft"]}, [{"compare": {"objective": ["dpo", "sft"]}}])
    found = measured(study, {"dpo": 40, "sft": 40})
    for kind in (found.numbers["m"], found.without["m"]):
        kind |= {f"sft.s{seed}": kind[f"dpo.s{seed}"] for seed in (0, 1, 2)}
    [answer] = answers(study, found)
    assert "They measure the same on every picture." in answer.sentence
    assert "would settle" not in answer.sentence


def test_fine_tunings_on_the_same_captions_are_one_training():
    """What is known of trainings does not grow with arms that are the same models: as if the others weren't there."""
    axes = {"construction": ["povid", "bdhs", "bpo"], "objective": ["dpo", "sft"]}
    study = study_of(axes, [{"compare": {"objective": ["dpo", "base"]}}])
    arms = [arm.name for arm in study.arms]
    found = measured(study, dict.fromkeys(arms, 40), seeds=4.0)
    for kind in (found.numbers["m"], found.without["m"]):
        for name in [name for name in kind if ".sft.s" in name]:
            kind[name] = kind[f"povid.sft.s{name[-1]}"]
    fewer = [arm for arm in arms if arm not in ("bdhs.sft", "bpo.sft")]
    for base in (True, False):
        every, some = (seed_pool(found, several, [0, 1, 2], "m", base) for several in (arms, fewer))
        assert (every.variance, every.freedom) == (pytest.approx(some.variance), some.freedom)
    # By hand: three trainings at a third each, and one with all three of its thirds.
    contrast = [(1 / 3, f"{name}.dpo") for name in axes["construction"]]
    contrast += [(-1 / 3, f"{name}.sft") for name in axes["construction"]]
    assert squared_weights(found, contrast, [0, 1, 2]) == pytest.approx(3 / 9 + 1)
    assert squared_weights(measured(study, dict.fromkeys(arms, 40)), contrast, [0, 1, 2]) == pytest.approx(6 / 9)


def test_a_trend_and_a_best_in_between():
    axes = {"epochs": [1, 2, 4]}
    asked = [{"trend": "epochs", "expect": "falls"}, {"between": "epochs", "expect": "better"}]
    study = study_of(axes, asked)
    falls, between = answers(study, measured(study, {"1": 60, "2": 40, "4": 20}))
    assert (falls.holds, between.holds) == (True, None)
    assert falls.comparisons[0].effect.value == pytest.approx(-40, abs=8)
    rises, inner = answers(study, measured(study, {"1": 60, "2": 20, "4": 65}))
    assert (inner.verdict, inner.holds, inner.best) == ("better", True, ("2",))
    assert rises.holds is not True


def test_alike_is_an_interval_within_the_margin():
    asked = [{"compare": {"objective": ["dpo", "ipo"]}, "expect": "alike", "margin": 12}]
    study = study_of({"objective": ["dpo", "ipo"]}, asked)
    assert answers(study, measured(study, {"dpo": 40, "ipo": 40}))[0].holds is True
    assert answers(study, measured(study, {"dpo": 40, "ipo": 52}))[0].holds is None
    assert answers(study, measured(study, {"dpo": 40, "ipo": 80}))[0].holds is False


def test_whether_a_difference_changes_along_another_axis():
    axes = {"construction": ["povid", "bdhs"], "size": [100, 300]}
    asked = [{"interaction": {"construction": ["povid", "bdhs"], "size": [300, 100]}, "expect": "different"}]
    study = study_of(axes, asked)
    assert study.questions[0].ask == "Does the difference of povid and bdhs change between 300 and 100?"
    found = measured(study, {"povid.100": 50, "bdhs.100": 50, "povid.300": 30, "bdhs.300": 50})
    [answer] = answers(study, found)
    cells = [
        (found.numbers["m"][f"povid.300.s{s}"][0] - found.numbers["m"][f"bdhs.300.s{s}"][0])
        - (found.numbers["m"][f"povid.100.s{s}"][0] - found.numbers["m"][f"bdhs.100.s{s}"][0])
        for s in study.seeds
    ]
    assert answer.comparisons[0].effect.value == pytest.approx(np.mean(cells))
    assert answer.holds is True
    assert answer.sentence.startswith("It changes the difference of povid and bdhs between 300 and 100: metric")
    [alike] = answers(study, measured(study, {"povid.100": 50, "bdhs.100": 40, "povid.300": 50, "bdhs.300": 40}))
    assert alike.holds is None
    assert alike.sentence.startswith("Undecided whether the difference of povid and bdhs between 300 and 100 changes:")


def test_a_number_is_held_against_a_stated_one():
    asked = [{"level": {"objective": "dpo"}, "than": than, "better": "higher", "expect": "better"} for than in (30, 60)]
    study = study_of({"objective": ["dpo", "sft"]}, asked)
    above, below = answers(study, measured(study, {"dpo": 45, "sft": 45}))
    assert (above.holds, below.holds) == (True, False)
    assert above.sentence.startswith("dpo is above 30: metric 4")
    assert below.sentence.startswith("dpo is below 60: metric 4")


def test_a_metric_that_the_pictures_do_not_give_is_said_with_those_that_there_are():
    study = study_of({"objective": ["dpo", "sft"]}, [{"compare": {"objective": ["dpo", "sft"]}, "metric": "other"}])
    [answer] = answers(study, measured(study, {"dpo": 20, "sft": 60}))
    assert answer.verdict == "not measured"
    assert answer.sentence == "Not measured: these pictures give no 'other'; there are m."


def test_many_questions_are_corrected_for_their_number():
    levels = [f"a{number}" for number in range(7)]
    axes = {"way": [{"label": level, "set": {"epochs": number + 1}} for number, level in enumerate(levels)]}
    study = study_of(axes, [{"factor": "way"}], seeds=[0])
    found = measured(study, dict.fromkeys(levels, 40))
    [answer] = answers(study, found)
    raw = [one.effect.p for one in answer.comparisons]
    assert len(raw) == 21
    assert [one.p for one in answer.comparisons] == pytest.approx(multipletests(raw, method="holm")[1].tolist())
    assert {one.verdict for one in answer.comparisons} == {"undecided"}
    assert len(answer.best) >= 5


def test_a_missing_cell_leaves_the_rest_to_be_told():
    study = study_of({"objective": ["dpo", "sft"]}, [{"factor": "objective"}])
    found = measured(study, {"dpo": 20, "sft": 60})
    del found.base_of["sft.s2"]
    [answer] = answers(study, found)
    assert answer.comparisons[0].seeds == (0, 1)
    assert "Over 2 of 3 seeds" in answer.sentence
    del found.base_of["sft.s0"], found.base_of["sft.s1"]
    [answer] = answers(study, found)
    assert answer.verdict == "not measured"


def test_arms_are_matched_in_all_but_the_axis():
    study = study_of({"construction": ["povid", "bdhs"], "objective": ["dpo", "sft"]}, [])
    found = matches(study.arms, "objective", "dpo", "sft", {"construction": "bdhs"})
    assert [(one.name, other.name) for one, other in found] == [("bdhs.dpo", "bdhs.sft")]
    assert [(one.name, other) for one, other in matches(study.arms, "construction", "povid", "base", {})] == [
        ("povid.dpo", None), ("povid.sft", None),
    ]  # fmt: skip


def test_an_effect_over_seeds_is_the_mean_of_the_seeds():
    study = study_of({"objective": ["dpo"]}, [])
    found = measured(study, {"dpo": 10})
    effect = over_seeds(found, [[(1.0, number(found, f"dpo.s{seed}", "m"))] for seed in (0, 1, 2)], "m")
    assert effect.value == pytest.approx(np.mean([found.numbers["m"][f"dpo.s{seed}"][0] for seed in (0, 1, 2)]))
    assert len(effect.by_seed) == 3


def test_latex_prints_what_names_hold():
    assert escaped("a_b & 5% ^") == r"a\_b \& 5\% \textasciicircum{}"
    number_of = {"value": -1.25, "low": -3.0, "high": 0.5}
    text = as_latex({"title": "T", "seeds": [0], "metrics": {"m": {"label": "CHAIRs %", "protocol": "p/1"}}, "base": {},
                     "arms": {"a_b": {"levels": {}, "numbers": {"m": number_of}}}})  # fmt: skip
    assert r"a\_b & $-$1.2 {\scriptsize [$-$3.0, 0.5]} \\" in text
    assert "\\toprule" in text


def test_small_numbers_have_a_decimal_place_more():
    assert said(Effect(-0.16, -0.21, -0.12, 0.01, 0.02, None, 3, 100)) == "−0.16 [−0.21, −0.12]"
    assert said(Effect(0.2, -0.04, 1.4, 0.1, 0.3, None, 3, 100)) == "+0.2 [0.0, +1.4]"
