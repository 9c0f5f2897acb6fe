"""From arguments in Python to the settings of a command, and temporary run folders."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from veridical.errors import UserError
from veridical.object_storage import is_url, local

if TYPE_CHECKING:
    from veridical.vlm.model.loading import Vlm


WRAPPED = "in-memory"
"""The name of a model that was never in a file begins so."""


@contextmanager
def run_folder(out: str | Path | None, name: str) -> Iterator[tuple[Path, Any]]:
    """The run folder, and what keeps a temporary one alive."""
    if out is not None and is_url(out):
        with local(out) as folder:
            yield folder, None
        return
    if out is not None:
        yield Path(out).expanduser(), None
        return
    kept = tempfile.TemporaryDirectory(prefix="veridical-")
    yield Path(kept.name) / name, kept


@contextmanager
def named_model(model: str | Path | Vlm) -> Iterator[tuple[str, Any]]:
    """A model as commands name it; one that is in memory only is written to a folder, which is kept."""
    if isinstance(model, str | Path):
        yield str(model), None
        return
    if hasattr(model.model, "peft_config"):
        raise UserError(f"{model.name} has an adapter on it; give its base and, to `evaluate`, the adapter's folder.")
    if not model.name.startswith(WRAPPED):
        yield model.name, None
        return
    kept = tempfile.TemporaryDirectory(prefix="veridical-model-")
    folder = Path(kept.name) / model.name
    model.model.save_pretrained(folder)
    model.processor.save_pretrained(folder)
    yield str(folder), kept


def judge_settings(given: Any) -> Any:
    """The settings of a judge that is given by its name, or as settings already."""
    from veridical.judges.registry import settings_type

    return settings_type(given, "judge")() if isinstance(given, str) else given


def as_loaded(config: Any, model: Any) -> Any:
    """Settings with number format, device and image limits of a model in memory, unless they say otherwise."""
    from dataclasses import replace

    found = {}
    if config.dtype == "auto":
        found["dtype"] = str(model.model.dtype).removeprefix("torch.")
    if config.device == "auto":
        found["device"] = str(model.model.device)
    if model.limits and config.max_pixels is None and config.max_image_tokens is None:
        found |= {"max_pixels": model.limits.max_pixels, "max_image_tokens": model.limits.max_image_tokens}
    return replace(config, **found)


def checked_settings(kind: type[Any], given: Mapping[str, Any], /, **own: Any) -> Any:
    """Settings of a command, with bounds checked. Raises UserError for one that there is not."""
    import difflib

    from veridical.bounds import check
    from veridical.config import home_expanded

    known = {one.name for one in fields_of(kind)}
    for name in given:
        if name not in known or name in own:
            near = difflib.get_close_matches(name, known - own.keys(), n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(known - own.keys()))}."
            raise UserError(f"no setting {name!r}; {hint}")
    try:
        made = home_expanded(kind(**given, **own))
    except TypeError as error:
        raise UserError(f"{str(error).partition(') ')[2] or error}.") from None
    check(made)
    return made


def fields_of(kind: type[Any]) -> tuple[Any, ...]:
    """The fields of a settings class."""
    import dataclasses

    return dataclasses.fields(kind)
