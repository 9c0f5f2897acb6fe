"""The ledger of claims: every one has a study that can be planned."""

from __future__ import annotations

import pytest

from veridical.errors import UserError
from veridical.study.checks import check_builds, estimate
from veridical.study.claims import chosen, claims, ledger, run_claims, study_of, verdict
from veridical.study.plan import plan


def test_every_claim_has_a_study():
    found = claims()
    assert [claim.number for claim in found] == list(range(1, 42))
    assert all(claim.source and claim.small_model.endswith(".") for claim in found)
    for claim in found:
        assert all(question.expect for question in study_of(claim).questions), claim.name
        assert len(study_of(claim).seeds) >= 3


def test_no_claim_asks_for_more_records_than_there_are(tmp_path):
    for claim in claims():
        check_builds(plan(study_of(claim), tmp_path))


def test_a_dry_run_leaves_nothing_behind(tmp_path, capsys):
    run_claims(["seen-prompts"], tmp_path / "claims", 2, dry_run=True)
    assert "1 claim: about" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["rl-not-better", "external-and-own", "35", "training-against-decoding"])
def test_claims_can_be_planned_and_fit_half_an_hour(tmp_path, name):
    [claim] = chosen([name])
    made = plan(study_of(claim), tmp_path)
    assert 0 < estimate(made, 2) < 3600


def test_claims_not_run_are_listed_and_unknown_ones_refused():
    listed = ledger({})
    assert len(listed) == 41
    assert listed["preferences-beat-sft"]["verdict"] == "not run"
    with pytest.raises(UserError, match="did you mean 'label-noise'"):
        chosen(["label-nose"])


@pytest.mark.parametrize(
    ("holds", "told", "expected"),
    [
        ([True, True], "better", "supported"),
        ([True, None], "undecided", "undecided"),
        ([True, False], "worse", "contradicted"),
        ([True, True], "not measured", "failed"),
    ],
)
def test_a_claim_is_supported_where_all_its_questions_come_out(holds, told, expected):
    answers = [{"holds": one, "verdict": "better", "sentence": "A."} for one in holds]
    answers[-1]["verdict"] = told
    assert verdict({"answers": answers})["verdict"] == expected
