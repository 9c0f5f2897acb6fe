"""What a study's file may say, what follows from it, and what is refused before anything runs."""

from __future__ import annotations

import pytest
import yaml

from veridical.errors import UserError
from veridical.study.definition import GAP, parse, read
from veridical.study.starting import EXAMPLE, InitConfig, run

AXES = {"construction": ["bpo-image", {"name": "bdhs", "tries": 2}], "objective": [{"name": "dpo", "beta": 0.3}, "sft"]}


def test_a_grid_has_every_combination_and_its_settings():
    study = parse({"base": {"limit": 40, "objective": {"name": "dpo", "nll_weight": 3}}, "axes": AXES})
    assert [arm.name for arm in study.arms] == ["bpo-image.dpo", "bpo-image.sft", "bdhs.dpo", "bdhs.sft"]
    arm = study.arms[2]
    assert arm.levels == {"construction": "bdhs", "objective": "dpo"}
    assert arm.settings == {
        "limit": 40, "objective": "dpo", "objective.nll_weight": 3, "objective.beta": 0.3,
        "construction": "bdhs", "construction.tries": 2,
    }  # fmt: skip
    # Another method does not inherit the base method's settings.
    assert study.arms[3].settings == {"limit": 40, "construction": "bdhs", "construction.tries": 2, "objective": "sft"}
    assert study.seeds == (0, 1, 2)
    assert [question.axis for question in study.questions] == ["construction", "objective"]
    assert study.questions[0].metric == GAP


def test_one_at_a_time_changes_one_axis_from_the_first_levels():
    study = parse({"axes": {**AXES, "epochs": [1, 2, 3]}, "design": "one-at-a-time"})
    assert [arm.name for arm in study.arms] == [
        "bpo-image.dpo.1", "bdhs.dpo.1", "bpo-image.sft.1", "bpo-image.dpo.2", "bpo-image.dpo.3",
    ]  # fmt: skip
    assert study.arms[-1].settings["align.epochs"] == 3


def test_a_list_names_its_arms():
    arms = [{"label": "one", "construction": "bdhs"}, {"label": "two", "construction": "povid", "objective": "sft"}]
    study = parse({"design": "list", "arms": arms, "base": {"objective": {"name": "dpo", "beta": 0.2}}})
    assert study.arms[1].settings == {"construction": "povid", "objective": "sft"}
    assert study.axes == {"arm": ("one", "two")}
    assert study.questions[0].levels == ("one", "two")


def test_short_names_and_sets_of_settings():
    study = parse(
        {"axes": {"noise": [300, 450], "way": [{"label": "both", "set": {"construction": ["povid", "bdhs"]}}]}}
    )
    assert study.arms[1].settings == {"construction.view": "noise:450", "construction": ["povid", "bdhs"]}
    assert study.values["noise"] == (300, 450)


WRONG = [
    ({"axis": {}}, "unknown 'axis'; did you mean 'axes'"),
    ({"axes": {"constructon": ["bdhs"]}}, "nothing is called 'constructon'; did you mean 'construction'"),
    ({"axes": {"objective": []}}, "give a list of levels"),
    ({"axes": {"objective": ["dpo", "dpo"]}}, "dpo is there twice"),
    ({"axes": {"objective": [{"beta": 1}]}}, "has a `name`, or a `label` with `set`"),
    ({"axes": {"objective": ["dpo"]}, "base": {"colour": 1}}, "base: nothing is called 'colour'"),
    ({"axes": {"objective": ["dpo"]}, "seeds": [0, 0]}, "has one twice"),
    ({"axes": {"objective": ["dpo"]}, "seeds": [-1]}, "whole numbers from 0"),
    ({"axes": {"objective": ["dpo"]}, "design": "gird"}, "did you mean 'grid'"),
    ({"axes": {"objective": ["dpo"]}, "budget_hours": -1}, "no number above 0"),
    ({"axes": AXES, "questions": [{"compare": {"objective": ["dpo", "sfd"]}}]}, "no 'sfd'; did you mean 'sft'"),
    ({"axes": AXES, "questions": [{"factor": "size"}]}, "no 'size'"),
    ({"axes": AXES, "questions": [{"interaction": {"objective": ["dpo", "sft"]}}]}, "two axes with two levels each"),
    ({"axes": AXES, "questions": [{"level": {"objective": "dpo"}}]}, "level and than go together"),
    ({"axes": AXES, "questions": [{"factor": "objective", "trend": "objective"}]}, "ask one of"),
    ({"axes": AXES, "questions": [{"factor": "objective", "at": {"construction": "x"}}]}, "there are bpo-image, bdhs"),
    ({"axes": AXES, "questions": [{"compare": {"objective": ["dpo", "sft"]}, "expect": "good"}]}, "expect: no 'good'"),
    ({"arms": [{"construction": "bdhs"}], "design": "list"}, "give it a label"),
    ({"base": {}}, "no arms"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "message"), WRONG)
def test_what_cannot_be_is_refused_with_its_place(given, message):
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        parse(given, "my.yaml")


def test_the_file_to_start_from_is_a_study(tmp_path, capsys):
    path = run(InitConfig(out=tmp_path / "study.yaml"))
    assert read(path).title == yaml.safe_load(EXAMPLE)["title"]
    assert "--dry-run" in capsys.readouterr().out
    with pytest.raises(UserError, match="is there already"):
        run(InitConfig(out=path))
