"""The ledger of claims: every one has a study that can be planned, or says what it needs."""

from __future__ import annotations

import json

import pytest

from veridical.errors import UserError
from veridical.study.checks import check_builds, estimate
from veridical.study.claims import TABLE, chosen, claims, run_claims, study_of, verdict
from veridical.study.plan import plan


def test_every_claim_has_a_study_or_says_what_it_needs():
    found = claims()
    assert [claim.number for claim in found] == list(range(1, 42))
    assert all(bool(claim.needs) != bool(claim.study) for claim in found)
    assert all(claim.source and claim.small_model.endswith(".") for claim in found)
    for claim in found:
        if claim.study:
            assert all(question.expect for question in study_of(claim).questions), claim.name
            assert len(study_of(claim).seeds) >= 3


def test_no_claim_asks_for_more_records_than_there_are(tmp_path):
    for claim in claims():
        if claim.study:
            check_builds(plan(study_of(claim), tmp_path))


@pytest.mark.parametrize("name", ["rl-not-better", "external-and-own", "35", "training-against-decoding"])
def test_claims_can_be_planned_and_fit_half_an_hour(tmp_path, name):
    [claim] = chosen([name])
    made = plan(study_of(claim), tmp_path)
    assert 0 < estimate(made, 2) < 3600


def test_claims_that_need_more_are_listed_and_unknown_ones_refused(tmp_path, capsys):
    path = run_claims(["seen-prompts"], tmp_path, 1, dry_run=False)
    assert path == tmp_path / TABLE
    ledger = json.loads((tmp_path / "claims.json").read_text())
    assert len(ledger) == 41
    assert ledger["seen-prompts"]["verdict"] == "needs what isn't there"
    assert ledger["preferences-beat-sft"]["verdict"] == "not run"
    assert "Needs records with prompts" in capsys.readouterr().out
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
