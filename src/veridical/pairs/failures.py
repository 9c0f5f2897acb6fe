"""Unexpected errors: the record is rejected, and only many in a row end the build."""

from __future__ import annotations

from dataclasses import dataclass

from veridical.constructions.protocol import Rejected
from veridical.errors import UserError, describe, printable
from veridical.records import Rejection

FAILED = "failed"
IN_A_ROW = 10
"""So many records that fail one after the other, with none in between that doesn't, end the build."""
_REMEDY = "leave this record out, or report the error in the detail with it"


@dataclass(frozen=True, slots=True)
class Postponed(Rejection):
    """A record that a service could not be asked about, being down or busy: made again by the same command."""


def rejection(record_id: str, error: Exception) -> Rejection:
    """The rejection of a record by an error: its own reason and remedy where it has them."""
    if isinstance(error, Rejected):
        return Rejection(*(printable(text) for text in (record_id, error.reason, error.remedy, error.detail)))
    if isinstance(error, UserError):
        reason = getattr(error, "reason", "refused-by-model")
        remedy = getattr(error, "remedy", "change the record as the detail says")
        kind = Postponed if getattr(error, "passing", False) else Rejection
        return kind(printable(record_id), reason, remedy, printable(str(error)))
    return Rejection(printable(record_id), FAILED, _REMEDY, printable(describe(error)))


def failed(outcome: object) -> bool:
    """Whether an outcome is the rejection of a record by an unexpected error."""
    return isinstance(outcome, Rejection) and outcome.reason == FAILED


def printable_rejection(one: Rejection) -> Rejection:
    """The rejection with nothing in it that can't be written."""
    return type(one)(*(printable(text) for text in (one.id, one.reason, one.remedy, one.detail)))


class Streak:
    """Counts failures in a row."""

    def __init__(self) -> None:
        self._count = 0

    def add(self, outcome: object) -> None:
        """Count an outcome. Raises UserError once too many in a row have failed."""
        self._count = self._count + 1 if failed(outcome) else 0
        if self._count == IN_A_ROW and isinstance(outcome, Rejection):
            raise UserError(
                f"{IN_A_ROW} records in a row failed, the last one ({outcome.id}) with {outcome.detail}. What was made "
                "before them is kept; mend the cause and run the same command again."
            )
