"""Writes the pages that come from the code: all there is in the registry, with its settings, and the commands."""

import subprocess
import sys
from pathlib import Path

import mkdocs_gen_files

from veridical.catalogue import KINDS
from veridical.cli import COMMANDS
from veridical.constructions.registry import settings_type

sys.path.insert(0, str(Path(__file__).parent))
from tables import REGISTRIES, listing

INTRODUCTIONS = {
    "constructions": "How pairs are made: `veridical build --construction NAME`.",
    "objectives": "What is minimised: `veridical align --objective.name NAME`.",
    "judges": "Who says what is true: `--judge.name NAME`.",
    "decodings": "Mitigation at decoding: `veridical eval --methods NAME`.",
    "rewards": "What policy gradient rewards: `veridical rl --rewards NAME=WEIGHT`.",
    "protocols": "How it is measured: `veridical eval --protocols NAME`, `veridical score NAME`.",
    "formats": "Data sets that are read: `veridical data import [NAME] PATH`.",
}

with mkdocs_gen_files.open("reference/lists.md", "w") as page:
    print("# Everything there is to choose from\n", file=page)
    print("What `veridical list` prints; yours are listed beside these once they are installed.\n", file=page)
    for kind in KINDS:
        print(f"## {kind.capitalize()}\n\n{INTRODUCTIONS[kind]}\n\n{listing(kind)}", file=page)

MEMBERS = """
::: {module}
    options:
      members: [{members}]
      show_root_heading: false
      show_root_toc_entry: false
"""


def documented(kind: str, name: str) -> str:
    """Where a method is documented: its module's docstring, and of what is in it the method and its settings."""
    module, _, attribute = REGISTRIES[kind].own[name].target.partition(":")
    settings = settings_type(name).__name__ if kind == "constructions" else "Settings"
    members = [attribute or settings, *((settings,) if kind == "constructions" else ())]
    return MEMBERS.format(module=module, members=", ".join(members))


for kind in ("constructions", "objectives", "judges", "decodings", "protocols"):
    with mkdocs_gen_files.open(f"reference/{kind}.md", "w") as page:
        print(
            f"# {kind.capitalize()}\n\n{INTRODUCTIONS[kind]} What each setting means, and where it is from.", file=page
        )
        for name in REGISTRIES[kind].own:
            print(f"\n## {name}\n{documented(kind, name)}", file=page)

with mkdocs_gen_files.open("reference/commands.md", "w") as page:
    print("# Commands and their settings\n", file=page)
    for name, command in COMMANDS.items():
        helped = subprocess.run(
            [sys.executable, "-m", "veridical", *name.split(), "--help"],
            capture_output=True, text=True, check=True, env={"COLUMNS": "100", "PATH": "", "NO_COLOR": "1"},
        )  # fmt: skip
        print(f"## veridical {name}\n\n{command.summary}\n\n```text\n{helped.stdout.strip()}\n```\n", file=page)
