"""Procedures run side by side, with the real oracle as the one who answers."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from veridical.errors import UserError
from veridical.generators.nobody import NOBODY
from veridical.judges.interface import ExtractObjects, Rewrite
from veridical.judges.lexicon import Lexicon
from veridical.judges.oracle import Oracle
from veridical.judges.panel import Panel
from veridical.judges.writers import SentenceWriter
from veridical.pairs.engine import Engine
from veridical.pairs.runner import run_concurrently
from veridical.records import Rejection

WORDS = Lexicon({"dog": "dog", "cat": "cat"})
ENGINE = Engine(NOBODY, Panel((Oracle(WORDS, (SentenceWriter(WORDS),)),)))


def steps(index: int, turns: int):
    """Asks `turns` times in turn which objects a text names, and to take one out."""
    heard = []
    for turn in range(turns):
        if (index + turn) % 3:
            mentions = yield ExtractObjects("a dog" if index % 2 else "a cat")
            heard.append(mentions[0].name)
        else:
            heard.append((yield Rewrite(f"A dog. Cat {index}.", ("dog",))))
    return Rejection(str(index), ",".join(heard) or "asked nothing", "")


def expected(index: int, turns: int) -> str:
    name = "dog" if index % 2 else "cat"
    heard = [name if (index + turn) % 3 else f"Cat {index}." for turn in range(turns)]
    return ",".join(heard) or "asked nothing"


@given(st.lists(st.integers(0, 5), max_size=30), st.integers(1, 7))
def test_every_record_gets_its_own_answers_whatever_the_batch(turns, batch_size):
    sizes = []

    def serve(requests):
        sizes.append(len(requests))
        assert len({type(request) for request in requests}) == 1
        return ENGINE(requests)

    starts = ((index, str(index), steps(index, count)) for index, count in enumerate(turns))
    outcomes = dict(run_concurrently(starts, serve, batch_size))
    assert {index: outcome.reason for index, outcome in outcomes.items()} == {
        index: expected(index, count) for index, count in enumerate(turns)
    }
    assert sum(sizes) == sum(turns)
    assert max(sizes, default=0) <= batch_size


def test_batches_are_full_while_there_is_enough_to_do():
    sizes = Counter()

    def serve(requests):
        sizes[len(requests)] += 1
        return ENGINE(requests)

    list(run_concurrently(((i, str(i), steps(i, 2)) for i in range(60)), serve, 4))
    assert sizes[4] >= 28  # 120 requests in batches of four are 30


def test_a_record_that_the_model_refuses_is_rejected_alone():
    def serve(requests):
        return [UserError("r1: too long") if "cat" in r.text else ENGINE([r])[0] for r in requests]

    def one(text):
        yield ExtractObjects(text)
        return []

    starts = [(0, "r0", one("a dog")), (1, "r1", one("a cat")), (2, "r2", one("a dog"))]
    outcomes = dict(run_concurrently(starts, serve, 4))
    assert (outcomes[0], outcomes[2]) == ([], [])
    assert (outcomes[1].id, outcomes[1].reason, outcomes[1].detail) == ("r1", "refused-by-model", "r1: too long")
