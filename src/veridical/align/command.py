"""`veridical align`: trains an adapter, or the language model itself, on the pairs of a build."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from veridical.align import run_folder
from veridical.align.config import AlignConfig, config_type
from veridical.errors import UserError
from veridical.files import write_json, write_json_lines
from veridical.objectives.base import scores_read
from veridical.runs import Run

if TYPE_CHECKING:
    from veridical.align.checks import Prepared
    from veridical.align.inputs import BatchEncoder
    from veridical.align.reference import ReferenceCache
    from veridical.align.types import Example
    from veridical.vlm.model.loading import Vlm

__all__ = ["AlignConfig", "config_type", "run"]

EXAMPLES = "examples.arrow"
"""The checked pairs, in the run folder while it lasts."""


def run(config: AlignConfig) -> Path:
    """Train as `config` says and return the run folder; `adapter/` in it, in PEFT's layout, or `model/` is the result.

    Continues a run that was interrupted, to the same weights; returns at once if it is done. Raises
    UserError for what the user can mend, KeyboardInterrupt (with a checkpoint saved) after Ctrl-C.
    """
    if run_folder.is_finished(config):
        _say(f"{config.out} is already complete; its result is {config.result}")
        return config.out
    from veridical.align import distributed

    distributed.init(config.device)
    try:
        pairs_digest = distributed.on_main(lambda: run_folder.pairs_digest(config.pairs))
        with run_folder.opened(config) as folder:
            _align(config, folder, pairs_digest)
    finally:
        distributed.destroy()
    return config.out


def _align(config: AlignConfig, folder: Run, pairs_digest: str) -> None:
    from veridical.align import distributed, final_metrics
    from veridical.align.reference import ReferenceCache, model_key
    from veridical.vlm.model.adapters import save_trained

    laps = _Laps()
    _refuse_what_is_not_there(config)
    base, vlm = _loaded(config, folder, pairs_digest)
    laps.end("load")
    with _encoder(config, base, vlm) as encoder:
        prepared = _checked(config, encoder)
        _tell_memory(config, vlm, prepared.examples)
        laps.end("check")
        key = model_key(_reference_of(config, base, vlm), encoder.dtype, _trained_weights(config))
        cache = ReferenceCache(config.reference_folder / key)
        computed = _fill_reference(config, encoder, cache, prepared.examples)
        laps.end("reference")
        steps = _train(config, encoder, cache, prepared.examples)
        laps.end("train")
        if not distributed.is_main():
            return
        save_trained(vlm, config.result)
        final = final_metrics.final_state(encoder, cache, config.objective, prepared.examples, config.micro_batch)
    (config.out / EXAMPLES).unlink()
    laps.end("measure")
    summary = {
        "objective": config.objective.name,
        "pairs": {
            "read": prepared.read,
            "used": len(prepared.examples),
            "skipped": prepared.reasons(),
            "answers_shortened": prepared.shortened,
        },
        "reference_computed": computed,
        "steps": steps,
        "seconds": laps.seconds,
        "final": final,
        "peak_memory": final_metrics.peak_memory(),
    }
    write_json(config.out / "summary.json", summary)
    _say(_closing(config, final))


def _loaded(config: AlignConfig, folder: Run, pairs_digest: str) -> tuple[Vlm, Vlm]:
    """The base model, and the same made ready for training; that these are the run's is settled."""
    from veridical.align import distributed
    from veridical.vlm.load import attach_lora, load
    from veridical.vlm.model.adapters import unfreeze
    from veridical.vlm.model.precision import compute_dtype, refuse_float16

    base = load(config.model, dtype=config.dtype, device=config.device, allow_remote_code=config.allow_remote_code)
    refuse_float16(compute_dtype(base.model))
    inputs = {"pairs": pairs_digest, "model": base.fingerprint}
    distributed.on_main(lambda: folder.settle(inputs))
    # Before the long work, so that an adapter that doesn't fit the model is refused at once.
    if config.train == "adapter":
        vlm = attach_lora(base, config.lora, config.seed, config.start)
    else:
        vlm = unfreeze(base, projector=config.train == "language-and-projector")
    if config.start is not None:
        distributed.on_main(lambda: folder.settle({"start": vlm.fingerprint}))
    return base, vlm


@contextmanager
def _encoder(config: AlignConfig, base: Vlm, vlm: Vlm) -> Iterator[BatchEncoder]:
    """What the model is shown; what serves this start of the run only is removed afterwards."""
    from veridical.align import distributed
    from veridical.align.inputs import BatchEncoder, worker_settings
    from veridical.vlm.inputs.preprocessed_cache import Scratch
    from veridical.vlm.model.precision import compute_dtype
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
        compute_dtype(vlm.model),
        worker_settings(config.workers)["num_workers"],
        distributed.index(),
        distributed.count(),
    )
    distributed.on_main(scratch.clear)
    try:
        yield BatchEncoder(vlm, config.feature_memory_mb * 2**20, prefixes, on_disk, scratch)
    finally:
        prefixes.close()
        if distributed.is_main():
            scratch.clear()


