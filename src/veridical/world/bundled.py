"""Where the bundled model lies inside the package."""

from __future__ import annotations

from pathlib import Path

from veridical.errors import UserError


def bundled_model_path() -> Path:
    """The folder of the bundled model, which loads like any other."""
    folder = Path(__file__).parent / "model"
    if not (folder / "model.safetensors").is_file():
        raise UserError(
            f"The bundled model is missing from {folder}. Reinstall veridical, "
            f"or train the model again with: python -m veridical.world.base.train --out {folder}"
        )
    return folder
