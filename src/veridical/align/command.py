"""`veridical align`: trains an adapter, or the language model itself, on the pairs of a build."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from veridical import ranks
from veridical.align import run_folder
from veridical.align.config import AlignConfig, config_type
from veridical.errors import UserError
from veridical.files import read_state, write_json, write_json_lines, write_whole
from veridical.runs import Run, identity_of

if TYPE_CHECKING:
    import torch
    from transformers import TrainerCallback

    from veridical.align.checks import Prepared
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
EXAMPLES = "examples.arrow"
"""The checked pairs, in the run folder while it lasts."""


def run(config: AlignConfig) -> Path:
    """Train as `config` says and return the run folder; `adapter/` in it, in PEFT's layout, or `model/` is the result.

    Continues a run that was interrupted, to the same weights; returns at once if it is done. Raises
    UserError for what the user can mend, KeyboardInterrupt (with a checkpoint saved) after Ctrl-C.
    """
    ranks.adopt()
    if run_folder.is_finished(config):
        _say(f"{config.out} is already complete; its result is {config.result}")
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
    _refuse_unknown_trackers(config)
    _refuse_absent_optimiser(config)
    base, vlm, dtype = load_for_training(config, folder, pairs_digest)
    config = _without_image(defaults.resolved(config, vlm.model))
    _say_what_runs(config)
    laps.end("load")
    with open_encoder(config, base, vlm, dtype) as encoder:
        mix = distributed.on_main(lambda: joined_manifest(config.sources[0]))
        for line in lines(mix) if mix else ():
            _say(line)
        prepared = checked_examples(config, encoder)
        examples, kept_aside = held_out.split(prepared.examples, config.held_out)
        _say_held_out(config, len(examples), len(kept_aside))
        _tell_memory(config, vlm, examples)
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
        _say(line)
    _say(f"{config.result.name}: {config.result}")


def _write(config: AlignConfig, summary: Mapping[str, Any]) -> None:
    """Write the card and then the summary, with which the run is done."""
    from veridical.align import card

    write_whole(config.result / card.NAME, card.card(config, summary).encode())
    write_json(config.out / "summary.json", summary)
    (config.out / EXAMPLES).unlink()


def load_for_training(config: AlignConfig, folder: Run, pairs_digest: str) -> tuple[Vlm, Vlm, torch.dtype]:
    """The base model, the same made ready for training, and the number type that it computes in; checks that these are
    the run's.
    """
    from veridical.align import distributed
    from veridical.align.policy import load_base, make_trainable
    from veridical.vlm.model.precision import compute_dtype, refuse_float16

    base = load_base(config)
    dtype = compute_dtype(base.model)
    refuse_float16(dtype)
    distributed.require_same("weights of the model", base.fingerprint)
    inputs = {"pairs": pairs_digest, "model": base.fingerprint}
    distributed.on_main(lambda: folder.settle(inputs))
    # Before the long work, so that an adapter that doesn't fit the model is refused at once.
    vlm = make_trainable(config, base)
    if config.start is not None:
        distributed.on_main(lambda: folder.settle({"start": vlm.fingerprint}))
    return base, vlm, dtype


@contextmanager
def open_encoder(config: AlignConfig, base: Vlm, vlm: Vlm, dtype: torch.dtype) -> Iterator[BatchEncoder]:
    """What the model is shown; what serves this start of the run only is removed afterwards."""
    from veridical.align import distributed
    from veridical.align.inputs import BatchEncoder, worker_settings
    from veridical.vlm.inputs.preprocessed_cache import Scratch
    from veridical.vlm.prefix.prefix_store import PrefixStore
    from veridical.vlm.prefix.vision_feature_cache import TowerCache

    folder = config.out / f"prefixes-{distributed.index()}"
    prefixes = PrefixStore(config.prefix_memory_mb * 2**20, config.prefix_disk_mb * 2**20, folder)
    on_disk = None
    if config.feature_disk_mb:
        limit = config.feature_disk_mb * 2**20
        on_disk = TowerCache(config.feature_folder, limit, vlm, base.fingerprint, distributed.count())
    scratch = Scratch(
        config.out / "images",
        config.image_disk_mb * 2**20,
        dtype,
        worker_settings(config.workers)["num_workers"],
        distributed.index(),
        distributed.count(),
    )
    distributed.on_main(scratch.clear)
    try:
        yield BatchEncoder(vlm, config.feature_memory_mb * 2**20, prefixes, on_disk, scratch, dtype)
    finally:
        prefixes.close()
        if distributed.is_main():
            scratch.clear()


def checked_examples(config: AlignConfig, encoder: BatchEncoder) -> Prepared:
    """The pairs that can be trained on, with their images looked at; tells the user about the others."""
    from veridical.align import checks, distributed, final_metrics
    from veridical.align.dataset import store
    from veridical.align.logps import views_of
    from veridical.align.preprocess import first_look
    from veridical.pairs.dataset import stream_pairs
    from veridical.progress import Line

    keep, objective = partial(store, path=config.out / EXAMPLES), config.objective
    pairs, limit = stream_pairs(config.sources[0]), config.max_answer_tokens
    answers = distributed.on_main(
        lambda: checks.prepare(pairs, encoder.vlm, limit, config.too_long, keep=keep, objective=objective)
    )
    views = views_of((*config.objective.needs(), *final_metrics.BOTH))
    with Line("images", len(distributed.share(len(answers.examples))), shown=distributed.is_main()) as line:
        seen = first_look(encoder, answers.examples, views, config.workers, line.advance)
    encoder.all_kept = not seen.unkept
    prepared = replace(answers, examples=seen.examples, skipped=(*answers.skipped, *seen.skipped))
    _tell(prepared, config.out)
    if seen.unkept:
        _say(f"{seen.unkept} images have no room on disk and are decoded in every pass; see --image-disk-mb")
    return prepared


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
        _say(f"continuing after step {done} of {steps}")
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
        _say(f"stopped after step {step} of {steps}; the same command continues from there")
        raise KeyboardInterrupt
    return steps


def _terms(config: AlignConfig, encoder: BatchEncoder) -> Terms:
    """What is added to the objective."""
    from veridical.align.policy import snapshot
    from veridical.align.terms import Terms, auxiliary_examples

    second = auxiliary_examples(config.auxiliary, config.out / "auxiliary", encoder.vlm, config.max_answer_tokens)
    start = snapshot(encoder.vlm.model) if config.kl.weight and config.reference == "start" else None
    return Terms(config.auxiliary, config.kl, second, config.seed, start)


def _say_what_runs(config: AlignConfig) -> None:
    from veridical.align import distributed, machine

    if notice := machine.notice(distributed.count(), os.environ):
        _say(notice)
    _say(f"{config.objective.name} at a learning rate of {config.learning_rate:g}, {config.epochs} epochs")


def _say_held_out(config: AlignConfig, trained: int, kept_aside: int) -> None:
    from veridical.align.held_out import FEWEST

    if kept_aside:
        _say(f"{kept_aside} pairs are held out, and measured at the end; {trained} are trained on")
    elif config.held_out and trained < FEWEST:
        _say(f"no pairs are held out, since {trained} are fewer than {FEWEST}: results are on the training pairs alone")
    elif config.held_out:
        _say("no pairs are held out: a single record has too many of them; results are on the training pairs alone")


def _refuse_unknown_trackers(config: AlignConfig) -> None:
    from transformers.integrations import get_available_reporting_integrations

    known = get_available_reporting_integrations()
    if absent := [name for name in config.report_to if name not in known]:
        raise UserError(f"report_to: {', '.join(absent)} is not installed; there is: {', '.join(known) or 'none'}.")


def _refuse_absent_optimiser(config: AlignConfig) -> None:
    from importlib import util

    if config.optimiser == "adamw-8bit" and util.find_spec("bitsandbytes") is None:
        raise UserError("optimiser adamw-8bit needs bitsandbytes: `pip install 'veridical[quantise]'`, or take adamw.")


def _tell_memory(config: AlignConfig, vlm: Vlm, examples: Sequence[Example]) -> None:
    """Print what a micro-batch of training will take, worked out from the model's shape."""
    from veridical.align import distributed
    from veridical.vlm.inputs.context import Context
    from veridical.vlm.memory import Work, announce

    if distributed.is_main():
        kind: Work = "full" if config.train != "adapter" else "answers" if vlm.invocation_tokens else "lora"
        like = Context(examples[0].images, examples[0].prompt)
        announce(
            vlm,
            kind,
            min(config.micro_batch, config.batch_size),
            like,
            rows=len(examples[0].answers()),
            answer=min(128, config.max_answer_tokens),
            rank=config.lora.rank,
            checkpointing=config.gradient_checkpointing,
            optimiser=config.optimiser,
            shards=distributed.count() if config.shard else 1,
        )


