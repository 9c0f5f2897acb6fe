"""What a frozen vision tower made of images, kept on disk: later epochs and runs open none of them again.

    FOLDER/<hash of model>/features/<hash>.safetensors   by image, view before the tower, and prompt where it is read
    FOLDER/<hash of model>/contexts/<hash>.safetensors   by images, prompt and view: what the processor made, no pixels

Files appear whole or not at all, so processes and runs may use a folder at the same time. A file's time of change is
when it was last used. Where space is short, what has not been used since a run began makes room for what it needs, the
longest unused first. What a run itself has used stays: its epochs come back to every image in another order, which
serves a cache that always throws out the oldest badly.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from veridical.errors import UserError
from veridical.files import write_whole
from veridical.records import ImageFile
from veridical.vlm.images.views import before_tower, describe, is_random
from veridical.vlm.inputs.context import Context, Prepared, tower_key
from veridical.vlm.model.loading import Vlm
from veridical.vlm.prefix.features import Features

_FILL = 0.9
_STEP = 0.05
"""Shares of the limit: how full the folder is made, and how much all processes of a run write between two looks at it.
So two runs that start together stay within the limit."""


class TowerCache:
    """Features by context, in one folder up to a limit."""

    def __init__(self, folder: Path, limit: int, vlm: Vlm, fingerprint: str, writers: int = 1) -> None:
        """`limit` in bytes, for all models in `folder` together; `writers` processes of this run use it.

        `fingerprint` is that of the base model, whose tower an adapter leaves as it is.
        """
        self._opened = time.time()
        self._limit, self._step = int(limit * _FILL), int(limit * _STEP) // writers
        self._room, self._full = 0, False
        self._whole_folder = folder
        self._folder = folder / _digest(fingerprint, str(vlm.model.dtype), vlm.invocation_tokens)[:32]

    def context(self, context: Context) -> Prepared | None:
        """A context without its pixels; None unless it and its features are cached."""
        path = self._find(context)
        return None if path is None else path[0]

    def get(self, context: Context) -> tuple[Prepared, Features] | None:
        """A context without its pixels, and its features; None if they aren't there. Touches no weights and no image.

        Raises UserError for a damaged file.
        """
        path = self._find(context)
        seen = None if path is None else _read(path[1])
        return None if path is None or seen is None else (path[0], _features(*seen))

    def _find(self, context: Context) -> tuple[Prepared, Path] | None:
        """A context, and the file of its features."""
        path = self._context_path(context)
        content = None if path is None else _read(path)
        if content is None:
            return None
        tensors, said = content
        kept = self._path("features", said["features"])
        if not kept.exists():
            return None
        hidden = tensors.pop("/hidden", None)
        return Prepared(tensors, int(said["placeholders"]), context, hidden), kept

    def put(self, prepared: Prepared, features: Features) -> None:
        """Keep a context and its features, if there is room for both. Its pixels must have been left off."""
        path = self._context_path(prepared.context)
        known = _is_of_transformers(features.kind.__module__)  # so that it is found again by its name
        if self._full or path is None or not known:
            return
        kept = self._path("features", _tower_digest(prepared))
        hidden = {} if prepared.hidden is None else {"/hidden": prepared.hidden}
        said = {"features": kept.stem, "placeholders": str(prepared.placeholders)}
        files = {}
        if not kept.exists():
            files[kept] = _bytes(*_parts(features))
        if not path.exists():
            files[path] = _bytes({**prepared.tensors, **hidden}, said)
        needed = sum(map(len, files.values()))
        if needed > self._room:
            self._make_room(needed)
        if not self._full:
            self._room -= needed
            for place, content in files.items():
                write_whole(place, content, lasting=False)

    def _make_room(self, needed: int) -> None:
        """Throw out what has not been used since this run began until the next files fit; if that is not enough, the
        cache is full from now on."""
        files = sorted(_used(self._whole_folder))
        total = sum(size for _, size, _ in files)
        for last_used, size, path in files:
            if total + needed <= self._limit or last_used >= self._opened:
                break
            path.unlink(missing_ok=True)
            total -= size
        self._full = total + needed > self._limit
        self._room = max(needed, self._step)

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
        _kind(said["module"], said["kind"]),
    )


def _is_of_transformers(module: str) -> bool:
    return module.startswith("transformers.models.") or module == "transformers.modeling_outputs"


def _kind(module: str, name: str) -> type:
    """The class of features that a file names: one of transformers' model outputs, and nothing else that a file from
    somebody else might have imported."""
    from transformers.utils import ModelOutput

    if not _is_of_transformers(module):
        raise UserError(f"the feature cache names the module {module!r}, which isn't one of transformers'; delete it.")
    kind = getattr(importlib.import_module(module), name, None)
    if not isinstance(kind, type) or not issubclass(kind, ModelOutput):
        raise UserError(f"the feature cache names {name!r}, which isn't a model's output; delete the cache.")
    return kind


def _bytes(tensors: Mapping[str, Tensor], said: Mapping[str, str]) -> bytes:
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, dict(said))


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]] | None:
    """What a file holds, and a note that it was used; None if it isn't there, as when another run threw it out."""
    try:
        with safe_open(path, "pt") as file:
            content = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
        os.utime(path)
    except SafetensorError as error:
        raise UserError(f"{path}: the feature cache is damaged ({error}); delete this.") from error
    except (FileNotFoundError, RuntimeError) as error:
        # The file is opened twice; the second time, torch has an error of its own for one that has just gone.
        if "No such file" not in str(error):
            raise
        return None
    return content


def _used(folder: Path) -> Iterator[tuple[float, int, Path]]:
    """When each file was last used, its size, and where it is; those that are being written left out."""
    for path in folder.rglob("[!.]*.safetensors"):
        try:
            stat = path.stat()
        except FileNotFoundError:  # another process was quicker
            continue
        yield stat.st_mtime, stat.st_size, path


def without_pixels(prepared: Prepared) -> Prepared:
    """A context as it goes with features that are known."""
    rest = {name: tensor for name, tensor in prepared.tensors.items() if not name.startswith("pixel_values")}
    return replace(prepared, tensors=rest)


def _digest(*content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