def _checked(config: AlignConfig, encoder: BatchEncoder) -> Prepared:
    """The pairs that can be trained on, with their images looked at; tells the user about the others."""
    from veridical.align import checks, distributed, final_metrics
    from veridical.align.dataset import store
    from veridical.align.logps import views_of
    from veridical.align.preprocess import first_look
    from veridical.pairs.dataset import stream_pairs
    from veridical.progress import Line

    reads, keep = scores_read(config.objective), partial(store, path=config.out / EXAMPLES)
    pairs, limit = stream_pairs(config.pairs), config.max_answer_tokens
    answers = distributed.on_main(lambda: checks.prepare(pairs, encoder.vlm, limit, config.too_long, reads, keep))
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
    config: AlignConfig, encoder: BatchEncoder, cache: ReferenceCache, examples: Sequence[Example]
) -> int:
    """Score what needs a reference in training or in the measurement after it; returns how many."""
    from veridical.align import distributed, final_metrics
    from veridical.align.reference import fill, missing
    from veridical.progress import Line

    needs = tuple(need for need in config.objective.needs() if need.reference)
    adapter = config.reference == "start"
    computed = 0
    for some, asked in ((examples, needs), (final_metrics.measured(examples), final_metrics.BOTH)):
        if lacking := missing(cache, some, asked):
            distributed.wait_for_all()  # before anyone writes, so that all find the same missing
            part = distributed.share(len(lacking))
            own = lacking[part.start : part.stop]
            with Line("reference", len(own), shown=distributed.is_main()) as line:
                fill(cache, encoder, own, asked, config.micro_batch, config.workers, line.advance, adapter)
            distributed.wait_for_all()
            cache.look()
            computed += len(lacking)
    return computed


def _trained_weights(config: AlignConfig) -> str:
    return "projector" if config.train == "adapter" and config.lora.train_projector else config.train


def _reference_of(config: AlignConfig, base: Vlm, vlm: Vlm) -> str:
    """What the reference's scores are kept under: the fingerprint of the model that gives them."""
    return base.fingerprint if config.reference == "base" else vlm.fingerprint


def _train(config: AlignConfig, encoder: BatchEncoder, cache: ReferenceCache, examples: Sequence[Example]) -> int:
    """Train from the last whole checkpoint on; returns the number of steps of the whole training."""
    import torch

    from veridical.align import callbacks, distributed
    from veridical.align.trainer import PairTrainer, steps_in_all
    from veridical.progress import Line

    steps = steps_in_all(config, len(examples))
    checkpoint = distributed.on_main(lambda: run_folder.last_checkpoint(config.out))
    done = run_folder.step_of(checkpoint)
    distributed.on_main(lambda: run_folder.cut_log(config.out, done))
    if done:
        _say(f"continuing after step {done} of {steps}")
    stop = callbacks.StopOnSignal()
    with stop, Line("training", steps, done, shown=distributed.is_main()) as line:
        watching = (
            callbacks.StepLog(config.out / "log.jsonl"),
            callbacks.StepProgress(line),
            callbacks.WholeCheckpoints(),
            stop,
        )
        if config.gradient_checkpointing:
            encoder.vlm.model.gradient_checkpointing_enable({"use_reentrant": False})
        trainer = PairTrainer(config, encoder, cache, examples, watching)
        try:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"The GPU's memory is full at {config.micro_batch} pairs at a time. Lower --micro-batch, or give "
                f"--gradient-checkpointing; either needs another --out."
            ) from error
    if stop.stopped and trainer.state.global_step < steps:
        step = trainer.state.global_step
        _say(f"stopped after step {step} of {steps}; the same command continues from there")
        raise KeyboardInterrupt
    return steps


def _refuse_what_is_not_there(config: AlignConfig) -> None:
    from transformers.integrations import get_available_reporting_integrations

    known = get_available_reporting_integrations()
    if absent := [name for name in config.report_to if name not in known]:
        raise UserError(f"report_to: {', '.join(absent)} is not installed; there is: {', '.join(known) or 'none'}.")


def _tell_memory(config: AlignConfig, vlm: Vlm, examples: Sequence[Example]) -> None:
    """Print what a micro-batch of training will take, worked out from the model's shape."""
    from veridical.align import distributed
    from veridical.vlm.inputs.context import Context
    from veridical.vlm.memory import Work, announce

    if distributed.is_main():
        kind: Work = "full" if config.train != "adapter" else "answers" if vlm.opening else "lora"
        like = Context(examples[0].images, examples[0].prompt)
        announce(
            vlm,
            kind,
            min(config.micro_batch, config.batch_size),
            like,
            rows=2,
            answer=min(128, config.max_answer_tokens),
            rank=config.lora.rank,
            checkpointing=config.gradient_checkpointing,
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


def _closing(config: AlignConfig, final: dict[str, float]) -> str:
    return (
        f"{config.result.name}: {config.result}  (prefers the chosen answer in {final['accuracy']:.0%} of its "
        f"pairs; log-probability of chosen {final['chosen_drift']:+.1f}, "
        f"of rejected {final['rejected_drift']:+.1f})"
    )


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
    """Tell the user; of several processes one does."""
    if int(os.environ.get("RANK", "0")) == 0:
        print(text, file=sys.stderr, flush=True)
