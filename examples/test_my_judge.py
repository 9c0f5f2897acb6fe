import pytest
from my_judge import Brevity

import veridical as vd
from veridical.judges.interface import Rate

RECORD = vd.Record("a", (), ())


def test_the_fewer_words_the_better():
    judge = Brevity(words=10).open(None)
    assert judge.rate([Rate(RECORD, (), "A cup."), Rate(RECORD, (), "A cup on a table.")]) == pytest.approx([0.8, 0.5])
