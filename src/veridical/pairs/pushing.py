"""Push pairs to the Hugging Face Hub, with a card: how many there are, how they were made, how to load them."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from veridical.files import write_text
from veridical.hub import hub_errors
from veridical.pairs.wide import wide_features
from veridical.records import Pair

if TYPE_CHECKING:
    from veridical.pairs.exported import Exported

_CARD = """---
{header}---

# Preference pairs for vision-language models

{pairs} pairs about {images} images, written by [veridical](https://pypi.org/project/veridical/).

| | |
|---|---|
{facts}

{columns}

## Use

```python
from datasets import load_dataset

dataset = load_dataset("{repo}", split="train")  # the columns that trl.DPOTrainer reads, and where each pair is from
```

```sh
veridical align --pairs hf://{repo} --model llava-hf/llava-1.5-7b-hf --out runs/aligned
veridical data check hf://{repo}
```

## Licence

{licence}
"""
_PARQUET = """`images` (inside), `prompt`, `chosen` and `rejected` are as TRL has them; `construction`, `parameters`,
`seed`, `model`, `judge`, `chosen_source`, `rejected_source` and `scores` say how a pair was made; `others`, `weights`,
`context` and `rejected_images` are there where a pair is more than two answers about one set of images."""
_JSON = "Rows are as {form} has them; image paths start from the folder `data`."
_OTHER_FORMATS = "Loading with `datasets` gives paths in place of images."


@dataclass
class _Contents:
    """What is in a set, counted while it is read."""

    pairs: int = 0
    images: set[str] = field(default_factory=set)
    parts: Mapping[str, Counter[str]] = field(default_factory=lambda: {name: Counter() for name in _PARTS})
    wide: Counter[str] = field(default_factory=Counter)

    def add(self, pair: Pair) -> None:
        self.pairs += 1
        self.images.update(image.sha256 for image in pair.images)
        self.wide.update(wide_features(pair) - {"provenance", "spans"})
        for name, count in self.parts.items():
            count[_PARTS[name](pair)] += 1


_PARTS: Mapping[str, Callable[[Pair], str]] = {
    "construction": lambda pair: pair.provenance.construction,
    "chosen from": lambda pair: pair.provenance.chosen_source,
    "rejected from": lambda pair: pair.provenance.rejected_source,
    "model": lambda pair: Path(pair.provenance.model).name,
    "judge": lambda pair: pair.provenance.judge,
    "seed": lambda pair: str(pair.provenance.seed),
}


def push(
    run: Path,
    repo: str,
    write: Callable[[Path, str], Exported],
    form: str = "",
    *,
    private: bool = False,
    licence: str = "",
) -> Exported:
    """Write the pairs of a run folder to the data set `repo` ("OWNER/NAME") on the Hub, in place of what was there.

    `write` exports them to a file in a format. `form` is the format of JSON lines; parquet with all that is known of a
    pair if left out. Raises UserError for a folder without pairs, and for what the Hub refuses.
    """
    from huggingface_hub import HfApi

    from veridical.pairs.dataset import stream_pairs

    with tempfile.TemporaryDirectory(prefix="veridical-push-") as work:
        folder = Path(work)
        name = "train.jsonl" if form else "train-00000-of-00001.parquet"
        done = write(folder / "data" / name, form)
        contents = _Contents()
        for pair in stream_pairs(run):
            contents.add(pair)
        write_text(folder / "README.md", card(repo, contents, form, licence))
        api = HfApi()
        with hub_errors(repo):
            api.create_repo(repo, repo_type="dataset", private=private or None, exist_ok=True)
            api.upload_folder(
                repo_id=repo,
                repo_type="dataset",
                folder_path=folder,
                commit_message=f"{done.rows} pairs, written by veridical",
                delete_patterns=["data/*"],
            )
    return done


def card(repo: str, contents: _Contents, form: str, licence: str) -> str:
    """The card's text: the Hub's header, counts, provenance, columns, how to load, licence."""
    suffix = "jsonl" if form else "parquet"
    facts = {name: _listed(counts) for name, counts in contents.parts.items()}
    if contents.wide:
        facts["wider pairs"] = _listed(contents.wide)
    return _CARD.format(
        header=_header(licence, suffix, contents.pairs),
        repo=repo,
        pairs=contents.pairs,
        images=len(contents.images),
        facts="\n".join(f"| {name} | {value} |" for name, value in facts.items()),
        columns=f"{_JSON.format(form=form)} {_OTHER_FORMATS}" if form else _PARQUET,
        licence=f"`{licence}`; images keep their own." if licence else "Not stated. Images keep their own.",
    )


def _header(licence: str, suffix: str, pairs: int) -> str:
    sizes = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
    size = next((name for limit, name in sizes if pairs < limit), "1M<n<10M")
    lines = [f"license: {json.dumps(licence)}"] if licence else []
    lines += ["task_categories:", "- image-text-to-text", "size_categories:", f"- {size}"]
    lines += ["tags:", "- preference", "- dpo", "- vision-language", "- hallucination"]
    lines += ["configs:", "- config_name: default", "  data_files:", "  - split: train", f"    path: data/*.{suffix}"]
    return "".join(f"{line}\n" for line in lines)


def _listed(counts: Mapping[str, int]) -> str:
    most = Counter(counts).most_common(6)
    shown = [f"{_plain(name)} ({count})" for name, count in most if name]
    if len(counts) > len(most):
        shown.append(f"{len(counts) - len(most)} more")
    return ", ".join(shown) or "not stated"


def _plain(text: str) -> str:
    """A text inside a Markdown table."""
    return text.replace("|", "\\|").replace("\n", " ")[:80]
