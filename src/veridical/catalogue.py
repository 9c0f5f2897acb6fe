"""`veridical list`: everything there is to choose from, ours and yours, with a line about each."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field, make_dataclass
from typing import Any

from veridical.config import one_of
from veridical.errors import UserError
from veridical.registry import Listed, Registry

KINDS: Mapping[str, str] = {
    "constructions": "veridical.constructions.registry:CONSTRUCTIONS",
    "objectives": "veridical.objectives.registry:OBJECTIVES",
    "judges": "veridical.judges.registry:JUDGES",
    "decodings": "veridical.decoding.registry:DECODINGS",
    "protocols": "veridical.protocols.registry:PROTOCOLS",
    "rewards": "veridical.rl.registry:REWARDS",
    "formats": "veridical.formats.published.registry:FORMATS",
}
"""Where each kind's registry is; a room is imported when it is asked for."""


@dataclass(frozen=True)
class ListConfig:
    """Lists constructions, objectives, judges, methods of decoding, protocols, rewards and formats."""

    kind: str = "all"
    """What to list; all of it by default."""
    json: bool = False
    """Print JSON instead: by kind, each one's name, summary and origin."""


def config_type(choices: Mapping[str, str]) -> type[ListConfig]:
    """ListConfig whose `--help` shows the kinds there are."""
    made: type[ListConfig] = make_dataclass(
        "ListConfig",
        [("kind", one_of(("all", *KINDS)), field(default="all"))],
        bases=(ListConfig,),
        frozen=True,
        namespace={"__doc__": ListConfig.__doc__},
    )
    return made


def entries(kind: str) -> list[Listed]:
    """All of a kind, in the order of the registry. Raises UserError for a kind that there is not."""
    if kind not in KINDS:
        near = difflib.get_close_matches(kind, KINDS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(KINDS)}."
        raise UserError(f"no kind {kind!r}; {hint}")
    module, _, name = KINDS[kind].partition(":")
    registry: Registry[Any] = getattr(importlib.import_module(module), name)
    return registry.listed()


def run(config: ListConfig) -> None:
    """Print the list."""
    kinds = list(KINDS) if config.kind == "all" else [config.kind]
    listings = {kind: entries(kind) for kind in kinds}
    if config.json:
        import json
        from dataclasses import asdict

        print(json.dumps({kind: [asdict(entry) for entry in listed] for kind, listed in listings.items()}, indent=2))
        return
    for kind, listed in listings.items():
        if len(listings) > 1:
            print(f"{kind}:")
        width = max(len(entry.name) for entry in listed)
        for entry in listed:
            origin = "" if entry.origin == "veridical" else f"  [{entry.origin}]"
            print(f"  {entry.name:<{width}}  {entry.summary}{origin}")
