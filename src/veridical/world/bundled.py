"""The bundled models: what they are called, and where they lie inside the package."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from veridical.errors import UserError

FOLDERS: Mapping[str, str] = MappingProxyType({"bundled": "model", "bundled-skills": "model_skills"})
"""The folder of each: the base of all examples, and the same taught to count and to tell sides and colours."""


def is_bundled(model: object) -> bool:
    """Whether that is what a bundled model is called."""
    return str(model) in FOLDERS


def bundled_model_path(name: str = "bundled") -> Path:
    """The folder of a bundled model, which loads like any other."""
    folder = Path(__file__).parent / FOLDERS[name]
    if not (folder / "model.safetensors").is_file():
        start = "" if name == "bundled" else f" --start {bundled_model_path()}"
        raise UserError(
            f"The model {name} is missing from {folder}. Reinstall veridical, "
            f"or train the model again with: python -m veridical.world.base.train{start} --out {folder}"
        )
    return folder
