"""The model's own language part as a writer: what it is asked, and that it sees nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from veridical.errors import UserError
from veridical.judges.backbone import BackboneSettings, prompt
from veridical.judges.interface import Inject
from veridical.judges.registry import JudgeContext, default_writer, writer_type
from veridical.records import Annotations, ImageFile, Message, ObjectInImage, Record

REFERENCE = "There is a fork on the table."
RECORD = Record(
    "r1",
    (ImageFile(Path("gone.png"), "00"),),
    (Message("user", "How many forks are there?"),),
    REFERENCE,
    Annotations((ObjectInImage("zebra"),)),
)


def request(record=RECORD, **changes):
    return Inject(record, REFERENCE, **{"kind": "any", "key": (0, record.id), **changes})


def test_both_published_ways_of_asking():
    described, asked = prompt(request()), prompt(request(mode="question", kind="count", count=2))
    assert described.endswith(f"Description: {REFERENCE}\nChanged description:")
    assert asked.count("New answer:") == 7  # six examples
    assert asked.endswith(f"Question: How many forks are there?\nAnswer: {REFERENCE}\nNew answer:")
    assert "Make only this kind of change: change the number of objects. Make 2 changes." in asked
    assert "zebra" not in described + asked


def test_it_sees_neither_image_nor_annotations():
    from veridical.vlm.load import load

    vlm = load("bundled", device="cpu")
    writer = BackboneSettings(max_tokens=120).open(JudgeContext(None, lambda: vlm))
    other = replace(RECORD, images=(), annotations=None)
    first, again, second = writer.inject([request(), request(other), request(key=(1, "r1"))])
    # The image file doesn't exist, so it was not opened; the same key draws the same text.
    assert first == again
    assert first != second
    assert all(text is None or text.strip() != REFERENCE for text in (first, second))


def test_who_writes_where_nobody_says_so():
    assert default_writer("bpo-inject", "some/model") == "backbone"
    assert default_writer("bpo-inject", "bundled") == default_writer("povid", "some/model") == "same"
    assert writer_type("backbone") is BackboneSettings
    with pytest.raises(UserError, match="no model"):
        BackboneSettings().open(JudgeContext())
