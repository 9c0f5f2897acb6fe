"""Settings of `veridical eval`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from annotated_types import Ge, Gt, Le

from veridical.bounds import NotNegative, Positive, Seed
from veridical.config import chosen, several_of
from veridical.generators.config import ServedSettings
from veridical.judges.interface import SURE
from veridical.protocols.table_formats import TableSettings
from veridical.runs import BY_CONTENT, INCIDENTAL
from veridical.vlm.model.load_options import Attention, Quantise

if TYPE_CHECKING:
    from veridical.decoding.registry import Method


@dataclass(frozen=True)
class NoiseCurve:
    """How much more the base invents the more noise lies over the image."""

    steps: tuple[Annotated[int, Ge(0), Le(999)], ...] = ()
    """Noise steps, 0 to 999, at which the base describes every picture again; none by default."""
    space: Literal["pixels", "normalised"] = "normalised"
    """What the noise is added to."""
    temperature: NotNegative = 0.0
    """0 describes greedily, otherwise captions are drawn at this temperature."""
    limit: Positive = 100
    """Records in each split."""


@dataclass(frozen=True)
class NoJudge:
    """Nobody judges sentences."""

    name: str = "none"
    """Who says what is true: a detector sees objects (chair-detector); a language-model or vision-language-model, a
    verifier that was trained here, or an oracle that goes by annotations judge sentences (judged-sentences). Its
    settings: --judge.name detector --help."""


@dataclass(frozen=True)
class PlainDecoding:
    """The model speaks for itself."""

    name: str = "plain"
    """A method that mitigates hallucination at decoding; each model is measured with it too, beside plain decoding.
    Its settings: --decoding.name vcd --help."""


@dataclass(frozen=True, kw_only=True)
class EvalConfig(TableSettings):
    """Settings of `veridical eval`. Models, protocols and methods may be added to a run folder later."""

    out: Path = field(metadata=INCIDENTAL)
    """The run folder: config.yaml, results.json, items/, answers/."""
    models: tuple[str, ...] = field(default=("bundled",), metadata=INCIDENTAL)
    """The base model first (folder, hub name, "bundled", or URL#MODEL for one that is served), then adapters on it,
    align runs or other models; an adapter on the Hub is hf://OWNER/NAME. Each may be given as NAME=FOLDER, or
    NAME=URL#MODEL."""
    served: ServedSettings = field(default_factory=ServedSettings, metadata=INCIDENTAL)
    """How served models are asked."""
    protocols: tuple[str, ...] = field(default=("auto",), metadata=INCIDENTAL)
    """auto goes by what the records have: objects (world-chair, world-pope; also world-shr, world-mme), else reference
    captions (chair-captions), a judge (chair-detector, judged-sentences), nothing (side-by-side);
    or published benchmarks: those of `veridical score`, with their files and images in settings of their own
    (--protocols pope --help)."""
    records: str | None = None
    """A folder of images or a file of records; or splits of the picture world, such as world:in-theme+anti-bias (each
    is also reported by itself). Left out: what the pairs' build kept back (`build --held-out`), else the world."""
    held_out: Path | None = None
    """A folder or file of images that were kept apart from training by hand; the same as --records."""
    trained: Literal["leave-out", "keep"] = "leave-out"
    """Images that an adapter's pairs show are left out, or kept."""
    prompt: str | None = None
    """What models are asked for a caption; "Describe this image." by default."""
    max_new_tokens: Positive | None = None
    """Longest caption; by default 96 tokens on annotated pictures, 256 on others."""
    lexicon: str = field(default="auto", metadata=BY_CONTENT)
    """The words that name objects in answers: auto, world, coco80 or a JSON file. auto goes by the annotated names, or
    is coco80 where there are none."""
    judge: Any = field(default_factory=NoJudge)
    """Who says which sentences are true. --judge.name picks it."""
    sure: Annotated[float, Gt(0.5), Le(1)] = SURE
    """A judge's probability from which a sentence is true; at 1 less this, and below, it is false."""
    limit: Positive | None = None
    """Images in each split, or questions of a published benchmark's commonest kind, with the other kinds in
    proportion; by default 200 of the picture world, and all of anything else."""
    seed: Seed = 0
    """Picks the scenes, the questions and the resamples."""
    questions: Positive = 3
    """world-pope asks after up to this many present and as many absent objects of a picture, in each setting."""
    answers: Literal["likelihood", "text"] = "likelihood"
    """world-pope's answer: the likelier of "Yes" and "No", or greedy text read by the official rule."""
    batch: Positive = field(default=32, metadata=INCIDENTAL)
    """Images held encoded at a time, and answers worked on together; changes speed and memory, not results."""
    cache: Path | None = field(default=None, metadata=INCIDENTAL)
    """Folder of answers that runs may share; by default the run's own, requests/."""
    harness: Literal["none", "lmms-eval"] = field(default="none", metadata=INCIDENTAL)
    """Also hand each model over to lmms-eval, if it is installed, for its --tasks."""
    tasks: tuple[str, ...] = field(default=(), metadata=INCIDENTAL)
    """lmms-eval's tasks; --limit is then also the number of questions of each."""
    task_folders: tuple[Path, ...] = field(default=(), metadata=INCIDENTAL)
    """Folders of further tasks, in lmms-eval's YAML."""
    merge_adapters: bool = True
    """Add LoRA to the weights before measuring, which is faster; adapters for the answer alone are never merged."""
    decoding: PlainDecoding = field(default_factory=PlainDecoding)
    """How texts are decoded and closed questions answered."""
    methods: tuple[str, ...] = field(default=(), metadata=INCIDENTAL)
    """Further methods of decoding by name, each in its published settings; each model is measured with all of them."""
    noise: NoiseCurve = field(default_factory=NoiseCurve, metadata=INCIDENTAL)
    """Captions of noised pictures, for the report's plot."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Weights are loaded as this; auto is bfloat16 on a GPU, else float32."""
    device: str = field(default="auto", metadata=INCIDENTAL)
    """A torch device, or auto: a GPU if there is one; spread puts a model's layers on all visible GPUs."""
    engine: Literal["here", "ray"] = field(default="here", metadata=INCIDENTAL)
    """here asks local models on this machine; ray has Ray Data ask them, `processes` workers at a time, each with the
    model and some of the images, on one machine or a cluster that sees the images at the same paths."""
    processes: Positive = field(default=1, metadata=INCIDENTAL)
    """Processes that answer side by side, each with the model and some of the images; on several GPUs, each on its
    own. With engine ray, its workers. Changes the speed and nothing else."""
    report_to: tuple[str, ...] = field(default=(), metadata=INCIDENTAL)
    """Experiment trackers that get the numbers at the end: `wandb`, `tensorboard`, `mlflow`, `trackio`…"""
    attention: Attention = field(default="auto", metadata=INCIDENTAL)
    """The attention kernel: auto is transformers' choice, sdpa; flash_attention_2 and flash_attention_3 need their
    packages and a GPU."""
    quantise: Quantise = "none"
    """Round the language model's weights to 4 bits (nf4) or 8 (int8), by bitsandbytes, on a GPU or a CPU."""
    compile: bool = field(default=False, metadata=INCIDENTAL)
    """Compile the language model: a minute or more at first, faster steps afterwards."""
    max_pixels: Positive | None = None
    """Most pixels that a model's processor scales an image to, for families that scale or tile images."""
    max_image_tokens: Positive | None = None
    """Most tokens that an image takes, for the same families."""


def config_type(choices: Mapping[str, str]) -> type[EvalConfig]:
    """EvalConfig with the settings of each published benchmark among the protocols, and of the method of decoding.

    Raises:
        UserError: an unknown protocol or method, or a protocol named twice.
    """
    from veridical.decoding.registry import DECODINGS, decoding_type
    from veridical.judges.registry import JUDGES, settings_type
    from veridical.protocols.benchmark_task import block_type
    from veridical.protocols.registry import AUTO, PICTURES, PROTOCOLS, block_name, check_names

    names = tuple(choices.get("protocols", "").split())
    check_names(names)
    blocks: list[tuple[str, Any, Any]] = [
        (block_name(name), block_type(name), field(kw_only=True, metadata=INCIDENTAL))
        for name in names
        if name not in (AUTO, *PICTURES)
    ]
    decoding, methods = choices.get("decoding.name", "plain"), DECODINGS.names()
    method: Any = PlainDecoding if decoding == "plain" else decoding_type(decoding)
    judge = choices.get("judge.name", "none")
    judging: Any = NoJudge if judge == "none" else settings_type(judge)
    asked = EvalConfig.__dataclass_fields__["protocols"].default
    blocks += [
        ("protocols", several_of((AUTO, *PROTOCOLS.names())), field(default=asked, metadata=INCIDENTAL)),
        ("decoding", method, chosen(method, decoding, ["plain", *methods])),
        ("methods", several_of(methods), field(default=(), metadata=INCIDENTAL)),
        ("judge", judging, chosen(judging, judge, ["none", *JUDGES.names()])),
    ]
    made: type[EvalConfig] = dataclasses.make_dataclass(
        "EvalConfig",
        blocks,
        bases=(EvalConfig,),
        frozen=True,
        kw_only=True,
        namespace={"__doc__": EvalConfig.__doc__},
    )
    return made


def methods_of(config: EvalConfig) -> tuple[Method, ...]:
    """The methods of decoding that a run measures beside plain decoding.

    Raises:
        UserError: an unknown name, or one given twice.
    """
    from veridical.decoding.registry import as_published

    plain = isinstance(config.decoding, PlainDecoding)
    return as_published(config.methods, () if plain else (cast("Method", config.decoding),))
