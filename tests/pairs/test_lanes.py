"""The model and the services at work at the same time: nothing waits that needn't, and pairs don't depend on timing."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.pairs.test_runner import ENGINE, expected, steps

from veridical.errors import UserError
from veridical.judges.interface import ExtractObjects, Rewrite
from veridical.lanes import LOCAL, Lane
from veridical.pairs.runner import run_concurrently

SERVICE = Lane("a service", 2)
PATIENCE = 30.0


def lane_of(request) -> Lane:
    return SERVICE if isinstance(request, Rewrite) else LOCAL


def named_then_rewritten(index):
    yield ExtractObjects("a dog")
    yield Rewrite(f"A dog. Cat {index}.", ("dog",))
    return []


def test_the_model_works_while_a_service_does():
    batches, more = [], threading.Event()

    def serve(requests):
        if isinstance(requests[0], Rewrite):
            # Answers only once the model has begun another batch: taking turns, this would never end.
            assert more.wait(PATIENCE)
        else:
            batches.append(len(requests))
            if len(batches) > 1:
                more.set()
        return ENGINE(requests)

    starts = ((index, str(index), named_then_rewritten(index)) for index in range(12))
    assert len(list(run_concurrently(starts, serve, 2, lane_of=lane_of))) == 12


def test_one_slow_call_holds_up_no_other_record():
    rest = threading.Event()
    rewritten = []

    def serve(requests):
        [answer] = ENGINE(requests)
        if isinstance(requests[0], Rewrite):
            if requests[0].text.endswith("Cat 0."):
                assert rest.wait(PATIENCE)  # a straggler: it ends only when all others were served
            rewritten.append(requests[0].text)
            if len(rewritten) == 7:
                rest.set()
        return [answer]

    def one(index):
        yield Rewrite(f"A dog. Cat {index}.", ("dog",))
        return []

    outcomes = list(run_concurrently(((i, str(i), one(i)) for i in range(8)), serve, 4, lane_of=lane_of))
    assert sorted(outcomes) == [(i, []) for i in range(8)]


def test_calls_and_records_under_way_are_bounded():
    lock, busy, most, started, ended = threading.Lock(), [0], [0], [0], [0]

    def serve(requests):
        if not isinstance(requests[0], Rewrite):
            return ENGINE(requests)
        with lock:
            busy[0] += 1
            most[0] = max(most[0], busy[0])
        time.sleep(0.002)
        with lock:
            busy[0] -= 1
        return ENGINE(requests)

    def starts():
        for index in range(60):
            assert started[0] - ended[0] <= 2 * (4 + SERVICE.width)
            started[0] += 1
            yield index, str(index), named_then_rewritten(index)

    for _ in run_concurrently(starts(), serve, 4, lane_of=lane_of):
        ended[0] += 1
    assert (ended[0], most[0]) == (60, SERVICE.width)


@given(st.lists(st.integers(0, 5), max_size=20), st.integers(1, 5), st.randoms(use_true_random=False))
def test_outcomes_dont_depend_on_what_ends_first(turns, batch_size, random):
    waits = [random.choice((0, 0, 0.001)) for _ in range(50)]

    def serve(requests):
        if isinstance(requests[0], Rewrite):
            time.sleep(waits[len(requests[0].text) % len(waits)])
        return ENGINE(requests)

    starts = ((index, str(index), steps(index, count)) for index, count in enumerate(turns))
    outcomes = dict(run_concurrently(starts, serve, batch_size, lane_of=lane_of))
    assert {index: outcome.reason for index, outcome in outcomes.items()} == {
        index: expected(index, count) for index, count in enumerate(turns)
    }


def test_what_a_service_says_to_the_user_ends_the_run_and_keeps_what_ended():
    def serve(requests):
        if isinstance(requests[0], Rewrite) and requests[0].text.endswith("Cat 5."):
            raise UserError("the quota has ended")
        return ENGINE(requests)

    ended = []
    with pytest.raises(UserError, match="quota"):
        ended += run_into(ended, ((i, str(i), named_then_rewritten(i)) for i in range(40)), serve)
    assert 0 < len(ended) < 40


def run_into(ended, starts, serve):
    for outcome in run_concurrently(starts, serve, 2, lane_of=lane_of):
        ended.append(outcome)
    return []


def test_a_run_that_is_broken_off_waits_for_no_service():
    stuck = threading.Event()

    def serve(requests):
        if isinstance(requests[0], Rewrite) and not requests[0].text.endswith("Cat 0."):
            stuck.wait()
        return ENGINE(requests)

    running = run_concurrently(((i, str(i), named_then_rewritten(i)) for i in range(8)), serve, 2, lane_of=lane_of)
    try:
        assert next(running) == (0, [])
        running.close()
    finally:
        stuck.set()
