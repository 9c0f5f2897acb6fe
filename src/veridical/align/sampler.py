"""In which order pairs are trained on, and which of them stand together in a batch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy
from numpy.typing import ArrayLike, NDArray
from torch.utils.data import DataLoader, Sampler

from veridical.vlm import seeds


def numbered(names: ArrayLike) -> NDArray[numpy.int64]:
    """For each name its number, by first appearance, from 0."""
    _, first, group = numpy.unique(numpy.asarray(names), return_index=True, return_inverse=True)
    numbers: NDArray[numpy.int64] = first.argsort().argsort()[group]
    return numbers


def in_groups(names: ArrayLike) -> Iterator[list[int]]:
    """The places of each distinct name, by first appearance."""
    numbers = numbered(names)
    places = numbers.argsort(kind="stable")
    for group in numpy.split(places, numpy.flatnonzero(numpy.diff(numbers[places])) + 1):
        if len(group):
            yield group.tolist()


class SeededOrder(Sampler[int]):
    """A shuffle that depends on seed and epoch only.

    `contexts` says for each pair what its answers are about. Pairs of the same context stay together, so that they
    are encoded together and an answer that they have in common is scored once.
    """

    def __init__(self, contexts: ArrayLike, seed: int, difficulty: ArrayLike | None = None) -> None:
        """`difficulty` of each pair: contexts then come in its order, by the mean over their pairs, in every epoch, and
        are shuffled only where it is the same."""
        self.seed, self.epoch = seed, 0
        self._group = numbered(contexts)
        self._groups = int(self._group.max(initial=-1)) + 1
        self._difficulty: NDArray[numpy.float64] | None = None
        if difficulty is not None:
            sums = numpy.bincount(self._group, numpy.asarray(difficulty, dtype=float), self._groups)
            self._difficulty = sums / numpy.bincount(self._group, minlength=self._groups)

    def set_epoch(self, epoch: int) -> None:
        """Pick the order of an epoch, counted from 0."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        shuffle = seeds.generator("order of pairs", (self.seed, self.epoch)).permutation(self._groups)
        if self._difficulty is not None:
            shuffle = shuffle[self._difficulty[shuffle].argsort(kind="stable")]
        return iter(shuffle.argsort()[self._group].argsort(kind="stable").tolist())

    def __len__(self) -> int:
        return len(self._group)


@dataclass(frozen=True)
class Batches(Sampler[list[int]]):
    """The micro-batches of one of `processes` in one epoch.

    Every `batch_size` pairs are an optimiser step, the last of an epoch perhaps fewer, and every step of all processes
    together has each of its pairs once. All processes have the same number of micro-batches, of at most `micro_batch`
    pairs; where pairs run out, some have none.
    """

    order: SeededOrder
    batch_size: int
    micro_batch: int
    process: int = 0
    processes: int = 1

    def set_epoch(self, epoch: int) -> None:
        """Pick the order of an epoch; the trainer calls this itself where it continues inside one."""
        self.order.set_epoch(epoch)

    def __iter__(self) -> Iterator[list[int]]:
        order = list(self.order)
        for start in range(0, len(order), self.batch_size):
            yield from self._step(order[start : start + self.batch_size])

    def _step(self, pairs: Sequence[int]) -> Iterator[list[int]]:
        together = self.micro_batch * self.processes
        for start in range(0, len(pairs), together):
            group = list(pairs[start : start + together])
            first, end = (len(group) * number // self.processes for number in (self.process, self.process + 1))
            yield group[first:end]

    def __len__(self) -> int:
        whole, rest = divmod(len(self.order), self.batch_size)
        together = self.micro_batch * self.processes
        return whole * math.ceil(self.batch_size / together) + math.ceil(rest / together)


class EpochLoader(DataLoader[object]):
    """A DataLoader over `Batches` that the trainer tells which epoch it is."""

    def set_epoch(self, epoch: int) -> None:
        """Pick the order of an epoch, counted from 0."""
        assert isinstance(self.batch_sampler, Batches)
        self.batch_sampler.set_epoch(epoch)
