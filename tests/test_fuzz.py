"""A small slice of the campaign of damaged and hostile inputs (`python -m benchmarks.fuzz`): nothing may break."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.fuzz.campaign import run
from benchmarks.fuzz.targets import TARGETS

TRIES = {"records": 3, "images": 4, "sets": 3, "pairs": 12, "answers": 12, "judgements": 12, "replies": 6, "stores": 10,
         "settings": 12}  # fmt: skip
"""Those that need a model are left to the whole campaign."""


@pytest.mark.parametrize("name", TRIES)
def test_no_mutation_is_a_traceback_or_lost_or_reads_outside(name, tmp_path):
    target = next(one for one in TARGETS if one.name == name)
    outcome = run(target, tmp_path, seed=7, share=TRIES[name] / target.tries)
    assert outcome.faults == []
    assert sum(outcome.mutations.values()) >= TRIES[name]


def test_the_campaign_notices_what_it_looks_for(tmp_path):
    """A target that does all that it shouldn't."""
    from dataclasses import replace

    def bad(good, draw, work):
        Path("/etc/hostname").read_bytes()
        raise RuntimeError("unforeseen")

    target = replace(TARGETS[0], name="bad", tries=1, prepare=lambda folder: None, attempt=bad)
    faults = run(target, tmp_path, seed=0).faults
    assert len(faults) == 2
    assert "RuntimeError: unforeseen" in faults[0]
    assert "read outside: /etc/hostname" in faults[1]
