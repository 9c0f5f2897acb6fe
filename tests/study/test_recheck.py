"""A part of the ledger again, through the command line on fewer records: numbers and verdict follow from its pairs."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from veridical.pairs.dataset import read_pairs

LIMIT = 24


@pytest.mark.end_to_end
def test_a_claim_is_judged_by_what_its_builds_give(tmp_path):
    command = ["study", "--claims", "filter-by-try", "--limit", str(LIMIT), "--out", "claims", "--processes", "2"]
    said = subprocess.run(
        [sys.executable, "-m", "veridical", *command], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    folder = tmp_path / "claims"
    row = json.loads((folder / "claims.json").read_text())["filter-by-try"]
    results = json.loads((folder / "20-filter-by-try.json").read_text())
    assert f"| {row['claim']} |" in said.stdout
    assert row["numbers"].startswith(f"Tried on {LIMIT} records only. ")
    assert row["seeds"] == [0, 1, 2]

    builds = sorted((folder / "work" / "builds").iterdir())
    assert len(builds) == 3
    shares = {
        tries: [100 * sum(p.provenance.attempts <= tries for p in read_pairs(build)) / LIMIT for build in builds]
        for tries in (1, 4)
    }
    asked = dict(zip((1, 4), results["answers"], strict=True))
    effects = {tries: answer["comparisons"][0]["effect"] for tries, answer in asked.items()}
    for tries, than in ((1, 74), (4, 90)):
        assert effects[tries]["value"] == pytest.approx(np.mean(shares[tries]) - than)
        assert sorted(one + than for one in effects[tries]["by_seed"]) == pytest.approx(sorted(shares[tries]))
        assert effects[tries]["low"] <= effects[tries]["value"] <= effects[tries]["high"]
    corrected = multipletests([effects[tries]["p"] for tries in (1, 4)], method="holm")[1]
    assert [asked[tries]["comparisons"][0]["p"] for tries in (1, 4)] == pytest.approx(corrected.tolist())
    holds = [None if p >= 0.05 else effects[tries]["value"] > 0 for tries, p in zip((1, 4), corrected, strict=True)]
    expected = "contradicted" if False in holds else "undecided" if None in holds else "supported"
    assert row["verdict"] == expected
