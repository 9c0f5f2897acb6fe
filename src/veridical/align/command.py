"""`veridical align`: trains an adapter, or the language model itself, on the pairs of a build."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from veridical import ranks
from veridical.align import run_folder
from veridical.align.config import AlignConfig, config_type
from veridical.align.preparing import (
    EXAMPLES,
    checked_examples,
    load_for_training,
    open_encoder,
    refuse_absent_optimiser,
    refuse_unknown_trackers,
)
from veridical.align.telling import say, say_held_out, say_memory, say_what_runs
from veridical.files import read_state, write_json, write_whole
from veridical.runs import Run, identity_of

if TYPE_CHECKING:
    from transformers import TrainerCallback

    from veridical.align.inputs import BatchEncoder
    from veridical.align.reference import ReferenceCache
    from veridical.align.start_check import StartCheck
    from veridical.align.terms import Terms
    from veridical.align.trainer import PairTrainer
    from veridical.align.types import Example
    from veridical.align.watch import Watch
    from veridical.objectives.base import LogpRequest
    from veridical.vlm.model.loading import Vlm

__all__ = ["AlignConfig", "config_type", "run"]

START = "start_check.json"


def run(config: AlignConfig) -> Path:
    """Train as `config` says and return the run folder; `adapter/` in it, in PEFT's layout, or `model/` is the result.

    Continues a run that was interrupted, to the same weights; returns at once if it is done. Raises
    UserError for what the user can mend, KeyboardInterrupt (with a checkpoint saved) after Ctrl-C.
    """
    ranks.adopt()
    if run_folder.is_finished(config):
        say(f"{config.out} is already complete; its result is {config.result}")
        _publish(config)
        return config.out
    from veridical.align import distributed, sharding
    from veridical.pairs.opening import check_sources

    sharding.check(config)
    with distributed.joined(config.device):
        distributed.require_same("settings", identity_of(config))
        distributed.require_same("pairs", [str(source) for source in config.sources])
        distributed.on_main(lambda: check_sources(config.sources))
        with run_folder.opened(config) as folder, _told_when_memory_runs_out():
            pairs = distributed.on_main(lambda: run_folder.pairs_of(config))
            digest = distributed.on_main(lambda: run_folder.pairs_digest(pairs))
            distributed.require_same("pairs", run_folder.seen_digest(pairs))
            _align(replace(config, pairs=pairs), folder, digest)
        _publish(config)
    return config.out


def _publish(config: AlignConfig) -> None:
    """Merge and push the result of a finished training, where that is asked for."""
    from veridical.align import publishing

    if not ranks.adopt().is_first:
        return
    result = config.result
    if config.merge:
        out = config.out / publishing.MERGED
        result = publishing.merge(
            config.model, result, out, config.merge_dtype, allow_remote_code=config.allow_remote_code
        )
    if config.push:
        publishing.push(result, config.push, private=config.private)


@contextmanager
def _told_when_memory_runs_out() -> Iterator[None]:
    """Turn what allocators raise where no batch can shrink, as for the optimiser's state, into a UserError."""
    from veridical.align.trainer import RELIEF
    from veridical.vlm.shrinking import OutOfMemory, is_out_of_memory

    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(f"memory runs out, and smaller batches don't help ({error}). {RELIEF}") from error


