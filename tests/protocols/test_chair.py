"""What counts as a mention, as invented, as repeated; and the metrics, worked by hand."""

from dataclasses import asdict
from pathlib import Path

import pytest

from veridical.errors import UserError
from veridical.judges.lexicon_sources import world_lexicon
from veridical.protocols import chair
from veridical.protocols.by_object import by_object
from veridical.records import Annotations, ImageFile, Message, ObjectInImage, Record
from veridical.world.vocabulary import PARTNER


def record(*names: str, key: str = "r0") -> Record:
    image = ImageFile(Path(f"{key}.png"), "0" * 64)
    objects = Annotations(tuple(ObjectInImage(name) for name in names))
    return Record(key, (image,), (Message("user", "Describe this image."),), annotations=objects)


def read(caption: str, *truth: str) -> chair.ChairItem:
    return chair.read(record(*truth), caption, world_lexicon())


def values(items, partner=PARTNER) -> dict[str, float | None]:
    return chair.counted(items, partner).values()


def test_mentions_are_found_with_their_place_and_whether_they_are_made_up():
    item = read("There is a fork and two knives.", "fork", "fork", "cup")
    assert item.truth == ("cup", "fork")
    assert [(m.name, m.invented) for m in item.mentions] == [("fork", False), ("knife", True)]
    assert [item.caption[m.start : m.end] for m in item.mentions] == ["fork", "knives"]
    assert item.words == 7


def test_the_metrics_of_four_captions_worked_by_hand():
    items = [
        read("There is a fork and a knife on the table.", "fork"),  # knife made up, the fork's partner
        read("There is a fork. I can also see a fork and a bus.", "fork", "cup"),  # bus made up, fork twice
        read("A cup.", "cup", "spoon"),
        read("It looks like a dinner table.", "glass"),
    ]
    found = values(items)
    assert found["chair_s"] == pytest.approx(50)  # 2 of 4 captions
    assert found["chair_i"] == pytest.approx(100 * 2 / 6)  # 2 of 6 mentions
    assert found["recall"] == pytest.approx(100 * 3 / 6)  # fork, fork, cup of 1 + 2 + 2 + 1
    assert found["objects"] == pytest.approx((2 + 2 + 1 + 0) / 4)
    assert found["words"] == pytest.approx((10 + 13 + 2 + 6) / 4)
    assert found["repetition"] == pytest.approx(25)
    assert found["invented_partner"] == pytest.approx(50)


def test_an_object_made_up_twice_is_two_mentions_but_one_caption():
    found = values([read("A bus and a bus.", "cup"), read("A cup.", "cup")])
    assert found["chair_s"] == 50
    assert found["chair_i"] == pytest.approx(200 / 3)


def test_without_mentions_the_share_of_mentions_is_not_defined_and_nothing_crashes():
    found = values([read("", "cup"), read("Nothing.", "cup")])
    assert (found["chair_s"], found["chair_i"], found["invented_partner"]) == (0, None, None)


def test_repeated_runs_of_words():
    assert chair.repeated_ngrams("a b c d a b c d", 4) == (1, 5)
    assert chair.repeated_ngrams("A b c d, a B c d,", 4) == (1, 5)
    assert chair.repeated_ngrams("a b c", 4) == (0, 0)
    assert chair.repeated_ngrams("no no no no no no", 2) == (4, 5)


def test_a_record_without_annotations_is_named():
    bare = Record("r7", (ImageFile(Path("x.png"), "0"),), (Message("user", "?"),))
    with pytest.raises(UserError, match=r"record r7.*annotated objects"):
        chair.read(bare, "A cup.", world_lexicon())


def test_a_row_becomes_the_item_again():
    item = read("A fork and a knife.", "fork")
    row = asdict(item)
    assert chair.item_from_row({**row, "mentions": [dict(m) for m in row["mentions"]]}) == item


def test_rates_by_object_worked_by_hand():
    items = [
        read("A fork, a knife and a knife.", "fork"),
        read("A cup.", "fork", "knife"),
        read("A knife.", "knife"),
    ]
    rates = by_object(items, ("fork", "knife", "bus"))
    assert list(rates) == ["fork", "knife", "bus"]
    assert asdict(rates["fork"]) == {
        "present": 2, "named": 1, "named_rate": 50, "absent": 1, "invented": 0, "invented_rate": 0
    }  # fmt: skip
    assert asdict(rates["knife"]) == {
        "present": 2, "named": 1, "named_rate": 50, "absent": 1, "invented": 1, "invented_rate": 100
    }  # fmt: skip
    assert (rates["bus"].named_rate, rates["bus"].absent, rates["bus"].invented_rate) == (None, 3, 0)
