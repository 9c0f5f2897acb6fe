"""Outcomes on their way to shards: each is kept in a journal at once, and a shard is written when it is complete."""

from __future__ import annotations

import errno
import json
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from veridical.errors import UserError
from veridical.pairs import failures, journal, run_folder
from veridical.pairs.dataset import row_of, store
from veridical.pairs.runner import Outcome
from veridical.records import Pair, Rejection

_NOT_WRITABLE = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE))


class Usage(Protocol):
    """What services have been asked."""

    def usage(self) -> dict[str, Any]:
        """The counts so far, by who was asked."""

    def add_usage(self, earlier: Mapping[str, Any]) -> None:
        """Count on from an earlier part of the same run."""


class Unfinished:
    """The shards that one process makes, from what the journals hold of them to the last of their marks."""

    def __init__(
        self, out: Path, wanted: Mapping[int, Sequence[int]], part: str, asked: Usage, accept_failures: bool = False
    ) -> None:
        """Read what is kept. `wanted` holds the places of the records of each shard, `part` names the process.

        With `accept_failures` records that a service could not be asked about are rejected, and not left open.
        """
        folder = run_folder.journals(out)
        self._out, self._wanted, self._asked = out, wanted, asked
        self._part, self._accept_failures = part, accept_failures
        self._postponed: list[Rejection] = []
        self._shards = sorted((places[0], number) for number, places in wanted.items() if places)
        self._open: dict[int, dict[int, Outcome]] = {}
        self._finished: set[int] = set()
        self._held: list[tuple[int, Outcome]] = []
        self._streak = failures.Streak()
        asked.add_usage(journal.usages(folder).get(part, {}))
        with writing(out):
            self._journal = journal.open_journal(out, folder, part)
            # What this process kept for shards that are now another's; that one may not have read it yet.
            self._of_others = self._journal.outcomes(lambda index: self._shard_of(index) is None)
            for index, outcome in journal.read_outcomes(out, folder, lambda i: self._shard_of(i) is not None).items():
                self._keep(index, outcome)
            self._rewrite()

    def __contains__(self, index: int) -> bool:
        """Whether the record at this place is finished."""
        number = self._shard_of(index)
        return number in self._finished or (number is not None and index in self._open.get(number, {}))

    def _shard_of(self, index: int) -> int | None:
        """The number of the shard that a record belongs to; None where that is another process's."""
        place = bisect_right(self._shards, index, key=lambda shard: shard[0])
        number = self._shards[place - 1][1] if place else None
        return number if number is not None and index in self._wanted[number] else None

    def add(self, index: int, record_id: str, outcome: Outcome) -> None:
        """Store the images of a new outcome and keep it.

        Failures are kept once a record doesn't fail, so that those that end the build are tried again the next time.
        Raises UserError where too many records fail in a row, or the folder can't be written.
        """
        outcome = self._stored(record_id, outcome)
        if isinstance(outcome, failures.Postponed) and not self._accept_failures:
            self._postponed.append(outcome)
            with writing(self._out):
                run_folder.keep_postponed(self._out, self._postponed, self._part)
            return
        self._streak.add(outcome)
        self._held.append((index, outcome))
        if not failures.failed(outcome):
            self.close()

    def close(self) -> None:
        """Keep what is held back."""
        with writing(self._out):
            for index, outcome in self._held:
                self._journal.append(index, outcome, self._asked.usage())
                if self._keep(index, outcome):
                    self._rewrite()
        self._held.clear()

    def _keep(self, index: int, outcome: Outcome) -> bool:
        """Put an outcome with the others of its shard; whether that made the shard complete, and it was written."""
        number = self._shard_of(index)
        assert number is not None
        shard = self._open.setdefault(number, {})
        shard[index] = outcome
        if len(shard) < len(self._wanted[number]):
            return False
        run_folder.finish_shard(self._out, number, [shard[place] for place in self._wanted[number]])
        del self._open[number]
        self._finished.add(number)
        return True

    def _rewrite(self) -> None:
        """Leave what is in finished shards out of the journal."""
        unfinished = {index: outcome for shard in self._open.values() for index, outcome in shard.items()}
        self._journal.rewrite(self._of_others | unfinished, self._asked.usage())

    def _stored(self, record_id: str, outcome: Outcome) -> Outcome:
        if isinstance(outcome, Rejection):
            return failures.printable_rejection(outcome)
        try:
            return _stored(outcome, self._out)
        except Exception as error:
            if isinstance(error, OSError) and error.errno in _NOT_WRITABLE:
                raise _cannot_write(self._out, error) from error
            return failures.rejection(record_id, error)


def _stored(pairs: Sequence[Pair], out: Path) -> list[Pair]:
    stored = store(pairs, out)
    json.dumps([row_of(pair, out) for pair in stored], ensure_ascii=False).encode()  # Half an emoji can't be written.
    return stored


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """Turn an error of the disk into a UserError that names the run folder."""
    try:
        yield
    except OSError as error:
        raise _cannot_write(out, error) from error


def _cannot_write(out: Path, error: OSError) -> UserError:
    reason = error.strerror or error
    return UserError(f"{out}: can't be written ({reason}). Make room there, and run the same command to continue.")