def _align(config: AlignConfig, folder: Run, pairs_digest: str) -> None:
    from veridical.align import defaults, distributed, final_metrics, held_out, outcome, sharding, watch
    from veridical.align.policy import load_base, make_trainable
    from veridical.align.reference import ReferenceCache, model_key
    from veridical.pairs.joined import joined_manifest, lines
    from veridical.vlm.model.adapters import save_trained

    laps = _Laps()
    refuse_unknown_trackers(config)
    refuse_absent_optimiser(config)
    base, vlm, dtype = load_for_training(config, folder, pairs_digest)
    config = _without_image(defaults.resolved(config, vlm.model))
    say_what_runs(config)
    laps.end("load")
    with open_encoder(config, base, vlm, dtype) as encoder:
        mix = distributed.on_main(lambda: joined_manifest(config.sources[0]))
        for line in lines(mix) if mix else ():
            say(line)
        prepared = checked_examples(config, encoder)
        examples, kept_aside = held_out.split(prepared.examples, config.held_out)
        say_held_out(config, len(examples), len(kept_aside))
        say_memory(config, vlm, examples)
        laps.end("check")
        key = model_key(_reference_of(config, base, vlm), encoder.dtype, _trained_weights(config))
        cache = ReferenceCache(config.reference_folder / key)
        computed = _fill_reference(config, encoder, cache, examples, kept_aside)
        laps.end("reference")
        watching = watch.opened(config.watch, config.out, vlm, dtype, config.seed)
        steps, start = _train(config, encoder, cache, examples, watching)
        watched = None if watching is None else watching.restore()
        weights = sharding.gathered(encoder.vlm.model) if config.shard else None
        laps.end("train")
        if not distributed.is_main():
            return
        if weights is not None:
            # The model is measured and written by this process alone, which has but its share of the layers.
            vlm = make_trainable(config, load_base(config))
            sharding.take(vlm.model, weights)
            encoder.vlm = vlm
        result = outcome.examine(config, encoder, cache, examples, kept_aside)
        laps.end("measure")
        save_trained(vlm, config.result)
    summary = {
        "objective": config.objective.name,
        "learning_rate": config.learning_rate,
        "inputs": {"model": base.fingerprint, "pairs": pairs_digest},
        "pairs": {
            "read": prepared.read,
            "used": len(prepared.examples),
            "held_out": len(kept_aside),
            "skipped": prepared.reasons(),
            "answers_shortened": prepared.shortened,
            "constructions": dict(prepared.constructions),
            **({"mix": mix} if mix else {}),
            "warnings": [asdict(warning) for warning in prepared.warnings],
        },
        "reference_computed": computed,
        "start_check": None if start is None else asdict(start),
        "steps": steps,
        "watch": watched,
        "seconds": laps.seconds,
        **result.summary(),
        "peak_memory": final_metrics.peak_memory(),
    }
    _write(config, summary)
    for line in result.lines():
        say(line)
    say(f"{config.result.name}: {config.result}")


def _write(config: AlignConfig, summary: Mapping[str, Any]) -> None:
    """Write the card and then the summary, with which the run is done."""
    from veridical.align import card

    write_whole(config.result / card.NAME, card.card(config, summary).encode())
    (config.out / EXAMPLES).unlink()
    write_json(config.out / "summary.json", summary)


def _fill_reference(
    config: AlignConfig,
    encoder: BatchEncoder,
    cache: ReferenceCache,
    examples: Sequence[Example],
    kept_aside: Sequence[Example],
) -> int:
    """Score what needs a reference in training or in the measurement after it; returns how many."""
    from veridical.align import distributed
    from veridical.align.draws import Drawn, every_draw, random_requests
    from veridical.align.final_metrics import BOTH, measured
    from veridical.align.reference import fill, missing
    from veridical.progress import Line

    requests = tuple(request for request in config.objective.needs() if request.reference)
    both = tuple(dict.fromkeys((*requests, *BOTH)))
    redrawn = random_requests(requests) if config.draws == "anew" else ()
    always = tuple(request for request in requests if request not in redrawn)
    draws = every_draw(config.draws, config.seed, config.epochs) if redrawn else ()
    adapter = config.reference == "start"
    computed = 0
    work: list[tuple[Sequence[Example], tuple[LogpRequest, ...]]] = [(examples, always)]
    work += [(Drawn(examples, draw), redrawn) for draw in draws]
    for part, asked in (*work, (measured(examples), both), (measured(kept_aside), both)):
        if lacking := missing(cache, part, asked):
            distributed.wait_for_all()  # before anyone writes, so that all find the same missing
            share = distributed.share(len(lacking))
            own = lacking[share.start : share.stop]
            with Line("reference", len(own), shown=distributed.is_main()) as line:
                fill(cache, encoder, own, asked, config.micro_batch, config.workers, line.advance, adapter)
            distributed.wait_for_all()
            cache.look()
            computed += len(lacking)
    return computed


def _without_image(config: AlignConfig) -> AlignConfig:
    """The settings with an objective that doesn't see the image, where that is wanted."""
    if config.without_image is None:
        return config
    from veridical.objectives.blinded import blinded
    from veridical.vlm.images.views import parse

    return replace(config, objective=blinded(config.objective, parse(config.without_image)))


