"""What a training begins with: the model made ready, what it is shown, and the pairs that it can be trained on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from veridical.align.config import AlignConfig
from veridical.align.telling import say, say_prepared
from veridical.errors import UserError
from veridical.runs import Run

if TYPE_CHECKING:
    import torch

    from veridical.align.checks import Prepared
    from veridical.align.inputs import BatchEncoder
    from veridical.vlm.model.loading import Vlm

EXAMPLES = "examples.arrow"
"""The checked pairs, in the run folder while it lasts."""


def refuse_unknown_trackers(config: AlignConfig) -> None:
    """Raise UserError for a tracker in `report_to` that is not installed."""
    from transformers.integrations import get_available_reporting_integrations

    known = get_available_reporting_integrations()
    if absent := [name for name in config.report_to if name not in known]:
        raise UserError(f"report_to: {', '.join(absent)} is not installed; there is: {', '.join(known) or 'none'}.")


def refuse_absent_optimiser(config: AlignConfig) -> None:
    """Raise UserError for an optimiser whose package is not installed."""
    from importlib import util

    if config.optimiser == "adamw-8bit" and util.find_spec("bitsandbytes") is None:
        raise UserError("optimiser adamw-8bit needs bitsandbytes: `pip install 'veridical[quantise]'`, or take adamw.")


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
    say_prepared(prepared, config.out)
    if seen.unkept:
        say(f"{seen.unkept} images have no room on disk and are decoded in every pass; see --image-disk-mb")
    return prepared
