"""What a frozen vision tower made of images, kept on disk: later epochs and runs open none of them again.

    FOLDER/<hash of model>/features/<hash>.safetensors   by image, view before the tower, and prompt where it is read
    FOLDER/<hash of model>/contexts/<hash>.safetensors   by images, prompt and view: what the processor made, no pixels

Files appear whole or not at all, so processes and runs may use a folder at the same time.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from veridical.errors import UserError
from veridical.files import write_whole
from veridical.records import ImageFile
from veridical.vlm.features import Features
from veridical.vlm.inputs import Context, Prepared, tower_key
from veridical.vlm.loading import Vlm
from veridical.vlm.views import before_tower, describe, is_random


class TowerCache:
    """Features by context, in one folder up to a limit; what has no room is not kept, and nothing is thrown out."""

    def __init__(self, folder: Path, limit: int, vlm: Vlm, fingerprint: str, writers: int = 1) -> None:
        """`limit` in bytes, for all models in `folder` together; `writers` processes share what is left of it.

        `fingerprint` is that of the base model, whose tower an adapter leaves as it is.
        """
        used = sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
        self._room = (limit - used) // writers
        self._folder = folder / _digest(fingerprint, str(vlm.model.dtype), vlm.opening)[:32]

    def context(self, context: Context) -> Prepared | None:
        """A context without its pixels; None unless it and its features are there."""
        found = self._find(context)
        return None if found is None else found[0]

    def get(self, context: Context) -> tuple[Prepared, Features] | None:
        """A context without its pixels, and its features; None if they aren't there. Touches no weights and no image.

        Raises UserError for a damaged file.
        """
        found = self._find(context)
        return None if found is None else (found[0], _features(*_read(found[1])))

    def _find(self, context: Context) -> tuple[Prepared, Path] | None:
        """A context, and the file of its features."""
        path = self._context_path(context)
        if path is None or not path.exists():
            return None
        tensors, said = _read(path)
        kept = self._path("features", said["features"])
        if not kept.exists():
            return None
        hidden = tensors.pop("/hidden", None)
        return Prepared(tensors, int(said["placeholders"]), context, hidden), kept

    def put(self, prepared: Prepared, features: Features) -> None:
        """Keep a context and its features, if there is room for both. Its pixels must have been left off."""
        path = self._context_path(prepared.context)
        known = features.kind.__module__.startswith("transformers.")  # so that it is found again by its name
        if path is None or not known or path.exists():
            return
        kept = self._path("features", _tower_digest(prepared))
        hidden = {} if prepared.hidden is None else {"/hidden": prepared.hidden}
        said = {"features": kept.stem, "placeholders": str(prepared.placeholders)}
        files = {} if kept.exists() else {kept: _bytes(*_parts(features))}
        files[path] = _bytes({**prepared.tensors, **hidden}, said)
        needed = sum(map(len, files.values()))
        if needed > self._room:
            return
        self._room -= needed
        for place, content in files.items():
            write_whole(place, content, lasting=False)

    def _context_path(self, context: Context) -> Path | None:
        """Where a context is kept; None for images in memory, which have no name."""
        images = [image.sha256 for image in context.images if isinstance(image, ImageFile)]
        if len(images) < len(context.images):
            return None
        prompt = [(turn.role, turn.text) for turn in context.prompt]
        draw = context.key if is_random(context.view) else ()
        return self._path("contexts", _digest(images, prompt, describe(context.view), draw))

    def _path(self, kind: str, name: str) -> Path:
        return self._folder / kind / name[:2] / f"{name}.safetensors"


def _tower_digest(prepared: Prepared) -> str:
    """`tower_key` as a hash that is the same in every process."""
    images, _, draw, prompt = tower_key(prepared)
    return _digest(images, describe(before_tower(prepared.view)), draw, [(turn.role, turn.text) for turn in prompt])


def _parts(features: Features) -> tuple[dict[str, Tensor], dict[str, str]]:
    inner = {f"inner/{index}": layer for index, layer in enumerate(features.inner_layers)}
    marks = {} if features.marks is None else {"marks": features.marks}
    said = {
        "listed": str(int(features.listed)),
        "inner_listed": str(int(features.inner_listed)),
        "field": features.field,
        "module": features.kind.__module__,
        "kind": features.kind.__qualname__,
    }
    return {"tokens": features.tokens, **inner, **marks}, said


def _features(tensors: Mapping[str, Tensor], said: Mapping[str, str]) -> Features:
    count = sum(name.startswith("inner/") for name in tensors)
    return Features(
        tensors["tokens"],
        tuple(tensors[f"inner/{index}"] for index in range(count)),
        tensors.get("marks"),
        said["listed"] == "1",
        said["inner_listed"] == "1",
        said["field"],
        getattr(importlib.import_module(said["module"]), said["kind"]),
    )


def _bytes(tensors: Mapping[str, Tensor], said: Mapping[str, str]) -> bytes:
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, dict(said))


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    except SafetensorError as error:
        raise UserError(f"{path}: the feature cache is damaged ({error}); delete this.") from error


def without_pixels(prepared: Prepared) -> Prepared:
    """A context as it goes with features that are known."""
    rest = {name: tensor for name, tensor in prepared.tensors.items() if not name.startswith("pixel_values")}
    return replace(prepared, tensors=rest)


def _digest(*content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
