"""One build by several processes that a launcher started, on one machine or many: torchrun, accelerate, Slurm's srun.

Each makes every so many-th shard, on the GPU that the launcher gave it, to the same pairs as one process alone. The run
folder and the images must be on a disk that all of them see at the same paths, which is tried before any work.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from veridical.errors import UserError
from veridical.pairs import run_folder, shards, stages
from veridical.pairs.config import BuildConfig, identity_of
from veridical.pairs.spool import SpooledItems
from veridical.progress import Line
from veridical.ranks import Company
from veridical.records import Record

if TYPE_CHECKING:
    from veridical.pairs.shards import Source
    from veridical.vlm.model.loading import Vlm


def make(
    config: BuildConfig, company: Company, model: Vlm | None = None, records: Sequence[Record] | None = None
) -> Path:
    """Make this process's part of the pairs, and in the first process the whole; returns the run folder.

    Raises UserError as a build does, and where processes differ, one is gone, or one doesn't see the folder.
    """
    if config.processes > 1 or config.engine != "here":
        raise UserError("processes and engine: a launcher started several processes already; leave these out.")
    if records is not None:
        raise UserError("records in memory are of one process; name a file or folder of them to several.")
    company.require_same("settings", [identity_of(config), str(config.out), config.shard_size])
    if company.place.is_first:
        return _first(config, company, model)
    if told := company.from_first(str):
        _share(config, company, _opened(config, told, model), str)
        company.meet()  # the files about the whole are there
    return config.out


def _first(config: BuildConfig, company: Company, model: Vlm | None) -> Path:
    stages.reopen_damaged(config)
    if run_folder.is_finished(config.out):
        stages.refuse_other_build(config)
        run_folder.clear_work(config.out)
        company.from_first(str)
        return config.out
    with run_folder.opened(config) as folder:
        work = config.out / run_folder.WORK / "records"
        found: list[shards.Records] = []

        def read() -> str:
            found.append(shards.read(config, work))
            items = found[0].items
            assert isinstance(items, SpooledItems)
            return json.dumps([str(items.rows.absolute()), str(items.places.absolute())])

        company.from_first(read)
        source = shards.open_source(config, found[0].items, found[0].held_out, model)
        identity: list[dict[str, Any]] = []

        def begin() -> str:
            identity.append(stages.begin(config, source, folder))
            return ""

        _share(config, company, source, begin)
        stages.end(config, identity[0], source)
        company.meet()
        source.generator().close()
    return config.out


def _opened(config: BuildConfig, told: str, model: Vlm | None) -> Source:
    """The records that the first process read, and this one's judges and generator."""
    rows, places = map(Path, json.loads(told))
    try:
        items = SpooledItems(rows, places)
    except OSError as error:
        raise UserError(
            f"{config.out}: process {os.environ.get('RANK', '?')} doesn't see this folder ({error.strerror}); give "
            "--out a folder on a disk that all machines share."
        ) from error
    return shards.open_source(config, items, (), model)


def _share(config: BuildConfig, company: Company, source: Source, begin: Callable[[], str]) -> None:
    """This process's shards; `begin` is what the first one does once all have the same model."""
    company.require_same("images", _first_image(source))
    company.require_same("weights of the model", source.generator().fingerprint)
    company.from_first(begin)
    place = company.place
    own = shards.lacking(config, source.items)[place.index :: place.count]
    records = sum(len(shards.members(config, source.items, number)) for number in own)
    company.meet()  # nobody finishes a shard before all have seen which are lacking
    with Line(config.construction, records, shown=place.is_first) as line:
        for _ in shards.make(config, source, own, str(place.index)):
            line.advance()
            if company.lost:
                raise UserError(company.lost[0])
    company.meet()


def _first_image(source: Source) -> str:
    """What this process finds where the first image is: its hash, or what is wrong."""
    from veridical.vlm.images.files import ImageError, read_image_file

    for record in shards.records_in(source.items):
        for image in record.images:
            try:
                read_image_file(image)
            except ImageError as error:
                return f"can't be read: {error}"
            return image.sha256
    return "none"
