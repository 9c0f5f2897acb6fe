"""What the first records of a study's sources have, and which protocols that allows."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING

from veridical.errors import UserError
from veridical.formats import first_records
from veridical.formats.sources import is_world

if TYPE_CHECKING:
    from veridical.protocols.config import EvalConfig

seen = functools.cache(first_records.look)
"""What the first records of a source have; each source is read once."""


def with_protocols(config: EvalConfig, records: str, where: str) -> EvalConfig:
    """The settings of an evaluation with the protocols that what is known of the pictures allows.

    Raises UserError where nothing is known of them, since no model can then be called better than another.
    """
    source = str(config.held_out or config.records or records)
    if config.protocols != ("auto",) or is_world(source):
        return config
    known = seen(source)
    if known.annotated:
        return dataclasses.replace(config, protocols=("world-chair", "world-pope"))
    if known.captions:
        return dataclasses.replace(config, protocols=("chair-captions",))
    raise UserError(
        f"{where}: {source} has neither annotated objects nor captions, so nothing says what its pictures hold. Add "
        "captions (`text` in metadata.jsonl), give eval.records that have some, or name eval.protocols."
    )
