"""SHA-256 of a model's weights: from its files, once for each file, or from memory for a model that has none."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from veridical.errors import UserError
from veridical.files import read_json, write_json

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
KEEP_FLOAT32 = "veridical_keep_float32"
"""Set in the `config.json` of a whole model that was trained here: half precision would round its training away."""


def files_of(folder: Path) -> list[Path]:
    """The files of weights that a model's folder holds. Raises `UserError` where its index names anything else.

    An index comes with the model, from whoever made it: it may name plain safetensors files beside it, and no others.
    """
    index = folder / _INDEX
    if (folder / _SINGLE).is_file() or not index.is_file():
        return [folder / _SINGLE] if (folder / _SINGLE).is_file() else []
    try:
        names = sorted({str(name) for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()})
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise UserError(f"{index}: the index of the weights can't be read ({error}). Fetch the model again.") from error
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors") or "\\" in name:
            raise UserError(f"{index} names {name!r}: weights must be safetensors files beside the index.")
        if not (folder / name).is_file():
            raise UserError(f"{folder / name} is missing, though {_INDEX} names it. Fetch the model again.")
    return [folder / name for name in names]


def hash_of_files(folder: Path, dtype: Any) -> str:
    """SHA-256 over the files of a model's weights and its configuration, for weights loaded as `dtype`.

    A file's own hash is kept in the user's cache until the file changes, so that large models are read for it once.
    """
    digest = hashlib.sha256(f"{dtype}\n".encode())
    for path in (folder / "config.json", *files_of(folder)):
        digest.update(f"{path.name} {_hash_of_file(path)}\n".encode())
    return digest.hexdigest()


def hash_in_memory(model: Any) -> str:
    """SHA-256 over all weights of a model: names, types, shapes, bytes."""
    return _hash_of_tensors(model.state_dict())


def hash_of_adapter(model: Any) -> str:
    """SHA-256 over the weights that PEFT added to a model, a trained projector's among them; empty without any."""
    if not hasattr(model, "peft_config"):
        return ""
    return _hash_of_tensors({name: t for name, t in model.state_dict().items() if _is_added(name)})


def _is_added(name: str) -> bool:
    return "lora_" in name or ".modules_to_save." in name or "trainable_tokens" in name


def _hash_of_tensors(tensors: dict[str, Any]) -> str:
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _hash_of_file(path: Path) -> str:
    """A file's SHA-256, from the cache where the file is as it was then."""
    real = path.resolve()
    stat = real.stat()
    state = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
    note = _cache() / f"{hashlib.sha256(str(real).encode()).hexdigest()}.json"
    try:
        known = read_json(note)
        if known["state"] == state:
            return str(known["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    digest = hashlib.sha256()
    with real.open("rb") as file:
        while block := file.read(2**24):
            digest.update(block)
    with contextlib.suppress(OSError):  # a home that can't be written to costs time only
        write_json(note, {"state": state, "sha256": digest.hexdigest()})
    return digest.hexdigest()


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "veridical" / "hashes"
