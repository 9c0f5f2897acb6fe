"""Send a finished step's numbers to experiment trackers: those that accelerate knows, the same as for training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from veridical.errors import UserError


def require(names: Sequence[str]) -> None:
    """Raise UserError for a tracker that is not installed, before any work."""
    if not names:
        return
    from accelerate.tracking import get_available_trackers

    known = [str(tracker) for tracker in get_available_trackers()]
    if absent := [name for name in names if name not in known]:
        raise UserError(f"report_to: {', '.join(absent)} is not installed; there is: {', '.join(known) or 'none'}.")


def report(
    names: Sequence[str], out: Path, command: str, settings: Mapping[str, Any], values: Mapping[str, Any]
) -> None:
    """Send the settings and the numbers of a run of `veridical COMMAND` to trackers; files they write go to
    `out/tracking`."""
    if not names:
        return
    from accelerate import PartialState
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    PartialState()  # trackers ask it which process they are in
    for name in names:
        kind: Any = LOGGER_TYPE_TO_CLASS[name]
        where = {"logging_dir": str(out / "tracking")} if kind.requires_logging_directory else {}
        tracker = kind(f"{command}-{out.name}", **where)
        tracker.start()
        tracker.store_init_configuration(dict(flat(settings)))
        tracker.log({key: value for key, value in flat(values) if isinstance(value, int | float)}, step=0)
        tracker.finish()


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, bool | int | float | str]]:
    """Nested values as names with slashes; lists as text, and nothing where there is nothing."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from flat(value, f"{name}/")
        elif isinstance(value, bool | int | float | str):
            yield name, value
        elif value is not None:
            yield name, str(value)
