"""The README.md of a build: a dataset card in Hugging Face's form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_CARD = """---
configs:
- config_name: default
  data_files: pairs/*.parquet
tags:
- preference
- vision-language
- hallucination
---

# Preference pairs: {construction}

{pairs} pairs out of {used} of {records} records (`{source}`), made with `veridical build`.

| | |
|---|---|
| construction | `{construction}` |
| model | `{model}` ({fingerprint}) |
| seed | {seed} |
| chosen side | {chosen} |
| rejected records | {rejected} |

`manifest.json` holds all counts, settings, versions and hashes, `rejects.jsonl` every record that gave no pair
with its reason, `summary.json` how the two sides compare.

## Columns

`images`, `prompt`, `chosen` and `rejected` are as TRL's `DPOTrainer` reads them. `id` and `record_id` name the pair and
its record; `construction`, `variant`, `parameters`, `seed`, `model`, `judge`, `attempts`, `chosen_source`,
`rejected_source` and `scores` say how it was made; `image_sha256` is the hash of each image's file. `chosen_spans`
and `rejected_spans` are the character ranges in which the sides differ. Where `open_ended` is true, both sides are
beginnings of answers, whose end of turn is not to be trained on.

## Use

Image paths are relative to this folder. In it, without veridical:

```python
from datasets import load_dataset

dataset = load_dataset("parquet", data_files="pairs/*.parquet", split="train")
```

From anywhere:

```python
from pathlib import Path
from veridical.pairs.dataset import to_trl

dataset = to_trl(Path("THIS_FOLDER"))  # give it to trl.DPOTrainer as train_dataset
```

`veridical data export THIS_FOLDER --to pairs.parquet` writes one file with the images in it, which
`datasets.load_dataset("parquet", data_files="pairs.parquet")` reads without veridical.
"""


def card(manifest: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    """The card's text."""
    identity = manifest["identity"]
    rejected = ", ".join(f"{count} {reason}" for reason, count in manifest["rejected"].items())
    return _CARD.format(
        construction=identity["construction"],
        pairs=manifest["pairs_out"],
        used=manifest["records_used"],
        records=manifest["records_in"],
        source=identity["records"],
        model=identity.get("generated_by") or identity["model"],
        fingerprint=identity["model_fingerprint"][:16],
        seed=identity["seed"],
        chosen=", ".join(f"{source} ({count})" for source, count in summary["chosen_from"].items()),
        rejected=rejected or "none",
    )
