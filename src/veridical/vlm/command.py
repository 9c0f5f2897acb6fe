"""`veridical models`: which families were tried, and what works with them."""

from __future__ import annotations

import json
import warnings
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from veridical.vlm.model.support import COLUMNS, Support, support

if TYPE_CHECKING:
    from rich.table import Table

    from veridical.vlm.model.loading import Vlm


@dataclass(frozen=True)
class ModelsConfig:
    """What to print about models."""

    model: str = ""
    """A folder or a hub name: load this model and say whether its answers can share a prefix."""
    memory: bool = False
    """Print how much memory each method takes with models of several sizes."""
    json: bool = False
    """Print the table as JSON."""


def run(config: ModelsConfig) -> None:
    """Print the support table, or what a probe finds out about one model."""
    from rich.console import Console

    if config.memory:
        _print_memory(config.json)
    elif config.model:
        _probe(config.model)
    elif config.json:
        print(json.dumps(asdict(support()), indent=2))
    else:
        console = Console()
        console.print(_table(support()))
        for family in support().families:
            if family.note:
                console.print(f"[bold]{family.name}[/bold]: {family.note}", highlight=False)
        for column, meaning in COLUMNS.items():
            console.print(f"[bold]{_title(column)}[/bold]: {meaning}", highlight=False)
        console.print(
            "Any other image-text-to-text model of Hugging Face works too: sharing is probed when it is loaded; where "
            "it isn't exact each answer costs a full forward. Try yours: veridical models --model FOLDER",
            highlight=False,
        )


def _table(found: Support) -> Table:
    from rich.box import SIMPLE
    from rich.table import Table

    table = Table(
        title=f"{len(found.families)} families, tested with transformers {found.transformers}",
        box=SIMPLE,
        padding=(0, 1, 0, 0),
    )
    table.add_column("family", no_wrap=True)
    for column in COLUMNS:
        # No wider than its longest word, so that the table fits 80 columns.
        width = max(map(len, _title(column).split()))
        table.add_column(_title(column), justify="center", width=width)
    for family in found.families:
        table.add_row(family.name, *("yes" if family.passed[column] else "no" for column in COLUMNS))
    return table


def _print_memory(as_json: bool) -> None:
    """GiB by model and method, worked out from the models' shapes."""
    from rich.console import Console
    from rich.table import Table

    from veridical.vlm.memory import METHODS, table

    rows = table()
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    shown = Table("GiB in bfloat16", *METHODS)
    for name, sizes in rows.items():
        shown.add_row(name, *(f"{size:.0f}" for size in sizes.values()))
    Console().print(shown)


def _title(column: str) -> str:
    return column.replace("_", " ").replace("lora", "LoRA")


def _probe(name: str) -> None:
    from veridical.vlm.load import load

    with warnings.catch_warnings():
        # What they say is printed below.
        warnings.simplefilter("ignore", UserWarning)
        vlm = load(name)
    print(f"{vlm.name}: family {vlm.family}. {_verdict(vlm)}")


def _verdict(vlm: Vlm) -> str:
    sharing = vlm.sharing
    if sharing.tested:
        return "Sharing is tested for this family."
    if not sharing.reason:
        return f"Not a tested family; on a probe, shared scores are within {sharing.difference:.1g} of separate ones."
    return f"Each answer costs a full forward: {sharing.reason}."