def _trained_weights(config: AlignConfig) -> str:
    return "projector" if config.train == "adapter" and config.lora.train_projector else config.train


def _reference_of(config: AlignConfig, base: Vlm, vlm: Vlm) -> str:
    """What the reference's scores are kept under: the fingerprint of the model that gives them."""
    return base.fingerprint if config.reference == "base" else vlm.fingerprint


def _train(
    config: AlignConfig,
    encoder: BatchEncoder,
    cache: ReferenceCache,
    examples: Sequence[Example],
    watching: Watch | None,
) -> tuple[int, StartCheck | None]:
    """Train from the last whole checkpoint on; returns the number of steps of the whole training, and how far policy
    and reference were apart if it began here.
    """
    from veridical.align import distributed, sharding, start_check
    from veridical.align.trainer import PairTrainer

    if config.gradient_checkpointing:
        encoder.vlm.model.gradient_checkpointing_enable({"use_reentrant": False})
    start: StartCheck | None = None

    def make(watchers: Sequence[TrainerCallback], begins: bool) -> PairTrainer:
        nonlocal start
        trainer = PairTrainer(config, encoder, cache, examples, watchers, _terms(config, encoder))
        # An adapter that training continues is not the base that it may be measured against.
        base_only = config.start is not None and config.reference == "base"
        if begins:
            start = start_check.require_same_start(encoder, cache, examples, trainer.limit, base_only)
            found = asdict(start)
            distributed.on_main(lambda: write_json(config.out / START, found))
        elif (config.out / START).exists():
            # Made before this run was interrupted.
            start = start_check.StartCheck(**read_state(config.out / START, {"pairs": int}))
        if config.shard:
            sharding.shard(encoder.vlm)
        return trainer

    return run_steps(config, len(examples), make, [] if watching is None else [watching]), start


def run_steps(
    config: AlignConfig,
    pairs: int,
    make: Callable[[Sequence[TrainerCallback], bool], PairTrainer],
    more: Sequence[TrainerCallback] = (),
) -> int:
    """Train on so many pairs from the last whole checkpoint on; returns the number of steps of the whole training.

    `make` gets what watches the steps, `more` among it, and whether the training begins here, and gives the trainer.
    Raises KeyboardInterrupt, with a checkpoint saved, after Ctrl-C.
    """
    from veridical.align import callbacks, distributed
    from veridical.align.arguments import steps_in_all
    from veridical.progress import Line

    steps = steps_in_all(config, pairs)
    checkpoint = distributed.on_main(lambda: run_folder.last_checkpoint(config.out))
    done = run_folder.step_of(checkpoint)
    distributed.on_main(lambda: run_folder.cut_log(config.out, done))
    if done:
        say(f"continuing after step {done} of {steps}")
    stop = callbacks.StopOnSignal()
    with stop, Line("training", steps, done, shown=distributed.is_main()) as line:
        watchers = (
            callbacks.StepLog(config.out / "log.jsonl"),
            callbacks.StepProgress(line),
            callbacks.WholeCheckpoints(),
            *more,
            stop,
        )
        trainer = make(watchers, not done)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if stop.stopped and trainer.state.global_step < steps:
        step = trainer.state.global_step
        say(f"stopped after step {step} of {steps}; the same command continues from there")
        raise KeyboardInterrupt
    return steps


def _terms(config: AlignConfig, encoder: BatchEncoder) -> Terms:
    """What is added to the objective."""
    from veridical.align.policy import snapshot
    from veridical.align.terms import Terms, auxiliary_examples

    second = auxiliary_examples(config.auxiliary, config.out / "auxiliary", encoder.vlm, config.max_answer_tokens)
    start = snapshot(encoder.vlm.model) if config.kl.weight and config.reference == "start" else None
    return Terms(config.auxiliary, config.kl, second, config.seed, start)


class _Laps:
    """Wall seconds of each stage of this start of the run."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def end(self, stage: str) -> None:
        now = time.monotonic()
        self.seconds[stage] = round(now - self._last, 3)
        self._last = now
