"""What the first records of a source have, looked at before hours of work."""

from __future__ import annotations

import itertools
import tempfile
from dataclasses import dataclass
from pathlib import Path

from veridical.errors import UserError
from veridical.formats.sources import read_records
from veridical.records import Record

LOOKED_AT = 16


@dataclass(frozen=True)
class FirstRecords:
    """How many were looked at, can be used, have a caption, annotated objects, and a counterfactual image."""

    count: int = 0
    usable: int = 0
    captions: int = 0
    annotated: int = 0
    counterfactual: int = 0


def look(records: str, limit: int | None = None, flag: str = "") -> FirstRecords:
    """Read the first records. Raises UserError, naming `flag`, where there are none or none of them can be used."""
    where = f"{flag} {records}".strip()
    with tempfile.TemporaryDirectory() as work:
        read = list(itertools.islice(read_records(records, Path(work), limit=limit or LOOKED_AT), LOOKED_AT))
    usable = [record for record in read if isinstance(record, Record)]
    if not read:
        raise UserError(f"{where}: holds no images; give a folder of images or a file of records.")
    if not usable:
        raise UserError(f"{where}: none of the first {len(read)} records can be used. For one, {read[0]}.")
    return FirstRecords(
        len(read),
        len(usable),
        sum(record.reference is not None for record in usable),
        sum(record.annotations is not None for record in usable),
        sum(record.counterfactual is not None for record in usable),
    )
