"""The studies that come along can be planned."""

from __future__ import annotations

from pathlib import Path

import pytest

from veridical.study.definition import read
from veridical.study.plan import plan
from veridical.study.starting import EXAMPLE

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("name", ["study.yaml", "faithful_control.yaml", "construction_and_objective.yaml"])
def test_it_can_be_planned(tmp_path, name):
    made = plan(read(EXAMPLES / name), tmp_path)
    assert len(made.cells) == 18


def test_the_one_to_start_from_is_what_init_writes():
    assert (EXAMPLES / "study.yaml").read_text() == EXAMPLE
