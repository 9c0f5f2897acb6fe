"""The one error a user is meant to read."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class UserError(Exception):
    """Something the user can mend; the message names the thing, where it is, and the remedy.

    The command line prints it without a traceback and exits with status 2.
    """


@contextmanager
def panics_as_errors() -> Iterator[None]:
    """Turn the panic of a library in Rust, as over a damaged tokenizer, into a RuntimeError; pyo3's is no Exception."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise RuntimeError(f"a library in Rust panicked: {error}") from error


def describe(error: Exception) -> str:
    """An error's type, message and place in the code, in one line."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    try:
        said = " ".join(str(error).split())[:300]
    except Exception:  # a message may hold what is nested too deeply to be shown
        said = "no message"
    return f"{type(error).__name__}: {said}{place}"


def printable(text: str) -> str:
    """The text with what is no Unicode, such as half an emoji, written as an escape."""
    return text.encode(errors="backslashreplace").decode()


class Notice(UserWarning):
    """Something that the user should know and need not mend; the command line shows it as a sentence of its own."""


class DataWarning(Notice):
    """Something in the user's data that is not used."""
