"""What is looked at before hours of work: paths, records, the model's files, the judge's endpoint."""

from __future__ import annotations

import itertools
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from veridical.errors import UserError
from veridical.formats.sources import is_world, read_records
from veridical.records import Record
from veridical.run.config import RunConfig

LOOKED_AT = 16
"""Records that are read before the work begins."""
SECONDS = 20.0
"""How long an endpoint may take to answer that it is there."""


@dataclass(frozen=True)
class Looked:
    """What the first records have: how many were looked at, can be used, have a caption, and annotated objects."""

    count: int
    usable: int
    captions: int
    annotated: int


def check(config: RunConfig) -> Looked:
    """Look at everything that would otherwise fail late. Raises UserError for what the user can mend."""
    from veridical.pairs.config import checked
    from veridical.vlm.model.loading import check_files

    checked(config.build)
    _check_out(config)
    looked = look(config.records, config.limit)
    check_files(config.model, config.allow_remote_code)
    for settings in (config.build.judge, config.build.writer, getattr(config.eval, "judge", None)):
        if url := getattr(settings, "url", ""):
            check_endpoint(url, settings)
    return looked


def look(records: str, limit: int | None) -> Looked:
    """Read the first records. Raises UserError where none of them can be used."""
    if is_world(records):
        return Looked(0, 0, 0, 0)
    with tempfile.TemporaryDirectory() as work:
        records_seen = list(itertools.islice(read_records(records, Path(work), limit=limit), LOOKED_AT))
    usable = [record for record in records_seen if isinstance(record, Record)]
    if not records_seen:
        raise UserError(f"--records {records}: holds no images; give a folder of images or a file of records.")
    if not usable:
        first = records_seen[0]
        raise UserError(
            f"--records {records}: none of the first {len(records_seen)} records can be used. For one, {first}."
        )
    return Looked(
        len(records_seen),
        len(usable),
        sum(record.reference is not None for record in usable),
        sum(record.annotations is not None for record in usable),
    )


def check_endpoint(url: str, settings: Any) -> None:
    """Ask an endpoint for its models. Raises UserError where nobody answers, or the key is refused."""
    import httpx

    variable = getattr(settings, "key_variable", "")
    key = os.environ.get(variable, "").strip()
    try:
        reply = httpx.get(
            f"{url.rstrip('/')}/models", headers={"Authorization": f"Bearer {key}"} if key else {}, timeout=SECONDS
        )
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise UserError(
            f"the judge's endpoint {url} can't be reached ({type(error).__name__}). Start it, or correct the url."
        ) from None
    if reply.status_code in (401, 403):
        raise UserError(
            f"the judge's endpoint {url} refuses the key; put a valid one into {variable or 'its variable'}."
        )


def _check_out(config: RunConfig) -> None:
    source = Path(config.records).expanduser()
    if config.out.exists() and not config.out.is_dir():
        raise UserError(f"--out {config.out}: is a file; give a folder.")
    if not is_world(config.records) and source.is_dir() and config.out.resolve().is_relative_to(source.resolve()):
        raise UserError(f"--out {config.out}: lies in the folder of records; its images would be read next time.")
