"""`veridical build`: makes preference pairs out of records."""

from __future__ import annotations

import dataclasses
import functools
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from veridical import __version__, files
from veridical.build import run_folder
from veridical.config import save_resolved, to_plain
from veridical.constructions.registry import construction, judge_needs, settings_type, why_adapter
from veridical.errors import UserError
from veridical.formats.sources import DESCRIBE, is_world, read_records
from veridical.judges import registry as judges
from veridical.judges.panel import Panel
from veridical.judges.words import Words, find_words
from veridical.records import Record, Reject

if TYPE_CHECKING:
    from veridical.build.runner import Outcome
    from veridical.constructions.protocol import Steps
    from veridical.vlm.loading import Vlm

DEFAULT_CONSTRUCTION = "bpo-image"
_PACKAGES = ("torch", "transformers", "pillow", "pyarrow", "numpy")


@dataclass(frozen=True)
class BuildConfig:
    """What pairs are made of, by which method, and where they go."""

    out: Path
    """Run folder; the same command continues what is there."""
    construction: str = DEFAULT_CONSTRUCTION
    """How pairs are made, such as bpo-image, ha-dpo, povid or ranked. Each has its own --settings."""
    records: str = "world"
    """world or world:SPLIT (the built-in pictures), a folder of images (with captions in metadata.jsonl, or without),
    or a .jsonl, .csv or .parquet file of records."""
    model: str = "bundled"
    """The model whose hallucinations are exposed: bundled, a folder, or a name on the Hugging Face hub."""
    adapter: Path | None = None
    """A PEFT adapter on the model."""
    limit: int | None = None
    """Use that many records; all of them if left out (the picture world: 1000)."""
    skip: int = 0
    """Leave out that many records first, as an earlier build used them."""
    seed: int = 0
    """Seeds all draws, and picks the scenes of the picture world."""
    prompt: str = DESCRIBE
    """What the model is asked about records that bring no prompt."""
    lexicon: str = "auto"
    """How texts name objects: world, coco80, or a JSON file; auto is the world's for its records, and otherwise the
    names of the annotated objects."""
    batch_size: int = 32
    """Answers sampled at a time; changes the speed and nothing else."""
    shard_size: int = 256
    """Records in a shard of pairs."""
    dtype: str = "auto"
    """Number format of the model: auto, float32, bfloat16 or float16."""
    device: str = "auto"
    """Where the model runs: auto, cpu, cuda, ...."""
    allow_remote_code: bool = False
    """Let the model bring its own Python code."""
    settings: Any = None
    """Settings of the construction."""
    judge: Any = None
    """Who says what is true and what is better. --judge.name picks it."""
    writer: Any = None
    """Who makes texts where the construction wants them made. --writer.name picks it."""


def config_type(choice: Mapping[str, str]) -> type[BuildConfig]:
    """BuildConfig with the settings of the chosen construction and judges. Raises UserError for unknown ones."""
    name = choice.get("construction", DEFAULT_CONSTRUCTION)
    groups: dict[str, type[Any]] = {
        "settings": settings_type(name),
        "judge": judges.settings_type(choice.get("judge.name", "oracle")),
        "writer": judges.writer_type(choice.get("writer.name", "same")),
    }
    fields: list[Any] = [(key, group, field(default_factory=group)) for key, group in groups.items()]
    fields.append(("construction", str, field(default=name)))
    made: type[BuildConfig] = dataclasses.make_dataclass(
        "BuildConfig", fields, bases=(BuildConfig,), frozen=True, namespace={"__doc__": BuildConfig.__doc__}
    )
    return made


def run(config: BuildConfig) -> Path:
    """Make the pairs, print what came out, and return the run folder.

    A finished build with the same settings is only shown again; an unfinished one is continued.
    Raises UserError for settings that can't be, for a folder that holds another build, and where no pair came out.
    """
    config = _checked(config)
    if run_folder.is_finished(config.out):
        _refuse_other_build(config)
        run_folder.clear_work(config.out)
        print(f"{config.out} is finished; nothing was made anew.")
    else:
        _build(config)
    _show(config.out)
    return config.out


