"""What a check of a set found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Severity = Literal["error", "warning", "note"]
"""An error is wrong in any use; a warning teaches something that isn't wanted; a note is a number to know."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One kind of fault or fact, with how often it was found and which pairs have it.

    `pairs` are ids, all of them; `leave_out` those that `--fix` leaves out, which are fewer where one of several copies
    stays.
    """

    kind: str
    severity: Severity
    text: str
    remedy: str = ""
    pairs: tuple[str, ...] = ()
    leave_out: frozenset[str] = frozenset()
    numbers: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Checked:
    """The findings about a set, errors first."""

    pairs: int
    findings: tuple[Finding, ...]

    def ok(self, warnings_too: bool = False) -> bool:
        """Whether no error was found; with `warnings_too`, no warning either."""
        bad = {"error", "warning"} if warnings_too else {"error"}
        return not any(finding.severity in bad for finding in self.findings)
