"""The support table says what passes, no more and no less.

`pytest tests/families --update-support` writes it anew.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import transformers
from tests.families import checks
from tests.families.catalogue import FAMILIES

from veridical.vlm.inputs.batch_preprocess import prepare_all
from veridical.vlm.inputs.prepare import prepare
from veridical.vlm.model import support

TABLE = Path(support.__file__).with_name("support.json")


class Outcomes:
    """What passed in this session, by family and column."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, str | bool]] = {}

    def add(self, family: checks.Family, column: str, passed: bool) -> None:
        row = self.rows.setdefault(family.name, {"model_type": family.vlm.family, "note": family.tiny.note})
        row[column] = passed

    def write(self) -> None:
        table = {"transformers": transformers.__version__, "families": dict(sorted(self.rows.items()))}
        TABLE.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")


@pytest.fixture(scope="session")
def outcomes(request) -> Iterator[Outcomes]:
    found = Outcomes()
    yield found
    if request.config.getoption("--update-support"):
        found.write()


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory) -> checks.Family:
    return checks.Family(request.param, FAMILIES[request.param](), tmp_path_factory.mktemp("family"))


@pytest.mark.parametrize("column", checks.COLUMNS)
def test_the_table_says_what_passes(request, family, column, outcomes):
    error = None
    try:
        checks.COLUMNS[column](family)
    except Exception as raised:
        error = raised
    outcomes.add(family, column, error is None)
    if request.config.getoption("--update-support"):
        return
    says = next(row.passed[column] for row in support.support().families if row.name == family.name)
    if says and error is not None:
        raise error
    if support.support().transformers == transformers.__version__:
        assert says == (error is None), f"{family.name} {column} passes, and the table says it doesn't: update it"


def test_contexts_prepared_at_once_are_as_each_by_itself(family):
    asked = [dataclasses.replace(family.contexts[index], key=(key,)) for key in range(4) for index in (0, 1)]
    for found, context in zip(prepare_all(family.vlm, asked), asked, strict=True):
        wanted = prepare(family.vlm, context).tensors
        assert found.tensors.keys() == wanted.keys()
        assert all(torch.equal(found.tensors[name], wanted[name]) for name in wanted)


def test_the_table_has_every_family_and_every_column(request):
    if request.config.getoption("--update-support"):
        pytest.skip("the table is being written")
    assert sorted(row.name for row in support.support().families) == sorted(FAMILIES)
    assert list(support.COLUMNS) == list(checks.COLUMNS)
