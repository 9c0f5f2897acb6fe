"""`veridical data export`: writes a build's pairs as one file that holds everything."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Annotated

import tyro

from veridical.errors import UserError


@dataclass(frozen=True)
class ExportConfig:
    """Which build, and where to."""

    run: Annotated[Path, tyro.conf.Positional]
    """Run folder of a build."""
    to: Path
    """The .parquet file to write, in TRL's vision-preference shape, with the images in it."""


def run(config: ExportConfig) -> Path:
    """Write the file and return its path. Raises UserError for a folder without pairs or another kind of file."""
    from veridical.files import write_whole
    from veridical.pairs.dataset import to_trl

    if config.to.suffix != ".parquet":
        raise UserError(f"{config.to}: pairs are exported to a .parquet file; give --to NAME.parquet.")
    dataset = to_trl(config.run, embed=True)
    buffer = BytesIO()
    dataset.to_parquet(buffer)
    write_whole(config.to, buffer.getvalue())
    print(f"{len(dataset)} pairs in {config.to}")
    return config.to
