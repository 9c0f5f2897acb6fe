"""Orders and batches: seeded, whole, and the same for any number of processes."""

from __future__ import annotations

import itertools

import pytest

from veridical.align.sampler import Batches, EpochLoader, SeededOrder


def test_the_order_depends_on_seed_and_epoch_only():
    order = SeededOrder(range(50), seed=1)
    first = list(order)
    assert sorted(first) == list(range(50))
    assert list(order) == first
    order.set_epoch(1)
    assert list(order) != first
    assert sorted(order) == list(range(50))
    assert list(SeededOrder(range(50), seed=2)) != first


def test_pairs_of_one_context_stay_together():
    contexts = [place % 7 for place in range(30)]
    shuffled = [contexts[place] for place in SeededOrder(contexts, seed=3)]
    changes = sum(one != other for one, other in itertools.pairwise(shuffled))
    assert changes == 6
    assert sorted(SeededOrder(contexts, seed=3)) == list(range(30))


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("pairs", [1, 2, 5, 11, 12, 24, 25])
def test_every_step_has_its_pairs_once_whoever_takes_them(pairs, processes):
    order = SeededOrder(range(pairs), seed=0)
    shares = [list(Batches(order, 12, 2, process, processes)) for process in range(processes)]
    assert {len(share) for share in shares} == {len(Batches(order, 12, 2, 0, processes))}
    assert max(len(batch) for share in shares for batch in share) <= 2
    alone, passes = list(order), 12 // (2 * processes)
    for step in range(0, len(shares[0]), passes):
        taken = [pair for share in shares for batch in share[step : step + passes] for pair in batch]
        assert sorted(taken) == sorted(alone[step // passes * 12 : (step // passes + 1) * 12])


def test_a_loader_passes_the_epoch_on():
    loader = EpochLoader(list(range(20)), batch_sampler=Batches(SeededOrder(range(20), 0), 4, 4), collate_fn=list)
    first = list(loader)
    loader.set_epoch(1)
    assert first != list(loader)
