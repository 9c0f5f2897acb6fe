"""Trains the bundled model from nothing: `python -m veridical.world.base.train --out FOLDER`.

The tower learns what patches show while, in a second process, the language model learns to speak and to read
pictures told in words. Then the two are joined and grounded on real pictures; and last the prior comes back: biased
text, and biased pictures whose captions tell of things that a random crop has cut away, as web captions do.
A stage that has finished is kept in FOLDER/stages and not run again.

With `--start FOLDER`, a finished base, it teaches that one more skills instead: the tower learns where things are and
how many of a kind, then the language model to count, and to tell sides, colours and places.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from veridical.files import whole
from veridical.world.base import stages
from veridical.world.base.architecture import build_model, build_processor
from veridical.world.base.batches import patch_labels, patch_numbers
from veridical.world.base.corpus import draw_scenes
from veridical.world.base.skills import practice_scenes
from veridical.world.scenes import Mode, Scene


@dataclass(frozen=True)
class BaseConfig:
    """Sizes of the stages. The defaults are those of the model in the package."""

    out: Path
    """Folder for the finished model; stages are kept in its subfolder `stages`."""
    seed: int = 0
    tower_pictures: int = 12000
    tower_steps: int = 1400
    words_steps: int = 1100
    ground_pictures: int = 6000
    projector_steps: int = 300
    ground_steps: int = 400
    bias_pictures: int = 1500
    bias_steps: int = 90
    start: Path | None = None
    """A finished base to teach more skills, instead of training one from nothing."""
    places_pictures: int = 6000
    places_steps: int = 500
    skills_pictures: int = 6000
    skills_steps: int = 900
    settle_steps: int = 120


@dataclass(frozen=True)
class Workshop:
    """What every stage needs."""

    config: BaseConfig
    processor: LlavaProcessor
    model: LlavaForConditionalGeneration

    @classmethod
    def open(cls, config: BaseConfig) -> Workshop:
        """The untrained model, the same for the same seed."""
        # One thread a process: sums are then added in the same order everywhere, and the two first stages share two
        # cores without fighting for them.
        torch.set_num_threads(1)
        torch.manual_seed(config.seed)
        processor = build_processor()
        return cls(config, processor, build_model(processor))


def stage_file(config: BaseConfig, name: str) -> Path:
    """Where a finished stage's weights are kept."""
    return config.out / "stages" / f"{name}.safetensors"


