"""The records that a build was made from, read again: with the annotations and references that pairs don't hold."""

from __future__ import annotations

from pathlib import Path

from veridical.files import read_json
from veridical.formats.sources import is_world, read_records
from veridical.records import Record

_STATED = {"records", "limit", "seed", "prompt", "lexicon"}


def build_records(pairs: Path, work: Path) -> tuple[dict[str, Record], bool, str]:
    """The records by id, whether they are the picture world's, and the build's lexicon; none for imported pairs.

    Raises UserError where the build's source is no longer there.
    """
    manifest = pairs / "manifest.json"
    built = read_json(manifest).get("identity", {}) if manifest.is_file() else {}
    if not built.keys() >= _STATED:
        return {}, False, "auto"
    items = read_records(
        built["records"], work / "records", limit=built["limit"], seed=built["seed"], prompt=built["prompt"]
    )
    return {item.id: item for item in items if isinstance(item, Record)}, is_world(built["records"]), built["lexicon"]
