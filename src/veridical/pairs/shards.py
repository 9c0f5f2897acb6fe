"""Makes the shards of a build, in this process or in several."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from veridical.constructions.protocol import Rejected, signed
from veridical.constructions.registry import construction, judge_needs, model_needs, retrieves, without
from veridical.errors import UserError
from veridical.formats.sources import is_world, read_records
from veridical.generators.nobody import NOBODY
from veridical.judges import registry as judges
from veridical.judges.lexicon_sources import Words, find_words
from veridical.judges.panel import Panel
from veridical.pairs import held_out, run_folder
from veridical.pairs.config import BuildConfig
from veridical.pairs.spool import SpooledItems, spooled
from veridical.progress import Line
from veridical.records import Record, Rejection
from veridical.registry import label

if TYPE_CHECKING:
    import numpy

    from veridical.constructions.protocol import Steps
    from veridical.generators.interface import Generator
    from veridical.pairs.runner import Outcome
    from veridical.vlm.model.loading import Vlm


@dataclass(frozen=True)
class Source:
    """What pairs are made of and with: the records and what could not be read, the words, the model, the judges."""

    items: Sequence[Record | Rejection]
    words: Words | None
    generator: Callable[[], Generator]
    """Who generates: loads the model, or asks the server what it is, the first time it is called."""
    panel: Panel
    held_out: Sequence[Record] = ()
    """Records that are kept for evaluation and not among the items."""

    @property
    def records(self) -> list[Record]:
        """The items that can be used, all of them in memory."""
        return list(records_in(self.items))


@dataclass(frozen=True)
class Asked:
    """What services have been asked: those behind the judges, and a served model."""

    panel: Panel
    generator: Generator

    def usage(self) -> dict[str, Any]:
        """The counts so far, by who was asked."""
        return self.panel.usage() | self.generator.usage()

    def add_usage(self, earlier: Mapping[str, Any]) -> None:
        """Count on from an earlier part of the same run."""
        self.panel.add_usage(earlier)
        self.generator.add_usage(earlier)

    def clear_usage(self) -> None:
        """Count from nothing."""
        self.panel.clear_usage()
        self.generator.clear_usage()


@dataclass(frozen=True)
class Records:
    """What a build makes pairs of, what could not be read among it; and the records that are kept for evaluation."""

    items: Sequence[Record | Rejection]
    held_out: Sequence[Record]


def read(config: BuildConfig, work: Path, given: Sequence[Record] | None = None) -> Records:
    """The records of a build, those `given` or those that the settings name; pictures that are drawn or unpacked go to
    `work`. Raises UserError if there are none."""
    limit = None if config.limit is None else config.skip + config.limit
    items: Sequence[Record | Rejection]
    if given is None:
        items = spooled(islice(_read(config, work, limit), config.skip, None), work)
    else:
        items = given[config.skip : limit]
        items = [_without_reference(item) for item in items] if config.ignore_references else items
    if not items:
        raise UserError(f"{config.records}: holds no records{f' beyond the first {config.skip}' * (config.skip > 0)}.")
    share = held_out.share_for(config.records, config.held_out)
    seed = held_out.seed_for(config.seed, config.held_out_seed)
    chosen = held_out.chooser(lambda: records_in(items), share, seed)

    def kept(item: Record | Rejection) -> bool:
        return isinstance(item, Record) and chosen(item)

    if not share:
        return Records(items, ())
    if isinstance(items, SpooledItems):
        return Records(items.part("used", lambda item: not kept(item)), items.part("kept-back", kept))  # type: ignore[arg-type]
    return Records([item for item in items if not kept(item)], [one for one in records_in(items) if kept(one)])


def records_in(items: Iterable[Record | Rejection]) -> Iterator[Record]:
    """Those that can be used, one after another."""
    return (item for item in items if isinstance(item, Record))


def _read(config: BuildConfig, work: Path, limit: int | None) -> Iterator[Record | Rejection]:
    # Every image is opened once: of large photos, that takes a while.
    with Line(f"reading {config.records}", 0 if limit is None else limit) as line:
        for item in read_records(config.records, work, limit=limit, seed=config.seed, prompt=config.prompt):
            yield _without_reference(item) if config.ignore_references else item
            line.advance(isinstance(item, Record))


def _without_reference(item: Record | Rejection) -> Record | Rejection:
    return replace(item, reference=None) if isinstance(item, Record) else item


def open_source(
    config: BuildConfig,
    items: Sequence[Record | Rejection],
    kept_back: Sequence[Record] = (),
    loaded: Vlm | None = None,
    builds: Sequence[BuildConfig] = (),
) -> Source:
    """The words, the judges and the generator; the model is `loaded`, or is loaded when it is asked for. Raises
    UserError for judges that can't be. `builds` are several with the same generator, if there are."""
    words = find_words(config.lexicon, is_world(config.records), records_in(items))
    model = functools.cache(lambda: loaded or load_model(config))
    context = judges.JudgeContext(words, model)
    panel = judges.open_panel(config.judge, config.writer, context, config.similarity)
    return Source(items, words, functools.cache(lambda: open_generator(builds or [config], model)), panel, kept_back)


