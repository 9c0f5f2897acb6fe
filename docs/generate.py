"""Writes the pages that come from the code: lists of everything in the registry, the commands and their settings."""

import subprocess
import sys
from pathlib import Path

import mkdocs_gen_files

from veridical.catalogue import KINDS
from veridical.cli import COMMANDS

sys.path.insert(0, str(Path(__file__).parent))
from tables import listing

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

with mkdocs_gen_files.open("reference/commands.md", "w") as page:
    print("# Commands and their settings\n", file=page)
    for name, command in COMMANDS.items():
        helped = subprocess.run(
            [sys.executable, "-m", "veridical", *name.split(), "--help"],
            capture_output=True, text=True, check=True, env={"COLUMNS": "100", "PATH": "", "NO_COLOR": "1"},
        )  # fmt: skip
        print(f"## veridical {name}\n\n{command.summary}\n\n```text\n{helped.stdout.strip()}\n```\n", file=page)
