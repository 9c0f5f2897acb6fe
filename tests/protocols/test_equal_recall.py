"""The truncation baseline: worked by hand, and by what must hold for any captions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from veridical.protocols.chair import ChairItem, ChairMention
from veridical.protocols.equal_recall import (
    COLUMNS,
    COMPARED,
    CutCurve,
    at_recall,
    cut,
    cut_curve,
    equal_recall,
    pair_at_recall,
    sides,
)
from veridical.protocols.statistics import resample

NAMES = ("cup", "fork", "knife", "spoon", "glass")


def item(number: int, named: list[str], truth: set[str]) -> ChairItem:
    caption, mentions = "There is", []
    for name in named:
        caption += f" a {name}"
        mentions.append(ChairMention(name, len(caption) - len(name), len(caption), name not in truth))
    caption += " on the table."
    return ChairItem(str(number), "x.png", caption, tuple(sorted(truth)), tuple(mentions), len(caption.split()))


def once(items) -> np.ndarray:
    return np.ones((1, len(items)))


def test_a_caption_is_cut_where_its_nth_object_is_named():
    whole = item(0, ["cup", "cup", "fork", "knife"], {"cup"})
    assert cut(whole, 0).caption == ""
    assert cut(whole, 1).caption == "There is a cup"
    assert cut(whole, 2).caption == "There is a cup a cup a fork"
    assert [m.name for m in cut(whole, 2).mentions] == ["cup", "cup", "fork"]
    assert cut(whole, 2).words == 8
    assert cut(whole, 3) is whole
    assert cut(whole, 9) is whole


def test_the_curve_of_three_captions_worked_by_hand():
    base = [
        item(0, ["cup", "spoon", "fork"], {"cup", "fork"}),  # made up from the second on
        item(1, ["knife", "glass"], {"knife"}),  # made up from the second on
        item(2, ["fork"], {"fork", "cup"}),  # never
    ]
    curve = cut_curve(base, once(base))
    # Cut after 0, 1, 2, 3 objects; 5 true objects in all.
    assert curve.chair_s[0] == pytest.approx([0, 0, 200 / 3, 200 / 3])
    assert curve.recall[0] == pytest.approx([0, 60, 60, 80])


def curve_of(inventing: list[float], found: list[float], **more: list[float]) -> CutCurve:
    """A hundred captions of pictures that hold a hundred objects in all, so that sums are percentages."""
    sums = {"inventing": inventing, "found": found, **more}
    arrays = {name: np.array([sums.get(name, [0.0] * len(found))], float) for name in COLUMNS}
    return CutCurve(arrays, np.array([100.0]), np.array([100.0]))


def test_between_two_cuts_the_base_is_on_the_straight_line():
    curve = curve_of([0, 10, 30, 50], [0, 40, 60, 70])
    for recall, expected in [(0, 0), (20, 5), (40, 10), (50, 20), (60, 30), (65, 40), (70, 50), (90, 50)]:
        assert at_recall(curve, np.array([recall], float))["chair_s"][0] == pytest.approx(expected)


def test_of_two_cuts_with_one_recall_the_one_that_invents_less_counts():
    curve = curve_of([0, 10, 30, 50], [0, 40, 40, 70])
    assert at_recall(curve, np.array([40.0]))["chair_s"][0] == 10
    assert at_recall(curve, np.array([55.0]))["chair_s"][0] == pytest.approx(40)


def test_sums_are_interpolated_before_they_are_divided():
    curve = curve_of([0, 10, 30], [0, 40, 60], invented=[0, 10, 60], mentions=[0, 50, 120], words=[0, 400, 1000])
    half = at_recall(curve, np.array([50.0]))
    assert half["chair_i"][0] == pytest.approx(100 * 35 / 85)
    assert half["words"][0] == pytest.approx(7)
    # Where a part of the captions is cut before its first object, the others' mentions are all there are.
    assert at_recall(curve, np.array([10.0]))["chair_i"][0] == pytest.approx(20)
    assert np.isnan(at_recall(curve, np.array([0.0]))["chair_i"][0])


def test_a_model_compared_by_hand_at_equal_recall():
    base = [item(n, ["cup", "spoon"], {"cup", "fork"}) for n in range(4)]
    # Recall 25 is halfway between no object (0) and one object (50), where the base invents nothing.
    model = [item(n, ["cup"] if n < 2 else ["knife"], {"cup", "fork"}) for n in range(4)]
    found = equal_recall(base, model, resample(4, 0, 200))
    assert (found.base_cut, found.aligned, found.difference) == (0, 50, 50)
    assert found.recall == 25
    assert found.against == "cut"
    assert found.low <= 50 <= found.high
    # Half the base's captions are "There is a cup", the others empty; the model names one object in 6 words.
    assert {name: (one.base_cut, one.aligned) for name, one in found.others.items()} == {
        "chair_i": (0, 50),
        "objects": (0.5, 1),
        "words": (2, 7),
    }
    assert found.others["words"].low <= 5 <= found.others["words"].high


def test_a_model_that_recalls_as_much_as_the_base_meets_the_uncut_base():
    base = [item(n, ["cup", "spoon"], {"cup"}) for n in range(6)]
    model = [item(n, ["cup"], {"cup"}) for n in range(6)]
    found = equal_recall(base, model, resample(6, 0, 200))
    assert found.against == "uncut"
    assert (found.base_cut, found.aligned) == (100, 0)
    assert (found.low, found.high) == (-100, -100)


def test_captions_without_objects_and_pictures_without_truth_are_numbers_too():
    base = [item(0, [], {"cup"}), item(1, [], set())]
    found = equal_recall(base, base, resample(2, 0, 50))
    assert (found.base_cut, found.aligned, found.difference, found.recall) == (0, 0, 0, 0)
    assert found.others["chair_i"].difference is None


def test_other_pictures_are_refused():
    base = [item(0, ["cup"], {"cup"}), item(1, ["cup"], {"cup"})]
    with pytest.raises(ValueError, match="same pictures"):
        sides(base, base[::-1], once(base))


captions = st.lists(
    st.tuples(st.lists(st.sampled_from(NAMES), max_size=6), st.sets(st.sampled_from(NAMES), min_size=1)),
    min_size=1,
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(captions)
def test_saying_more_never_lowers_recall_or_invention(drawn):
    items = [item(n, named, truth) for n, (named, truth) in enumerate(drawn)]
    curve = cut_curve(items, resample(len(items), 0, 20))
    assert (np.diff(curve.recall, axis=1) >= -1e-9).all()
    assert (np.diff(curve.chair_s, axis=1) >= -1e-9).all()


@settings(max_examples=60, deadline=None)
@given(captions, st.integers(0, 6))
def test_the_curve_says_of_a_cut_what_the_cut_captions_say(drawn, objects):
    items = [item(n, named, truth) for n, (named, truth) in enumerate(drawn)]
    curve = cut_curve(items, once(items))
    objects = min(objects, curve.recall.shape[1] - 1)
    short = cut_curve([cut(i, objects) for i in items], once(items))
    for name in COLUMNS:
        assert short.sums[name][0, -1] == curve.sums[name][0, objects]


@settings(max_examples=60, deadline=None)
@given(captions, st.integers(1, 6))
def test_a_model_that_is_the_base_cut_differs_by_nothing(drawn, objects):
    """In every resample in which the cut's last object adds recall, and a later one adds more."""
    items = [item(n, named, truth) for n, (named, truth) in enumerate(drawn)]
    weights = resample(len(items), 1, 100)
    both = sides(items, [cut(i, objects) for i in items], weights)
    recall = cut_curve(items, weights).recall
    last = recall.shape[1] - 1
    objects = min(objects, last)
    adds = (recall[:, objects] > recall[:, objects - 1]) & (recall[:, objects] < recall[:, last])
    alike = adds | (objects == last)
    for name in COMPARED:
        assert both.model[name][alike] == pytest.approx(both.rival[name][alike], nan_ok=True)