def open_generator(builds: Sequence[BuildConfig], model: Callable[[], Vlm]) -> Generator:
    """Who generates in builds; `model` loads the one of this process, and isn't called where nobody asks it.

    Raises UserError for a server that can't do what a construction needs.
    """
    needs = {build.construction: model_needs(build.construction, build.settings) for build in builds}
    if all(some == frozenset() for some in needs.values()):
        return NOBODY
    asked = builds[0].generator
    if asked.is_served:
        from veridical.generators import served
        from veridical.generators.remote import RemoteGenerator

        found = RemoteGenerator(served.find_out(asked, asked.url, asked.model, builds[0].adapter))
        for name, some in needs.items():
            if lacking := found.lacking(some or ()):
                raise UserError(served.refusal(name, found.about, lacking))
        return found
    from veridical.generators.local import LocalGenerator

    return LocalGenerator(model())


def require_judges(panel: Panel, config: BuildConfig) -> None:
    """Raise UserError where no judge answers what the construction asks."""
    name, settings = config.construction, config.settings
    panel.require(judge_needs(name, settings), name, functools.partial(without, name, settings))


def load_model(config: BuildConfig) -> Vlm:
    """The model whose hallucinations are exposed."""
    from veridical.vlm.load import load
    from veridical.vlm.model.image_limits import ImageLimits
    from veridical.vlm.model.load_options import LoadOptions

    return load(
        config.model,
        adapter=config.adapter,
        dtype=config.dtype,
        device=config.device,
        allow_remote_code=config.allow_remote_code,
        limits=ImageLimits(config.max_pixels, config.max_image_tokens),
        options=LoadOptions(config.attention, config.quantise, config.compile),
    )


def make(config: BuildConfig, source: Source, numbers: Sequence[int], part: str = "0") -> Iterator[None]:
    """Make the shards with these numbers; yields after each record. `part` names whoever else makes other shards.

    Records that are in a journal are not made again, and nothing is yielded for them.
    """
    from veridical.pairs.unfinished import Unfinished

    wanted = {number: members(config, source.items, number) for number in numbers}
    usage = Asked(source.panel, source.generator())
    kept = Unfinished(config.out, wanted, part, usage, config.accept_failures)

    def left() -> Iterator[int]:
        return (index for places in wanted.values() for index in places if index not in kept)

    for index, outcome in _outcomes(config, source, left):
        kept.add(index, source.items[index].id, outcome)
        yield
    kept.close()


