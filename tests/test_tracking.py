"""Trackers get a build's numbers; one that is not installed is named before any work."""

from __future__ import annotations

import pytest

from veridical.constructions.povid import PovidSettings
from veridical.errors import UserError
from veridical.pairs.command import BuildConfig, run
from veridical.tracking import flat


def scalars(folder) -> dict[str, float]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found: dict[str, float] = {}
    for file in folder.rglob("events.out*"):
        events = EventAccumulator(str(file))
        events.Reload()
        found |= {name: events.Scalars(name)[-1].value for name in events.Tags()["scalars"]}
    return found


def test_a_build_reports_its_numbers(tmp_path):
    settings = PovidSettings()
    config = BuildConfig(tmp_path / "out", construction="povid", settings=settings, limit=4, device="cpu")
    with pytest.raises(UserError, match="nowhere is not installed"):
        run(BuildConfig(tmp_path / "other", construction="povid", limit=4, report_to=("nowhere",)))
    run(BuildConfig(**{**vars(config), "report_to": ("tensorboard",)}))
    found = scalars(tmp_path / "out" / "tracking")
    assert (found["records_in"], found["pairs_out"]) == (4.0, 4.0)
    assert found["captions/chosen/words"] > 5


def test_nested_numbers_have_names_with_slashes():
    assert dict(flat({"a": {"b": 1, "c": None}, "d": [1]})) == {"a/b": 1, "d": "[1]"}
