"""What a score was made from: veridical's version, the files with their hashes, the packages that read the texts."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from veridical.protocols.statistics import RESAMPLES

READERS = ("nltk", "textblob", "spacy")
"""Packages that split, tag or change words."""
NO_INPUTS = frozenset({"out", "make_prompts", "save_judgements", "images", "judge_images"})


def made_with(config: Any) -> dict[str, Any]:
    """Versions, inputs with their SHA-256, and how intervals were made."""
    return {
        "veridical": metadata.version("veridical"),
        "inputs": {name: [_input(path) for path in paths] for name, paths in _files(config)},
        "seed": config.seed,
        "resamples": RESAMPLES,
        "readers": {name: metadata.version(name) for name in READERS if name in sys.modules} | _language_models(config),
    }


def _language_models(config: Any) -> dict[str, str]:
    """The versions of the spaCy models that were loaded; each is a package with a version."""
    named = [name for name in (getattr(config, "phrases", ""), getattr(config, "vectors", "")) if name]
    names = ("en_core_web_trf" if name == "auto" else name for name in named)
    versions = {name: getattr(sys.modules.get(name), "__version__", None) for name in names}
    return {name: str(version) for name, version in versions.items() if version is not None}


def _files(config: Any) -> Iterator[tuple[str, list[Path]]]:
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        paths = [path for path in (value if isinstance(value, tuple) else (value,)) if isinstance(path, Path)]
        if paths and field.name not in NO_INPUTS:
            yield field.name, paths


def _input(path: Path) -> dict[str, str]:
    """A file's name and hash; of a folder, those of all its files together."""
    files = sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]
    hashes = [_sha256(file) for file in files]
    whole = hashes[0] if not path.is_dir() else hashlib.sha256("".join(hashes).encode()).hexdigest()
    return {"name": path.name, "sha256": whole}


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
