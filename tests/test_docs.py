"""The documentation's tables come from the registry and are up to date; included files are there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import veridical
from veridical.catalogue import KINDS, entries

ROOT = Path(__file__).parents[1]
PAGES = {
    "constructions": "methods.md", "objectives": "methods.md", "judges": "judges.md", "decodings": "decoding.md",
    "protocols": "protocols.md", "rewards": "rl.md", "formats": "data.md",
}  # fmt: skip


@pytest.mark.parametrize("kind", PAGES)
def test_a_page_names_all_of_a_kind(kind):
    page = (ROOT / "docs" / PAGES[kind]).read_text()
    assert f"<!-- registry: {kind} -->" in page
    own = [one.name for one in entries(kind) if one.origin == "veridical"]
    assert own
    assert [name for name in own if f"`{name}`" not in page] == []


def test_generated_tables_are_up_to_date():
    ended = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "tables.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout


@pytest.mark.parametrize(
    ("kind", "columns"),
    [
        ("constructions", (1, 2)),
        ("objectives", (1, 2)),
        ("judges", (1, 2)),
        ("decodings", (1, 2)),
        ("protocols", (1, 2)),
    ],
)
def test_every_method_says_what_its_table_tells(kind, columns):
    """What a construction chooses and rejects, an objective's loss, ... is in its docstring."""
    page = (ROOT / "docs" / PAGES[kind]).read_text()
    table = page.partition(f"<!-- registry: {kind} -->")[2].partition("<!-- end -->")[0].strip().splitlines()
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in table[2:]]
    assert rows
    assert [row[0] for row in rows if not all(row[column] for column in columns)] == []


def test_every_kind_has_a_page():
    assert set(PAGES) == set(KINDS)


def test_examples_are_included_where_a_page_names_their_place():
    page = (ROOT / "docs" / "extend.md").read_text()
    included = re.findall(r'^--8<-- "(examples/\w+\.py)"$', page, re.MULTILINE)
    assert sorted(included) == sorted(str(path.relative_to(ROOT)) for path in (ROOT / "examples").glob("*my_*.py"))


def test_the_reference_names_all_that_the_package_offers():
    page = (ROOT / "docs" / "reference" / "api.md").read_text()
    named = [name for name in veridical.__all__ if re.search(rf"(\.{name}$|`@?(vd\.)?{name}\b)", page, re.MULTILINE)]
    assert named == veridical.__all__