def _tell(prepared: Prepared, out: Path) -> None:
    from veridical.align import distributed

    distributed.on_main(lambda: write_json_lines(out / "skipped.jsonl", map(asdict, prepared.skipped)))
    reasons = ", ".join(f"{count} {reason}" for reason, count in prepared.reasons().items())
    if not prepared.examples:
        example = "".join(f" For one, {one.id}: {one.detail}. {one.remedy}." for one in prepared.skipped[:1])
        where = out / "skipped.jsonl"
        raise UserError(f"None of the {prepared.read} pairs can be used ({reasons}); see {where}.{example}")
    left_out = f"; left out: {reasons} (see {out / 'skipped.jsonl'})" if reasons else ""
    shortened = f"; {prepared.shortened} answers shortened" if prepared.shortened else ""
    _say(f"{len(prepared.examples)} of {prepared.read} pairs{left_out}{shortened}")
    for warning in prepared.warnings:
        _say(f"warning: {warning}")


class _Laps:
    """Wall seconds of each stage of this start of the run."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def end(self, stage: str) -> None:
        now = time.monotonic()
        self.seconds[stage] = round(now - self._last, 3)
        self._last = now


def _say(text: str) -> None:
    """Print on the main process only."""
    if int(os.environ.get("RANK", "0")) == 0:
        print(text, file=sys.stderr, flush=True)
