"""What is looked at before hours of work: paths, records, the model's files, the judge's endpoint."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from veridical.errors import UserError
from veridical.formats.first_records import FirstRecords, look
from veridical.formats.sources import is_world
from veridical.run.config import RunConfig

SECONDS = 20.0
"""How long an endpoint may take to answer that it is there."""


def check(config: RunConfig) -> FirstRecords:
    """Look at everything that would otherwise fail late. Raises UserError for what the user can mend."""
    from veridical.pairs.config import checked
    from veridical.vlm.model.loading import check_files

    checked(config.build)
    _check_out(config)
    looked = FirstRecords() if is_world(config.records) else look(config.records, config.limit, "--records")
    check_files(config.model, config.allow_remote_code)
    for settings in (config.build.judge, config.build.writer, getattr(config.eval, "judge", None)):
        if url := getattr(settings, "url", ""):
            check_endpoint(url, settings)
    return looked


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
