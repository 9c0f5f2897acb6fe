"""Recognises the tool that wrote a file of answers, and brings its rows into the common form."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

from veridical.errors import UserError
from veridical.protocols.answer_formats import lmms_eval, ms_swift, openai_batch, vlmevalkit

Format = Literal["auto", "rows", "lmms-eval", "vlmevalkit", "openai-batch", "ms-swift", "id-to-text", "lines"]
FORMATS: Sequence[str] = get_args(Format)

Row = Mapping[str, Any]
Numbered = Sequence[tuple[str, Row]]

RECOGNISED = 20
"""So many rows are looked at; a form holds where it fits the most of them."""


class Tool(NamedTuple):
    """How a tool's rows are recognised and converted, and what they are sorted by, if at all."""

    recognise: Callable[[Row], bool]
    convert: Callable[[Row], dict[str, Any]]
    order: Callable[[Row], int] | None = None


TOOLS: Mapping[str, Tool] = {
    "lmms-eval": Tool(lmms_eval.recognise, lmms_eval.convert, lmms_eval.order),
    "vlmevalkit": Tool(vlmevalkit.recognise, vlmevalkit.convert),
    "openai-batch": Tool(openai_batch.recognise, openai_batch.convert),
    "ms-swift": Tool(ms_swift.recognise, ms_swift.convert),
}


def converted(rows: Numbered, form: str, path: object) -> tuple[Numbered, list[str]]:
    """The rows in the common form, and the places of those that are not of the form.

    Args:
        rows: the objects of a file with their places.
        form: one of `FORMATS`; "auto" goes by the shape of the rows.
        path: the file, for messages.

    Raises:
        UserError: no row is of the form that was asked for.
    """
    name = recognised(rows) if form == "auto" else form
    if name not in TOOLS:
        return rows, []
    tool = TOOLS[name]
    good = [(place, row) for place, row in rows if tool.recognise(row)]
    if not good:
        some = ", ".join(list(rows[0][1])[:8]) if rows else "none"
        raise UserError(f"{path}: no row is of the form --format {name}; the first has the fields {some}.")
    if tool.order is not None:
        order = tool.order
        good.sort(key=lambda numbered: order(numbered[1]))
    bad = [f"{place}: not of the form {name}" for place, row in rows if not tool.recognise(row)]
    return [(place, tool.convert(row)) for place, row in good], bad


def recognised(rows: Numbered) -> str:
    """The form of most of the first rows."""
    looked_at = rows[:RECOGNISED]
    for name, tool in TOOLS.items():
        if 2 * sum(tool.recognise(row) for _, row in looked_at) > len(looked_at):
            return name
    return "rows"
