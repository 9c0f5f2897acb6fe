"""Writes the tables in the pages of this folder that come from the registry; `--check` only says which are out of date.

A table is between `<!-- registry: KIND -->` and `<!-- end -->`. Its columns are the registry's summaries and sources,
what stands under a label in the method's own docstring ("Loss: ..."), and what can be read off the code.
"""

import inspect
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from veridical.catalogue import entries
from veridical.constructions.registry import CONSTRUCTIONS, judge_needs, settings_type
from veridical.decoding.registry import DECODINGS
from veridical.formats.published.registry import FORMATS
from veridical.judges.interface import METHODS
from veridical.judges.offering import who_offers
from veridical.judges.registry import JUDGES
from veridical.objectives.registry import OBJECTIVES
from veridical.protocols.benchmarks.registry import BENCHMARKS
from veridical.protocols.registry import PICTURES, PROTOCOLS
from veridical.registry import Registry
from veridical.rl.registry import REWARDS

PLACE = re.compile(r"(<!-- registry: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
REGISTRIES: Mapping[str, Registry[Any]] = {
    "constructions": CONSTRUCTIONS,
    "objectives": OBJECTIVES,
    "judges": JUDGES,
    "decodings": DECODINGS,
    "protocols": BENCHMARKS,
    "picture-protocols": PROTOCOLS,
    "rewards": REWARDS,
    "formats": FORMATS,
}
LABELS: Mapping[str, tuple[str, ...]] = {
    "constructions": ("Chosen", "Rejected", "Needs"),
    "objectives": ("Loss",),
    "decodings": ("Contrasts with", "Costs"),
    "protocols": ("Metrics", "Variants"),
}
"""What the docstrings say of each kind; it stands last in them."""
SUMMARISED = frozenset(REGISTRIES) - {"constructions", "decodings"}
"""Kinds whose labels don't already say what each one is."""


def asked(name: str) -> str:
    """What a construction asks of a judge by its defaults."""
    needs = judge_needs(name, settings_type(name)())
    return ", ".join(METHODS[kind].replace("_", " ") for kind in METHODS if kind in needs)


def can(name: str) -> str:
    """What a judge answers."""
    offers = [method for method in METHODS.values() if name in who_offers(method)]
    absent = [method for method in METHODS.values() if method not in offers]
    return (f"everything but {absent[0]}" if len(absent) == 1 else ", ".join(offers)).replace("_", " ")


READ: Mapping[str, Mapping[str, Callable[[str], str]]] = {
    "constructions": {"asks a judge to": asked},
    "judges": {"can": can},
}
"""What is read off the code."""


def labelled(made: Any, label: str) -> str:
    """What stands under a label in a docstring, up to the next label or paragraph."""
    text = " ".join((inspect.getdoc(made) or "").replace("\n\n", " ¶ ").split())
    found = re.findall(rf"(?:^|[.¶] ){label}: (.*?)\.?(?= ¶|\. [A-Z][a-z ]+: |\.?$)", text)
    return str(found[-1]) if found else ""


def linked(source: str) -> str:
    """A source with its arXiv numbers as links."""
    return re.sub(r"\b(\d{4}\.\d{5})\b", r"[\1](https://arxiv.org/abs/\1)", source)


def table(kind: str) -> str:
    """A table of all of a kind that come with veridical."""
    registry, labels, read = REGISTRIES[kind], LABELS.get(kind, ()), READ.get(kind, {})
    names = list(PICTURES) if kind == "picture-protocols" else list(registry.own)
    rows = []
    for name in names:
        own, made = registry.own[name], registry.get(name) if labels else None
        cells = [f"`{name}`", own.summary, *(labelled(made, label) for label in labels)]
        rows.append([*cells, *(say(name) for say in read.values()), linked(own.source)])
    heads = ["name", "what it is", *(label.lower() for label in labels), *read, "after"]
    kept = [place for place, head in enumerate(heads) if any(row[place] for row in rows)]
    kept = [place for place in kept if kind in SUMMARISED or heads[place] != "what it is"]
    return markdown([[row[place] for place in kept] for row in [heads, *rows]])


def listing(kind: str) -> str:
    """A table of what `veridical list KIND` prints."""
    rows = [[f"`{entry.name}`", linked(entry.summary)] for entry in entries(kind) if entry.origin == "veridical"]
    return markdown([["name", "what it is"], *rows])


def markdown(rows: list[list[str]]) -> str:
    """Rows as a table, the first one its head."""
    cells = [[f" {cell.replace('|', '&#124;')} " if cell else " " for cell in row] for row in rows]
    lines = [f"|{'|'.join(row)}|" for row in cells]
    return "\n".join([lines[0], f"|{'---|' * len(rows[0])}", *lines[1:]]) + "\n"


def current(page: str) -> str:
    """A page's text with its tables as the registry has them."""
    return PLACE.sub(lambda match: f"{match[1]}{table(match[2])}{match[3]}", page)


def main() -> None:
    """Write, or with `--check` report, every page whose tables differ from the registry."""
    changed = []
    for path in sorted(Path(__file__).parent.glob("*.md")):
        before = path.read_text(encoding="utf-8")
        after = current(before)
        if after != before:
            changed.append(path.name)
            if "--check" not in sys.argv:
                path.write_text(after, encoding="utf-8")
    print(f"out of date: {', '.join(changed)}; python docs/tables.py writes them" if changed else "up to date")
    sys.exit(bool(changed) and "--check" in sys.argv)


if __name__ == "__main__":
    main()
