"""Writes the tables in the pages of this folder that come from the registry; `--check` only says which are out of date.

A table is between `<!-- registry: KIND -->` and `<!-- end -->`.
"""

import re
import sys
from pathlib import Path

from veridical.catalogue import markdown

PLACE = re.compile(r"(<!-- registry: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def current(page: str) -> str:
    """A page's text with its tables as the registry has them."""
    return PLACE.sub(lambda match: f"{match[1]}{markdown(match[2])}{match[3]}", page)


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