def test_the_base_against_itself_differs_by_nothing_in_every_resample():
    rng = np.random.default_rng(0)
    items = [item(n, list(rng.choice(NAMES, 3)), set(rng.choice(NAMES, 2))) for n in range(40)]
    found = equal_recall(items, items, resample(40, 0, 300))
    assert (found.difference, found.low, found.high) == (0, 0, 0)
    assert {(one.difference, one.low, one.high) for one in found.others.values()} == {(0, 0, 0)}


def test_of_two_models_the_one_that_recalls_more_is_cut_whichever_stands_first():
    long = [item(n, ["cup", "spoon"], {"cup", "fork"}) for n in range(4)]  # recall 50, all invent
    short = [item(n, ["cup"] if n < 2 else ["knife"], {"cup", "fork"}) for n in range(4)]  # recall 25, half invent
    found = pair_at_recall(long, short, resample(4, 0, 200))
    # The longer captions have recall 25 halfway between no object and one, where they invent nothing.
    assert (found.recall, found.against) == (25, "cut")
    assert (found.base_cut, found.aligned, found.difference) == (0, 50, 50)
    turned = pair_at_recall(short, long, resample(4, 0, 200))
    assert (turned.recall, turned.against, turned.difference) == (25, "uncut", -50)
    assert (turned.low, turned.high) == (-found.high, -found.low)
    assert pair_at_recall(long, long, resample(4, 0, 50)).difference == 0
    with pytest.raises(ValueError, match="same pictures"):
        pair_at_recall(long, short[::-1], resample(4, 0, 50))
