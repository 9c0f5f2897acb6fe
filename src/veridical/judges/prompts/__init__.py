"""Load the prompts for judges that are language models, one text file each.

A file has a version line and two parts, `[system]` and `[user]`; `$name` in the latter is replaced by a value. Any
change of the wording raises the version. Version and hash are reported with every number that a prompt produced.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from string import Template


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """A prompt file. `sha256` is the hex digest of its bytes."""

    name: str
    version: str
    system: str
    user: str
    sha256: str

    @property
    def tag(self) -> str:
        """Name, version and the start of the hash: "detect/1:0a1b2c3d"."""
        return f"{self.name}/{self.version}:{self.sha256[:8]}"

    def fill(self, values: Mapping[str, str]) -> str:
        """The user's part with `values` in it. Raises KeyError for a value that is not given."""
        return Template(self.user).substitute(values)


@cache
def prompt(name: str) -> PromptTemplate:
    """The prompt of that name."""
    content = resources.files(__package__).joinpath(f"{name}.txt").read_bytes()
    return read_prompt(name, content)


def read_prompt(name: str, content: bytes) -> PromptTemplate:
    """A prompt out of the bytes of its file. Raises ValueError where it has another form."""
    match = re.fullmatch(r"version: (\S+)\n\[system\]\n(.*?)\n\[user\]\n(.*)", content.decode(), re.DOTALL)
    if match is None:
        raise ValueError(f"{name}: a prompt file has a version line, [system] and [user]")
    version, system, user = (part.strip() for part in match.groups())
    return PromptTemplate(name, version, system, user, hashlib.sha256(content).hexdigest())
