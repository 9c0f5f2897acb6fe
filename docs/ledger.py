"""Write docs/claims.md from the ledger of a folder: python docs/ledger.py FOLDER, once claims were put to the test.

The folder is that of `veridical study --claims --out FOLDER`, at any time; claims that it lacks are listed as not run.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

from veridical.study.claims import known, ledger, table

PAGE = Path(__file__).parent / "claims.md"
HEAD = """\
# Papers' claims, put to the test

Each claim is a small study on the bundled model, whose settings are in `src/veridical/study/claims/`. {support}
Sets have 360 pairs where nothing else is said, models are measured on 500 held-out scenes. What holds for a model of
three million parameters in a world of 36 kinds of objects need not hold for a 7B, and the other way round; the last
column says why. Numbers are by `world-chair/1`, `world-pope/1`, and what the metric's name says.

```sh
veridical study --claims --dry-run                    # what each takes
veridical study --claims 2 14 --out runs/claims       # puts two to the test; the same command continues
veridical study --claims --out runs/claims            # all that isn't done yet
python docs/ledger.py runs/claims                     # writes this page
```

Of {all} claims: {counts}.

"""
SUPPORT = (
    "A claim is supported where the\\n95 % interval of every paired difference it speaks of excludes 0 in the stated "
    "direction, over three seeds, after Holm, at\\nequal recall where captions are compared; contradicted where one "
    "lies on the other side; undecided otherwise."
)


def main(folder: Path) -> None:
    """Write the page."""
    rows = ledger(known(folder))
    counts = Counter(str(row["verdict"]) for row in rows.values())
    told = ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
    PAGE.write_text(
        HEAD.format(support=SUPPORT.replace("\\n", "\n"), all=len(rows), counts=told) + table(rows), encoding="utf-8"
    )
    print(f"{PAGE}: {told}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
