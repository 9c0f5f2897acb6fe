"""What is kept back depends on an image's content and the seed, and on nothing else."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from veridical.errors import UserError
from veridical.pairs.held_out import held_out, share_for
from veridical.records import ImageFile, Message, Record


def record(name: str, *images: str) -> Record:
    return Record(name, tuple(ImageFile(Path(image), image) for image in images), (Message("user", "What?"),))


RECORDS = [record(f"r{number}", f"image {number}") for number in range(1000)]


def test_about_the_share_is_kept_back_and_another_seed_keeps_others():
    first, second = held_out(RECORDS, 0.1, 0), held_out(RECORDS, 0.1, 1)
    assert 70 < len(first) < 130
    assert 70 < len(second) < 130
    assert len(first & second) < 30
    assert held_out(RECORDS, 0.1, 0) == first
    assert held_out(RECORDS, 0, 0) == frozenset()


def test_a_part_of_the_records_in_another_order_keeps_back_the_same():
    assert held_out(RECORDS[:700:-1], 0.1, 0) == held_out(RECORDS, 0.1, 0) & {r.id for r in RECORDS[701:]}


def test_a_larger_share_holds_the_smaller():
    assert held_out(RECORDS, 0.1, 0) < held_out(RECORDS, 0.3, 0)


def test_one_is_kept_back_of_few_and_one_is_left():
    few = RECORDS[:3]
    assert len(held_out(few, 1e-9, 0)) == 1
    assert len(held_out(few, 1 - 1e-9, 0)) == 2
    assert held_out(few[:1], 0.5, 0) == held_out([], 0.5, 0) == frozenset()


@given(st.lists(st.lists(st.sampled_from("abcdefghijkl"), min_size=1, max_size=3), max_size=20), st.floats(0, 0.99))
def test_no_image_is_on_both_sides(images, share):
    records = [record(str(number), *names) for number, names in enumerate(images)]
    kept = held_out(records, share, 0)
    sides = [{i.sha256 for r in records if (r.id in kept) is side for i in r.images} for side in (True, False)]
    assert sides[0].isdisjoint(sides[1])
    assert not records or len(kept) < len(records)


def test_the_share_is_a_tenth_of_a_users_images_and_nothing_of_the_world():
    assert (share_for("photos/", None), share_for("world:pairs", None), share_for("world", 0.2)) == (0.1, 0.0, 0.2)
    for wrong in (1.0, -0.1, float("nan")):
        with pytest.raises(UserError, match="share of the images"):
            share_for("photos/", wrong)
