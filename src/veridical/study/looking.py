"""What the first records of a study's sources have, and which protocols that allows."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from veridical.errors import UserError
from veridical.formats.sources import is_world, read_records
from veridical.records import Record

if TYPE_CHECKING:
    from veridical.protocols.config import EvalConfig

LOOKED_AT = 16


@dataclass(frozen=True)
class Looked:
    """What the first records have: how many have a caption, annotations, a counterfactual image."""

    count: int
    captions: int
    annotated: int
    counterfactual: int


@functools.cache
def look(records: str) -> Looked:
    """Read the first records of a source. Raises UserError where none can be used."""
    with tempfile.TemporaryDirectory() as work:
        read = list(itertools.islice(read_records(records, Path(work), limit=LOOKED_AT), LOOKED_AT))
    usable = [record for record in read if isinstance(record, Record)]
    if not usable:
        first = f" For one, {read[0]}." if read else ""
        raise UserError(f"{records}: none of the first {len(read)} records can be used.{first}")
    return Looked(
        len(usable),
        sum(record.reference is not None for record in usable),
        sum(record.annotations is not None for record in usable),
        sum(record.counterfactual is not None for record in usable),
    )


def with_protocols(config: EvalConfig, records: str, where: str) -> EvalConfig:
    """The settings of an evaluation with the protocols that what is known of the pictures allows.

    Raises UserError where nothing is known of them, since no model can then be called better than another.
    """
    source = str(config.held_out or config.records or records)
    if config.protocols != ("auto",) or is_world(source):
        return config
    known = look(source)
    if known.annotated:
        return dataclasses.replace(config, protocols=("world-chair", "world-pope"))
    if known.captions:
        return dataclasses.replace(config, protocols=("chair-captions",))
    raise UserError(
        f"{where}: {source} has neither annotated objects nor captions, so nothing says what its pictures hold. Add "
        "captions (`text` in metadata.jsonl), give eval.records that have some, or name eval.protocols."
    )
