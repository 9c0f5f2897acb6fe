"""Data sets on the Hugging Face Hub, as `hf://OWNER/NAME[@REVISION][:SPLIT]`: fetched into the Hub's own cache.

Where the Hub is (`HF_ENDPOINT`), where its cache is (`HF_HOME`) and who you are (`HF_TOKEN`, `hf auth login`) are
huggingface_hub's settings.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from veridical.errors import UserError
from veridical.hub import hub_errors

# One slash where the name went through a Path.
_NAME = re.compile(r"hf:/{1,2}(?P<repo>[\w.\-]+/[\w.\-]+)(?:@(?P<revision>[\w.\-/]+))?(?::(?P<split>[\w.\-]+))?")
_TABLES = (".parquet", ".jsonl", ".json", ".csv", ".tsv", ".arrow", ".gz")
_NO_TABLES = ("dataset_infos.json", "dataset_info.json")


@dataclass(frozen=True)
class Fetched:
    """A data set on disk: the folder that it is in, and the files of the split, all tables if none was named."""

    folder: Path
    files: tuple[Path, ...]
    split: str


def fetch(source: str | Path) -> Fetched:
    """The data set, downloaded unless the cache has it. Raises UserError where there is none, or no such split."""
    from huggingface_hub import snapshot_download

    named = _NAME.fullmatch(str(source))
    if named is None:
        raise UserError(f"{source}: write a data set on the Hub as hf://OWNER/NAME or hf://OWNER/NAME:SPLIT.")
    repo, split = named["repo"], named["split"] or ""
    with hub_errors(repo):
        folder = Path(snapshot_download(repo, repo_type="dataset", revision=named["revision"]))
    files = tuple(sorted(path for path in folder.rglob("*") if _is_table(path, folder)))
    if split:
        known = splits(folder)
        if split not in known:
            listed = ", ".join(known) or "none that is named"
            raise UserError(f"{source}: has no split {split!r}; it has {listed}.")
        files = known[split]
    return Fetched(folder, files, split)


def splits(folder: Path) -> dict[str, tuple[Path, ...]]:
    """The files of each split of a data set's folder, as `datasets` sees it: by its card, or by the files' names."""
    import datasets

    try:
        data_files: Any = datasets.load_dataset_builder(str(folder)).config.data_files or {}
    except (ValueError, FileNotFoundError, datasets.exceptions.DatasetsError) as error:
        raise UserError(
            f"{folder}: its splits can't be told ({str(error)[:200]}); name the data set without one."
        ) from None
    return {str(name): tuple(Path(file) for file in files) for name, files in data_files.items()}


def _is_table(path: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return path.suffix.lower() in _TABLES and path.name not in _NO_TABLES and not hidden and path.is_file()