def _checked(config: BuildConfig) -> BuildConfig:
    """The settings with those of the construction and the judges filled in."""
    wanted = settings_type(config.construction)
    settings = wanted() if config.settings is None else config.settings
    if not isinstance(settings, wanted):
        raise UserError(f"{config.construction} takes {wanted.__name__}, not {type(settings).__name__}.")
    if (why := why_adapter(config.construction)) and config.adapter is None:
        raise UserError(f"{config.construction} needs --adapter: {why}.")
    if config.batch_size < 1 or config.shard_size < 1:
        raise UserError("batch_size and shard_size must be at least 1.")
    source = Path(config.records)
    if not is_world(config.records) and source.is_dir() and config.out.resolve().is_relative_to(source.resolve()):
        raise UserError(f"{config.out}: lies in the folder of records; its images would be read next time.")
    judge = judges.settings_type("oracle")() if config.judge is None else config.judge
    writer = judges.Same() if config.writer is None else config.writer
    return replace(config, settings=settings, judge=judge, writer=writer)


def _build(config: BuildConfig) -> None:
    work = config.out / run_folder.WORK
    # A folder with something else in it is refused before anything is written to it.
    run_folder.open_folder(config.out, _settings_identity(config))
    save_resolved(config, config.out / "config.yaml")
    items = _read(config, work / "records")
    records = [item for item in items if isinstance(item, Record)]
    words = find_words(config.lexicon, is_world(config.records), records)
    model = functools.cache(lambda: _load(config))
    panel = judges.open_panel(config.judge, config.writer, judges.Setting(words, model))
    panel.require(judge_needs(config.construction, config.settings), config.construction)
    vlm = model()
    inputs = {"records_sha256": run_folder.digest_of(items), "model_fingerprint": vlm.fingerprint}
    identity = _settings_identity(config) | inputs
    run_folder.settle(config.out, identity)
    _make_shards(config, items, vlm, panel)
    _finish(config, identity, records, words)


def _load(config: BuildConfig) -> Vlm:
    from veridical.vlm.loading import load

    return load(
        config.model,
        adapter=config.adapter,
        dtype=config.dtype,
        device=config.device,
        allow_remote_code=config.allow_remote_code,
    )


def _settings_identity(config: BuildConfig) -> dict[str, Any]:
    """The settings that decide what comes out."""
    free = ("out", "batch_size", "device", "allow_remote_code")
    plain: dict[str, Any] = to_plain(config)
    asked = {"judge": judges.identity(config.judge), "writer": judges.identity(config.writer)}
    return {key: value for key, value in plain.items() if key not in free} | asked | {"veridical": __version__}


def _read(config: BuildConfig, work: Path) -> list[Record | Reject]:
    limit = None if config.limit is None else config.skip + config.limit
    items = list(read_records(config.records, work, limit=limit, seed=config.seed, prompt=config.prompt))[config.skip :]
    if not items:
        raise UserError(f"{config.records}: holds no records.")
    return items


def _refuse_other_build(config: BuildConfig) -> None:
    """A finished build is compared by its settings and its records; the model is not loaded for that."""
    import tempfile

    before = run_folder.started_with(config.out) or {}
    identity = _settings_identity(config)
    if not is_world(config.records):
        with tempfile.TemporaryDirectory() as work:
            identity["records_sha256"] = run_folder.digest_of(_read(config, Path(work)))
    run_folder.refuse_changes(config.out, before, identity)


