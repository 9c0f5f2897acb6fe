"""Loops by steps: every optimiser step trains on pairs that the policy has just made, by any construction.

With `ranked` (two or more samples and an annotator) this is Online-DPO of arXiv 2407.02477, section 2.3; with `bdhs`
its online BDHS, whose rejected side is drawn from the policy at every step and needs no judge; as `mixed` its
Mixed-DPO, with the coin of equation 4 at every step. `sapo` is SAPO (arXiv 2405.20830) whole: a moving average of the
policy writes the segments, becomes the reference every so many steps, and pairs are replayed from a buffer.

OUT/log.jsonl     a row a step      OUT/pairs.jsonl   every pair with the step that trained on it
OUT/checkpoints/  to continue from, buffer, moving average and reference included      OUT/adapter/  the result
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from veridical import runs
from veridical.align.config import AlignConfig
from veridical.align.telling import say
from veridical.errors import UserError
from veridical.files import write_json
from veridical.loops.config import LoopConfig, settings_of
from veridical.pairs.config import BuildConfig, checked
from veridical.pairs.run_folder import digest_of
from veridical.progress import Line
from veridical.records import Pair, Record

if TYPE_CHECKING:
    from veridical.align.inputs import BatchEncoder
    from veridical.align.policy import Policy
    from veridical.loops.step_work import PairsByStep
    from veridical.pairs.shards import Source

COMMAND = "loop"


def run(config: LoopConfig) -> Path:
    """Train by steps and return the run folder; `adapter/` in it is the result."""
    started = [] if config.adapter is None else [f"--adapter={config.adapter}"]
    continued = [] if config.adapter is None else [f"--start={config.adapter}"]
    trackers = ["--report-to", *config.report_to] if config.report_to else []
    built, aligned = settings_of(
        config,
        [f"--out={config.out / 'build'}", *started],
        [f"--out={config.out}", f"--pairs={config.out}", *continued, *trackers],
    )
    built = checked(built)
    if config.kind == "sapo" and built.construction != "sapo":
        raise UserError(f"{config.build}: kind sapo goes with construction sapo, not {built.construction}.")
    if (config.out / "summary.json").exists():
        runs.check(config.out, COMMAND, config)
        say(f"{config.out} is already complete; its result is {config.out / 'adapter'}")
        return config.out
    from veridical.align import distributed
    from veridical.align.run_folder import opened_by_main

    with distributed.joined(aligned.device):
        distributed.require_same("settings", runs.identity_of(config))
        with opened_by_main(config.out, COMMAND, config) as folder:
            _train(config, built, aligned, folder)
    return config.out


def _train(config: LoopConfig, built: BuildConfig, aligned: AlignConfig, folder: runs.Run) -> None:
    from veridical.align import defaults, distributed, watch
    from veridical.align.inputs import BatchEncoder
    from veridical.align.policy import load_policy
    from veridical.pairs import shards
    from veridical.vlm.model.adapters import save_trained

    found = distributed.on_main(lambda: shards.read(built, config.out / "records"))
    items = list(found.items)  # drawn from at every step
    policy = load_policy(aligned)
    if aligned.gradient_checkpointing:
        policy.vlm.model.gradient_checkpointing_enable({"use_reentrant": False})
    source = shards.open_source(built, items, found.held_out, policy.vlm)
    if found.held_out and distributed.is_main():
        _write_held_out(built, config.out, found.held_out)
    inputs = {"model": policy.base, "records": digest_of(items)}
    distributed.on_main(lambda: folder.settle(inputs))
    aligned = defaults.resolved(aligned, policy.vlm.model)
    encoder = BatchEncoder(policy.vlm, aligned.feature_memory_mb * 2**20, dtype=policy.dtype)
    work = _work(config, built, aligned, policy, source, encoder)
    watching = watch.opened(aligned.watch, config.out, policy.vlm, policy.dtype, aligned.seed)
    say(
        f"{config.kind} by steps: {built.construction}, {aligned.objective.name} at a learning rate of "
        f"{aligned.learning_rate:g}, {len(source.records)} records"
    )
    steps = _take_steps(aligned, work, watching, work.steps)
    watched = None if watching is None else watching.restore()
    rejected = sum(map(Counter, distributed.gathered(work.maker.rejected)), Counter[str]())
    if not distributed.is_main():
        return
    save_trained(policy.vlm, config.out / "adapter")
    write_json(
        config.out / "summary.json",
        {
            "objective": aligned.objective.name,
            "kind": config.kind,
            "construction": built.construction,
            "learning_rate": aligned.learning_rate,
            "inputs": {"model": policy.base},
            "steps": steps,
            "pairs_made": _count(config.out / "pairs.jsonl", steps),
            "rejected": dict(rejected),
            "watch": watched,
        },
    )
    say(f"adapter: {config.out / 'adapter'}")


def _work(
    config: LoopConfig,
    built: BuildConfig,
    aligned: AlignConfig,
    policy: Policy,
    source: Source,
    encoder: BatchEncoder,
) -> PairsByStep:
    from veridical.align import distributed
    from veridical.align.memory_of_pairs import PairMemory
    from veridical.align.policy import snapshot
    from veridical.align.terms import Terms, auxiliary_examples
    from veridical.constructions.registry import judge_needs
    from veridical.loops.fresh_pairs import FreshPairs
    from veridical.loops.replay import Buffer
    from veridical.loops.step_work import PairsByStep
    from veridical.pairs.dataset import read_pairs

    source.panel.require(judge_needs(built.construction, built.settings), built.construction)
    known: dict[str, list[Pair]] = {}
    for pair in [] if config.offline is None else read_pairs(config.offline):
        known.setdefault(pair.record_id, []).append(pair)
    if config.kind == "mixed" and not any(record.id in known for record in source.records):
        raise UserError(f"{config.offline}: has pairs of none of these records; build it on {built.records}.")
    auxiliary = distributed.on_main(
        lambda: auxiliary_examples(aligned.auxiliary, config.out / "auxiliary", policy.vlm, aligned.max_answer_tokens)
    )
    encoder.keeps_random = False
    start = snapshot(policy.vlm.model) if config.kind in ("iterative", "sapo") and config.adapter is not None else None
    return PairsByStep(
        config,
        aligned,
        policy,
        source.records,
        FreshPairs(built, policy, source),
        encoder,
        Terms(aligned.auxiliary, aligned.kl, auxiliary, aligned.seed, start),
        known,
        reference=start,
        average=snapshot(policy.vlm.model) if config.kind == "sapo" else {},
        buffer=Buffer(config.buffer_size),
        memory=PairMemory(aligned.objective),
        steps=-(-len(source.records) * aligned.epochs // aligned.batch_size),
    )


def _take_steps(aligned: AlignConfig, work: PairsByStep, watching: Any, steps: int) -> int:
    """Train from the last whole checkpoint on; returns the number of steps taken in all."""
    from veridical.align import callbacks, distributed, run_folder
    from veridical.align.step_trainer import StepTrainer

    checkpoint = distributed.on_main(lambda: run_folder.continued(aligned.out, ("log.jsonl", "pairs.jsonl")))
    done = run_folder.step_of(checkpoint)
    if done:
        say(f"continuing after step {done} of {steps}")
    stop = callbacks.StopOnSignal()
    with stop, Line("training", steps, done, shown=distributed.is_main()) as line:
        watchers = [
            callbacks.StepLog(aligned.out / "log.jsonl"),
            callbacks.StepProgress(line),
            callbacks.WholeCheckpoints(),
            *([] if watching is None else [watching]),
            stop,
        ]
        trainer = StepTrainer(aligned, work.policy.vlm, work, steps, work.limit(), watchers)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    taken = int(trainer.state.global_step)
    if stop.stopped and taken < steps:
        say(f"stopped after step {taken} of {steps}; the same command continues from there")
        raise KeyboardInterrupt
    return taken


def _write_held_out(built: BuildConfig, out: Path, records: Sequence[Record]) -> None:
    from veridical.pairs import held_out

    share = held_out.share_for(built.records, built.held_out)
    held_out.write(out, built.records, share, built.seed, records)


def _count(path: Path, steps: int) -> dict[str, float]:
    rows = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {"all": float(len(rows)), "a_step": len(rows) / max(steps, 1)}
