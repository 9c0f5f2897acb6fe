"""Pairs kept aside: whole records, the same ones in every run, and none where they would be missed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from veridical.align.held_out import split


@pytest.fixture
def many(examples):
    """300 pairs of 100 records."""
    return [replace(examples[0], id=f"pair-{i}", record_id=f"record-{i % 100}") for i in range(300)]


def test_whole_records_are_kept_aside(many):
    trained, kept = split(many, 0.1)
    assert 30 <= len(kept) <= 33
    assert len(trained) + len(kept) == 300
    assert not {one.record_id for one in trained} & {one.record_id for one in kept}
    assert {one.id for one in trained} | {one.id for one in kept} == {one.id for one in many}
    # Pairs come in their own order, and others beside them change nothing.
    assert [one.id for one in kept] == [one.id for one in many if one.record_id in {k.record_id for k in kept}]


def test_at_least_sixteen_of_at_least_sixty_four(many):
    assert 16 <= len(split(many[:64], 0.05)[1]) <= 18
    assert len(split(many[:63], 0.05)[1]) == 0
    assert len(split(many, 0)[1]) == 0


def test_one_record_with_most_pairs_leaves_nothing_aside(many):
    assert len(split([replace(one, record_id="the only one") for one in many], 0.1)[1]) == 0
