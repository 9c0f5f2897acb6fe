"""`veridical eval`: measure what models make up, and what they leave out."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class NoiseCurve:
    """How much more the base invents the more noise lies over the image."""

    steps: tuple[int, ...] = ()
    """Noise steps, 0 to 999, at which the base describes every picture again; none by default."""
    space: Literal["pixels", "normalised"] = "normalised"
    """What the noise is added to."""
    temperature: float = 0.0
    """0 describes greedily, otherwise captions are drawn at this temperature."""
    limit: int = 100
    """Records in each split."""


@dataclass(frozen=True)
class EvalConfig:
    """Settings of `veridical eval`."""

    out: Path
    """The run folder: config.yaml, results.json, items/."""
    models: tuple[str, ...] = ("bundled",)
    """The base model first (folder, hub name, "bundled"), then adapters on it, align runs or other models;
    each may be given as NAME=FOLDER."""
    records: str = "world:in-theme+anti-bias"
    """Splits of the picture world, joined by "+"; each is also reported by itself."""
    limit: int = 200
    """Records in each split."""
    seed: int = 0
    """Picks the scenes, the questions and the resamples."""
    questions: int = 3
    """POPE asks after up to this many present and as many absent objects of a picture, in each setting."""
    answers: Literal["likelihood", "text"] = "likelihood"
    """POPE's answer: the likelier of "Yes" and "No", or greedy text read by the official rule."""
    batch: int = 32
    """Pictures that are worked on together; changes speed and memory, not results."""
    noise: NoiseCurve = field(default_factory=NoiseCurve)
    """Captions of noised pictures, for the report's plot."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Weights are loaded as this; auto is bfloat16 on a GPU, else float32."""
    device: str = "auto"
    """A torch device, or auto: a GPU if there is one."""


def run(config: EvalConfig) -> Path:
    """Measure, print the table, and return the run folder.

    What is already there is used again; a run that was stopped continues where it was.

    Raises:
        UserError: a model, adapter, split or setting that is not there, or an `out` of other settings.
    """
    from veridical.protocols.evaluation import evaluate
    from veridical.protocols.table import show

    show(evaluate(config))
    print(f"results: {config.out / 'results.json'}")
    return config.out