def run_stage(config: BaseConfig, name: str) -> None:
    """Run one stage on the weights of the ones before it, unless it has finished already."""
    target = stage_file(config, name)
    if target.is_file():
        return
    work = Workshop.open(config)
    _load(work.model, config, name)
    started = time.monotonic()
    STAGES[name](work, lambda line: print(f"{name}: {line}", flush=True))
    print(f"{name}: done in {time.monotonic() - started:.0f} s", flush=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    with whole(target) as partial:
        save_file({key: value.clone() for key, value in work.model.state_dict().items()}, partial)


def _load(model: LlavaForConditionalGeneration, config: BaseConfig, name: str) -> None:
    if name in ("tower", "words"):
        return
    if name == "places":
        start = LlavaForConditionalGeneration.from_pretrained(config.start, dtype=torch.float32)
        model.load_state_dict(start.state_dict())
        return
    if name == "projector":
        tower, words = (load_file(stage_file(config, earlier)) for earlier in ("tower", "words"))
        model.load_state_dict({key: (tower if "vision_tower" in key else words)[key] for key in words})
        return
    model.load_state_dict(load_file(stage_file(config, BEFORE[name])))


def _tower(work: Workshop, report: stages.Report) -> None:
    config = work.config
    shown = draw_scenes({"balanced": 0.5, "pictures": 0.3, "simple": 0.2}, config.tower_pictures, "tower")
    labels = torch.from_numpy(np.stack([patch_labels(scene) for scene in shown])).long()
    pixels = stages.pixels_of(shown, work.processor)
    stages.train_tower(work.model, pixels, labels, config.tower_steps, 1e-3, config.seed, report)


def _places(work: Workshop, report: stages.Report) -> None:
    config = work.config
    shown = practice_scenes(config.places_pictures, config.seed)
    labels = torch.from_numpy(np.stack([patch_labels(scene) for scene in shown])).long()
    numbers = torch.from_numpy(np.stack([patch_numbers(scene) for scene in shown]))
    pixels = stages.pixels_of(shown, work.processor)
    stages.train_tower(work.model, pixels, labels, config.places_steps, 5e-4, config.seed, report, numbers)


def _words(work: Workshop, report: stages.Report) -> None:
    stages.read_words(work.model, work.processor, work.config.words_steps, 2e-3, work.config.seed, report)


def _projector(work: Workshop, report: stages.Report) -> None:
    states, shown = _grounding_pictures(work)
    stages.map_patches_to_words(
        work.model, work.processor, states, shown, work.config.projector_steps, work.config.seed, report
    )


def _ground(work: Workshop, report: stages.Report) -> None:
    states, shown = _grounding_pictures(work)
    config = work.config
    stages.look_at_pictures(work.model, work.processor, states, shown, config.ground_steps, 1e-3, config.seed, report)


def _grounding_pictures(work: Workshop) -> tuple[Tensor, list[Scene]]:
    shares: dict[Mode, float] = {"balanced": 0.55, "pictures": 0.25, "simple": 0.2}
    shown = draw_scenes(shares, work.config.ground_pictures, "ground")
    return stages.all_tower_states(work.model, stages.pixels_of(shown, work.processor)), shown


def _prior(work: Workshop, report: stages.Report) -> None:
    config = work.config
    stages.bring_the_prior_back(
        work.model, work.processor, config.bias_pictures, config.bias_steps, config.seed, report
    )


def _skills(work: Workshop, report: stages.Report) -> None:
    config, model, processor = work.config, work.model, work.processor
    states, shown = _practice_pictures(work)
    stages.map_patches_to_words(
        model, processor, states, shown, config.projector_steps, config.seed, report, places=True
    )
    stages.practise_skills(
        model, processor, states, shown, config.bias_pictures, config.skills_steps, config.seed, report
    )


def _settle(work: Workshop, report: stages.Report) -> None:
    config = work.config
    states, shown = _practice_pictures(work)
    stages.practise_skills(
        work.model, work.processor, states, shown, config.bias_pictures, config.settle_steps, config.seed, report,
        rate=3e-4, describing=True,
    )  # fmt: skip


def _practice_pictures(work: Workshop) -> tuple[Tensor, list[Scene]]:
    shown = practice_scenes(work.config.skills_pictures, work.config.seed)
    return stages.all_tower_states(work.model, stages.pixels_of(shown, work.processor)), shown


BEFORE = {"ground": "projector", "prior": "ground", "skills": "places", "settle": "skills"}
STAGES: dict[str, Callable[[Workshop, stages.Report], None]] = {
    "tower": _tower,
    "words": _words,
    "projector": _projector,
    "ground": _ground,
    "prior": _prior,
    "places": _places,
    "skills": _skills,
    "settle": _settle,
}


def main(config: BaseConfig) -> None:
    """Run all stages and save the model in half precision."""
    config.out.mkdir(parents=True, exist_ok=True)
    if config.start is None:
        _run_side_by_side(config, ("tower", "words"))
    last = ("projector", "ground", "prior") if config.start is None else ("places", "skills", "settle")
    for name in last:
        run_stage(config, name)
    work = Workshop.open(config)
    work.model.load_state_dict(load_file(stage_file(config, last[-1])))
    work.model.half().save_pretrained(config.out)
    work.processor.save_pretrained(config.out)


def _run_side_by_side(config: BaseConfig, names: Sequence[str]) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=run_stage, args=(config, name)) for name in names]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        if process.exitcode:
            sys.exit(f"a first stage ended with exit code {process.exitcode}; its message is above")


if __name__ == "__main__":
    main(tyro.cli(BaseConfig, description=__doc__))