def _make_shards(config: BuildConfig, items: Sequence[Record | Reject], vlm: Vlm, panel: Panel) -> None:
    from veridical.build.engine import Engine
    from veridical.build.progress import progress
    from veridical.build.retrieval import Gallery
    from veridical.build.runner import side_by_side

    done = run_folder.finished_shards(config.out)
    todo = [index for index in range(len(items)) if index // config.shard_size not in done]
    needs = judge_needs(config.construction, config.settings)
    judge = panel.names(needs)
    panel.add_usage(run_folder.judges_usage(config.out))
    gallery = Gallery([item for item in items if isinstance(item, Record)])
    open_shards: dict[int, dict[int, Outcome]] = {}
    starts = _starts(config, items, todo, panel)
    outcomes = side_by_side(starts, Engine(vlm, panel, gallery), config.batch_size)
    with progress(f"{config.construction}", len(items), len(items) - len(todo)) as advance:
        for index, outcome in outcomes:
            number = index // config.shard_size
            shard = open_shards.setdefault(number, {})
            shard[index] = _signed(outcome, vlm.name, judge)
            if len(shard) == min(config.shard_size, len(items) - number * config.shard_size):
                run_folder.keep_judges_usage(config.out, panel.usage())
                run_folder.finish_shard(config.out, number, [shard[i] for i in sorted(open_shards.pop(number))])
            advance()


def _starts(
    config: BuildConfig, items: Sequence[Record | Reject], todo: Sequence[int], panel: Panel
) -> Iterator[tuple[int, str, Steps]]:
    construct = construction(config.construction)
    needs = judge_needs(config.construction, config.settings)
    for index in todo:
        item = items[index]
        if isinstance(item, Reject):
            yield index, item.id, _rejected(item)
        elif (lacking := panel.lacks(needs, item)) is not None:
            # Before any model time is spent on it.
            yield index, item.id, _rejected(Reject(item.id, lacking.reason, lacking.remedy, str(lacking)))
        else:
            yield index, item.id, construct(item, config.settings, config.seed)


def _rejected(reject: Reject) -> Steps:
    """The procedure of something that could not be read: it asks for nothing."""
    yield from ()
    return reject


def _signed(outcome: Outcome, model: str, judge: str) -> Outcome:
    if isinstance(outcome, Reject):
        return outcome
    return [replace(pair, provenance=replace(pair.provenance, model=model, judge=judge)) for pair in outcome]


def _finish(config: BuildConfig, identity: Mapping[str, Any], records: Sequence[Record], words: Words | None) -> None:
    from veridical.build.card import card
    from veridical.build.dataset import read_pairs
    from veridical.build.summary import summarise

    versions = {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}
    manifest = run_folder.manifest_of(config.out, identity, versions)
    if manifest["pairs_out"]:
        summary = summarise(read_pairs(config.out), records, words)
        files.write_json(config.out / "summary.json", _counts(manifest) | summary)
        files.write_whole(config.out / "README.md", card(manifest, summary).encode())
    run_folder.close_folder(config.out, manifest)


def _counts(manifest: Mapping[str, Any]) -> dict[str, Any]:
    return {key: manifest[key] for key in ("records_in", "records_used", "rejected", "pairs_out")}


def _show(out: Path) -> None:
    from rich.console import Console

    from veridical.build.summary import table

    manifest = files.read_json(out / run_folder.MANIFEST)
    console = Console()
    reasons = ", ".join(f"{count} {reason}" for reason, count in manifest["rejected"].items())
    if not manifest["pairs_out"]:
        raise UserError(f"{out}: none of {manifest['records_in']} records gave a pair ({reasons}); see rejects.jsonl.")
    summary = files.read_json(out / "summary.json")
    console.print(table(summary))
    yes, no = summary["questions"]["chosen_yes"], summary["questions"]["chosen_no"]
    if yes or no:
        console.print(f"{yes + no} pairs of yes/no answers: {yes} chosen yes, {no} chosen no")
    console.print(f"chosen side: {', '.join(f'{source} ({n})' for source, n in summary['chosen_from'].items())}")
    console.print(
        f"{manifest['records_in']} records = {manifest['records_used']} used + "
        f"{manifest['records_in'] - manifest['records_used']} rejected{f' ({reasons})' if reasons else ''}"
    )
    console.print(f"{manifest['pairs_out']} pairs in {out}")