def _outcomes(config: BuildConfig, source: Source, left: Callable[[], Iterator[int]]) -> Iterator[tuple[int, Outcome]]:
    from veridical.pairs.engine import Engine
    from veridical.pairs.retrieval import Gallery
    from veridical.pairs.runner import run_concurrently

    panel = source.panel
    judge = panel.names(judge_needs(config.construction, config.settings))
    first = next((item for index in left() if isinstance(item := source.items[index], Record)), None)
    with _at_work(source.generator(), config.batch_size, first) as generator:
        # Only a construction that looks at all records holds them.
        among = source.records if retrieves(config.construction) else []
        gallery = Gallery(among, functools.partial(_embedded, generator))
        engine = Engine(generator, panel, gallery)
        starts = _starts(config, source.items, left(), panel)
        for index, outcome in run_concurrently(starts, engine, config.batch_size, engine.expect, engine.lane):
            yield index, _signed(outcome, config, generator.name, judge)


@contextmanager
def _at_work(generator: Generator, batch_size: int, first: Record | None) -> Iterator[Generator]:
    """The generator while it works: for a local model images are decoded ahead, and batches are what memory holds."""
    from veridical.generators.local import LocalGenerator

    if not isinstance(generator, LocalGenerator):
        yield generator
        return
    from veridical.vlm.inputs.context import Context
    from veridical.vlm.inputs.decode_ahead import DecodeAhead
    from veridical.vlm.memory import announce

    with DecodeAhead() as ahead:
        working = LocalGenerator(generator.vlm, ahead=ahead)
        if first is not None:
            fitting = announce(generator.vlm, "build", batch_size, Context(first.images, first.prompt))
            if fitting < batch_size:
                working.limit.size = fitting
        yield working


def _embedded(generator: Generator, records: Sequence[Record]) -> numpy.ndarray:
    """Unit vectors [records, width] of the records' images, as the model sees them."""
    from veridical.generators.local import LocalGenerator
    from veridical.vlm.scores.image_embeddings import image_embeddings

    if not isinstance(generator, LocalGenerator):
        raise UserError(f"{generator.about} shows no embeddings of images; retrieve by thumbnails.")
    return image_embeddings(generator.vlm, [record.images for record in records]).numpy()


def lacking(config: BuildConfig, items: Sequence[Record | Rejection]) -> list[int]:
    """The numbers of the shards that are still to be made."""
    done = run_folder.finished_shards(config.out)
    count = -(-len(items) // config.shard_size)
    return [number for number in range(count) if number not in done]


def members(config: BuildConfig, items: Sequence[Record | Rejection], number: int) -> range:
    """The places of a shard's items."""
    return range(number * config.shard_size, min((number + 1) * config.shard_size, len(items)))


def _starts(
    config: BuildConfig, items: Sequence[Record | Rejection], todo: Iterable[int], panel: Panel
) -> Iterator[tuple[int, str, Steps]]:
    construct = construction(config.construction)
    needs = judge_needs(config.construction, config.settings)
    for index in todo:
        item = items[index]
        if isinstance(item, Rejection):
            yield index, item.id, _rejected(item)
        elif (lacks := panel.lacks(needs, item)) is not None:
            # Before any model time is spent on it.
            yield index, item.id, _rejected(Rejection(item.id, lacks.reason, lacks.remedy, str(lacks)))
        else:
            yield index, item.id, _constructed(construct, item, config)


def _constructed(construct: Callable[..., Steps], record: Record, config: BuildConfig) -> Steps:
    """The procedure, started when it is first asked, so that its errors are the record's."""
    return (yield from construct(record, config.settings, config.seed))


def _rejected(reject: Rejection) -> Steps:
    """The procedure of something that could not be read: it asks for nothing."""
    yield from ()
    raise Rejected(reject.reason, reject.remedy, reject.detail)


def _signed(outcome: Outcome, config: BuildConfig, model: str, judge: str) -> Outcome:
    if isinstance(outcome, Rejection):
        return outcome
    pairs = [signed(pair, label(config.construction), config.settings, config.seed) for pair in outcome]
    return [replace(pair, provenance=replace(pair.provenance, model=model, judge=judge)) for pair in pairs]
