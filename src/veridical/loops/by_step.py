"""Loops by steps: every optimiser step trains on pairs that the policy has just made, by any construction.

With `ranked` (two or more samples and an annotator) this is Online-DPO of arXiv 2407.02477, section 2.3; with `bdhs`
its online BDHS, whose rejected side is drawn from the policy at every step and needs no judge; as `mixed` its
Mixed-DPO, with the coin of equation 4 at every step. `sapo` is SAPO (arXiv 2405.20830) whole: a moving average of the
policy writes the segments, becomes the reference every so many steps, and pairs are replayed from a buffer.

OUT/log.jsonl     a row a step      OUT/pairs.jsonl   every pair with the step that trained on it
OUT/checkpoints/  to continue from, buffer, moving average and reference included      OUT/adapter/  the result
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from veridical import runs
from veridical.align.config import AlignConfig
from veridical.errors import UserError
from veridical.files import write_json
from veridical.loops.config import LoopConfig, settings_of
from veridical.loops.replay import Buffer, row_of
from veridical.pairs.config import BuildConfig, checked
from veridical.pairs.run_folder import digest_of
from veridical.progress import Line
from veridical.records import Pair, Record, Rejection

if TYPE_CHECKING:
    from torch import Tensor

    from veridical.align.inputs import BatchEncoder
    from veridical.align.memory_of_pairs import PairMemory
    from veridical.align.policy import Policy
    from veridical.align.step_wide import WholeStep
    from veridical.align.terms import Terms
    from veridical.align.types import Example
    from veridical.constructions.protocol import Steps
    from veridical.objectives.base import LogpRequest, Logps
    from veridical.pairs.shards import Source

COMMAND = "loop"
_BUFFER, _AVERAGE, _REFERENCE = "buffer.json", "average.safetensors", "reference.safetensors"


def run(config: LoopConfig) -> Path:
    """Train by steps and return the run folder; `adapter/` in it is the result."""
    started = [] if config.adapter is None else [f"--adapter={config.adapter}"]
    continued = [] if config.adapter is None else [f"--start={config.adapter}"]
    built, aligned = settings_of(
        config,
        [f"--out={config.out / 'build'}", *started],
        [f"--out={config.out}", f"--pairs={config.out}", *continued],
    )
    built = checked(built)
    if config.kind == "sapo" and built.construction != "sapo":
        raise UserError(f"{config.build}: kind sapo goes with construction sapo, not {built.construction}.")
    if (config.out / "summary.json").exists():
        runs.check(config.out, COMMAND, config)
        print(f"{config.out} is already complete; its result is {config.out / 'adapter'}", file=sys.stderr)
        return config.out
    with runs.opened(config.out, COMMAND, config) as folder:
        _train(config, built, aligned, folder)
    return config.out


def _train(config: LoopConfig, built: BuildConfig, aligned: AlignConfig, folder: runs.Run) -> None:
    from veridical.align import defaults, watch
    from veridical.align.inputs import BatchEncoder
    from veridical.align.policy import load_policy
    from veridical.pairs import shards
    from veridical.vlm.model.adapters import save_trained

    found = shards.read(built, config.out / "records")
    policy = load_policy(aligned)
    if aligned.gradient_checkpointing:
        policy.vlm.model.gradient_checkpointing_enable({"use_reentrant": False})
    source = shards.open_source(built, found.items, found.held_out, policy.vlm)
    if found.held_out:
        _write_held_out(built, config.out, found.held_out)
    folder.settle({"model": policy.base, "records": digest_of(list(found.items))})
    aligned = defaults.resolved(aligned, policy.vlm.model)
    encoder = BatchEncoder(policy.vlm, aligned.feature_memory_mb * 2**20, dtype=policy.dtype)
    work = _work(config, built, aligned, policy, source, encoder)
    watching = watch.opened(aligned.watch, config.out, policy.vlm, policy.dtype, aligned.seed)
    print(
        f"{config.kind} by steps: {built.construction}, {aligned.objective.name} at a learning rate of "
        f"{aligned.learning_rate:g}, {len(source.records)} records",
        file=sys.stderr,
    )
    steps = _take_steps(aligned, work, watching, work.steps)
    watched = None if watching is None else watching.restore()
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
            "rejected": dict(work.rejected),
            "watch": watched,
        },
    )
    print(f"adapter: {config.out / 'adapter'}", file=sys.stderr)


def _work(
    config: LoopConfig,
    built: BuildConfig,
    aligned: AlignConfig,
    policy: Policy,
    source: Source,
    encoder: BatchEncoder,
) -> PairsByStep:
    from veridical.align.memory_of_pairs import PairMemory
    from veridical.align.policy import snapshot
    from veridical.align.terms import Terms, auxiliary_examples
    from veridical.constructions.registry import judge_needs
    from veridical.pairs.dataset import read_pairs

    source.panel.require(judge_needs(built.construction, built.settings), built.construction)
    known: dict[str, list[Pair]] = {}
    for pair in [] if config.offline is None else read_pairs(config.offline):
        known.setdefault(pair.record_id, []).append(pair)
    if config.kind == "mixed" and not any(record.id in known for record in source.records):
        raise UserError(f"{config.offline}: has pairs of none of these records; build it on {built.records}.")
    auxiliary = auxiliary_examples(aligned.auxiliary, config.out / "auxiliary", policy.vlm, aligned.max_answer_tokens)
    encoder.keeps_random = False
    start = snapshot(policy.vlm.model) if config.kind in ("iterative", "sapo") and config.adapter is not None else None
    return PairsByStep(
        config,
        built,
        aligned,
        policy,
        source,
        encoder,
        Terms(aligned.auxiliary, aligned.kl, auxiliary, aligned.seed, start),
        known,
        reference=start,
        average=snapshot(policy.vlm.model) if config.kind == "sapo" else {},
        buffer=Buffer(config.buffer_size),
        memory=PairMemory(aligned.objective),
        steps=-(-len(source.records) * aligned.epochs // aligned.batch_size),
    )


class LiveReference:
    """Scores of the reference for the pairs of one step, in memory."""

    def __init__(self) -> None:
        self._scores: dict[str, Tensor] = {}

    def put(self, scores: Mapping[str, Tensor]) -> None:
        """Add scores by key."""
        self._scores |= scores

    def get(self, keys: Sequence[str]) -> list[Tensor]:
        """The scores of `keys`, in order."""
        return [self._scores[key] for key in keys]


@dataclass
class PairsByStep:
    """The work of a `StepTrainer` on pairs that are made at every step."""

    config: LoopConfig
    built: BuildConfig
    aligned: AlignConfig
    policy: Policy
    source: Source
    encoder: BatchEncoder
    terms: Terms
    known: Mapping[str, Sequence[Pair]]
    reference: dict[str, Tensor] | None
    average: dict[str, Tensor]
    buffer: Buffer
    memory: PairMemory
    steps: int
    rejected: Counter[str] = field(default_factory=Counter)
    _scores: LiveReference = field(default_factory=LiveReference)
    _totals: dict[str, float] = field(default_factory=dict)
    _examples: Sequence[Example] = ()
    _whole: WholeStep | None = None
    _slopes: dict[int, Mapping[LogpRequest, Sequence[Tensor]]] = field(default_factory=dict)
    _step: int = 0
    _online: int = 0

    def begin(self, step: int) -> Sequence[Example]:
        """Make the step's pairs with the policy (or its moving average) as it is, and score them by the reference."""
        from veridical.align.checks import prepare
        from veridical.align.step_trainer import places_of_step

        self._totals.clear()
        self._step = step
        count = self.aligned.batch_size
        if self.config.kind == "sapo" and self.config.fresh is not None:
            count = self.config.fresh
        places = places_of_step(len(self.source.records), count, self.config.seed, step)
        pairs = self._pairs([self.source.records[place] for place in places], step)
        if self.config.kind == "sapo":
            self.buffer.add(pairs)
            pairs = self.buffer.draw(self.aligned.batch_size, self.config.seed, step)
        ready = prepare(
            pairs,
            self.policy.vlm,
            self.aligned.max_answer_tokens,
            self.aligned.too_long,
            objective=self.aligned.objective,
        )
        self.rejected.update(one.reason for one in ready.skipped)
        self._examples = ready.examples
        self._score_by_reference()
        self._compare_pairs()
        self._log(pairs, step)
        return self._examples

    def _pairs(self, records: Sequence[Record], step: int) -> list[Pair]:
        """By a coin for each record, with mixed, its online or its offline pairs; the others where it has none."""
        from veridical.vlm.seeds import generator

        online = [True] * len(records)
        if self.config.kind == "mixed":
            coins = generator("mixed step", (self.config.seed, step)).random(len(records))
            online = [
                bool(coin < self.config.online_share) or record.id not in self.known
                for coin, record in zip(coins, records, strict=True)
            ]
        asked = [record for record, fresh in zip(records, online, strict=True) if fresh]
        made = iter(self._made(asked, step))
        found: list[Pair] = []
        self._online = 0
        for record, fresh in zip(records, online, strict=True):
            own = next(made) if fresh else []
            self._online += len(own)
            found += own or self.known.get(record.id, [])
        return found

    def _made(self, records: Sequence[Record], step: int) -> list[list[Pair]]:
        """The pairs of each record, by the construction with this step's draws."""
        from veridical.align.policy import with_weights
        from veridical.constructions.protocol import signed
        from veridical.constructions.registry import construction, judge_needs
        from veridical.generators.local import LocalGenerator
        from veridical.pairs.engine import Engine
        from veridical.pairs.retrieval import Gallery
        from veridical.pairs.runner import run_concurrently
        from veridical.registry import label
        from veridical.vlm.model.precision import autocast
        from veridical.vlm.seeds import generator

        construct, vlm = construction(self.built.construction), self.policy.vlm
        seed = int(generator("pairs of a step", (self.built.seed, step)).integers(2**31))
        engine = Engine(LocalGenerator(vlm), self.source.panel, Gallery(self.source.records))
        needs = judge_needs(self.built.construction, self.built.settings)
        lacking = [self.source.panel.lacks(needs, record) for record in records]
        starts: Iterator[tuple[int, str, Steps]] = (
            (place, record.id, construct(record, self.built.settings, seed))
            for place, record in enumerate(records)
            if lacking[place] is None
        )
        weights = self.average if self.config.kind == "sapo" else _trained(vlm)
        with with_weights(vlm.model, weights), autocast(vlm.model, self.policy.dtype):
            outcomes = dict(run_concurrently(starts, engine, self.built.batch_size, engine.expect))
        made: list[list[Pair]] = []
        for place in range(len(records)):
            outcome = outcomes.get(place)
            lacks = lacking[place]
            if isinstance(outcome, Rejection) or lacks is not None:
                self.rejected[outcome.reason if isinstance(outcome, Rejection) else lacks.reason] += 1  # type: ignore[union-attr]
                made.append([])
                continue
            own = [signed(one, label(self.built.construction), self.built.settings, seed) for one in outcome or []]
            # The same record comes again with other answers: another pair, for caches and for random views.
            made.append([replace(one, id=f"{one.id}/step-{step + 1}") for one in own])
        return made

    def _score_by_reference(self) -> None:
        """Score the step's answers by the reference, in memory; nothing where the objective needs none."""
        import torch

        from veridical.align.policy import as_reference
        from veridical.vlm.model.modes import evaluating
        from veridical.vlm.shrinking import run_in_batches

        self._scores = LiveReference()
        requests = [one for one in self.aligned.objective.needs() if one.reference]
        if not requests or not self._examples:
            return
        run = partial(_scores_of, self.encoder, requests)
        vlm = self.policy.vlm
        with torch.no_grad(), evaluating(vlm.model), as_reference(vlm, self.reference):
            for scores in run_in_batches(run, self._examples, self.limit()):
                self._scores.put(scores)

    def _compare_pairs(self) -> None:
        """For an objective over all pairs of a step: its loss, and what each token changes in it, taken beforehand."""
        import torch

        from veridical.align.step_wide import whole_step
        from veridical.objectives.base import compares_pairs
        from veridical.vlm.model.modes import evaluating
        from veridical.vlm.shrinking import run_in_batches

        self._whole = None
        if not self._examples or not compares_pairs(self.aligned.objective):
            return
        with torch.no_grad(), evaluating(self.policy.vlm.model):
            parts = run_in_batches(lambda some: [self._scored([one]) for one in some], self._examples, self.limit())
        self._whole = whole_step(self.aligned.objective, parts, [1] * len(parts))
        own = zip(self._examples, self._whole.slopes, strict=True)
        self._slopes = {id(example): slopes for example, slopes in own}

    def _scored(self, examples: Sequence[Example]) -> dict[LogpRequest, Logps]:
        from veridical.align.logps import views_of
        from veridical.align.trainer import score_batch

        batch = self.encoder.load(examples, views_of(self.aligned.objective.needs()))
        state = self.memory.state(self._step / max(self.steps, 1))
        return score_batch(self.encoder, self._scores, self.aligned.objective, batch, state)

    def limit(self) -> Any:
        """Pairs that fit a pass, as the settings say."""
        from veridical.vlm.shrinking import BatchLimit

        return BatchLimit(self.aligned.micro_batch, "pairs", "--micro-batch")

    def loss(self, items: Sequence[Example]) -> Tensor:
        """The objective's loss on some pairs and the terms beside it, as their share of the step's."""
        from veridical.align.step_wide import learning_loss
        from veridical.align.trainer import log_prob_means

        scored = self._scored(items)
        self.memory.note(items, scored)
        share = len(items) / len(self._examples)
        if self._whole is None:
            loss, metrics = self.aligned.objective.loss(scored)
        else:
            slopes = {need: [s for one in items for s in self._slopes[id(one)][need]] for need in scored}
            learnt = learning_loss(scored, slopes) / share
            loss, metrics = learnt + (self._whole.loss - learnt.detach()), self._whole.metrics
        metrics = {**metrics, **log_prob_means(scored)}
        if self.terms:
            added, further = self.terms.loss(self.encoder, items, self._step)
            loss, metrics = loss + added, {**metrics, **further}
        for name, value in metrics.items():
            self._totals[name] = self._totals.get(name, 0.0) + float(value) * len(items)
        return loss * share

    def restart(self) -> None:
        """Forget the step's metrics, and what was noted of its pairs."""
        self._totals.clear()
        self.memory.restart_step()

    def metrics(self) -> Mapping[str, float]:
        """The objective's metrics, how many pairs the step had, and how many of them are new."""
        count = max(len(self._examples), 1)
        found = {name: total / count for name, total in self._totals.items()}
        found |= {"pairs": float(len(self._examples)), "pairs/online": float(self._online)}
        return {**found, **({"buffer": float(len(self.buffer.pairs))} if self.config.kind == "sapo" else {})}

    def end(self, step: int) -> None:
        """Move the average; after every so many steps the reference takes it, or the policy."""
        from veridical.align.policy import average_into, snapshot

        self.memory.end_step()
        if self.config.kind == "sapo":
            average_into(self.average, self.policy.vlm.model, self.config.ema_decay)
        if self.config.kind in ("sapo", "iterative") and (step + 1) % self.config.reference_every == 0:
            taken = self.average if self.config.kind == "sapo" else snapshot(self.policy.vlm.model)
            self.reference = {name: weight.clone() for name, weight in taken.items()}

    def save(self, folder: Path) -> None:
        """Write buffer, moving average and reference, as far as there are any."""
        from safetensors.torch import save_file

        for name, weights in ((_AVERAGE, self.average), (_REFERENCE, self.reference)):
            if weights:
                save_file({key: weight.contiguous() for key, weight in weights.items()}, folder / name)
        self.buffer.save(folder / _BUFFER)
        self.memory.save(folder)

    def load(self, folder: Path) -> None:
        """Read them again."""
        from safetensors.torch import load_file

        device = str(self.policy.vlm.model.device)
        if (folder / _AVERAGE).exists():
            self.average = load_file(folder / _AVERAGE, device=device)
        if (folder / _REFERENCE).exists():
            self.reference = load_file(folder / _REFERENCE, device=device)
        self.buffer.load(folder / _BUFFER)
        self.memory.load(folder)

    def _log(self, pairs: Sequence[Pair], step: int) -> None:
        with (self.config.out / "pairs.jsonl").open("a", encoding="utf-8") as file:
            for pair in pairs:
                file.write(json.dumps({"step": step + 1, **row_of(pair)}, ensure_ascii=False) + "\n")


def _scores_of(encoder: BatchEncoder, requests: Sequence[Any], examples: Sequence[Example]) -> list[dict[str, Tensor]]:
    """The scores of some examples by score key."""
    from veridical.align.logps import score_requests, views_of

    scored = score_requests(encoder, encoder.load(examples, views_of(requests)), requests)
    found: list[dict[str, Tensor]] = [{} for _ in examples]
    for request, per_token in scored.items():
        rows = iter(per_token)
        for own, example in zip(found, examples, strict=True):
            own |= {key: next(rows) for key in example.score_keys(request)}
    return found


def _trained(vlm: Any) -> dict[str, Tensor]:
    from veridical.align.policy import trained_weights

    return trained_weights(vlm.model)


def _take_steps(aligned: AlignConfig, work: PairsByStep, watching: Any, steps: int) -> int:
    """Train from the last whole checkpoint on; returns the number of steps taken in all."""
    from veridical.align import callbacks, run_folder
    from veridical.align.step_trainer import StepTrainer

    checkpoint = run_folder.last_checkpoint(aligned.out)
    done = run_folder.step_of(checkpoint)
    for name in ("log.jsonl", "pairs.jsonl"):
        run_folder.cut_log(aligned.out, done, name)
    if done:
        print(f"continuing after step {done} of {steps}", file=sys.stderr)
    stop = callbacks.StopOnSignal()
    with stop, Line("training", steps, done) as line:
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
        print(f"stopped after step {taken} of {steps}; the same command continues from there", file=sys.stderr)
        raise KeyboardInterrupt
    return taken


def _write_held_out(built: BuildConfig, out: Path, records: Sequence[Record]) -> None:
    from veridical.pairs import held_out

    share = held_out.share_for(built.records, built.held_out)
    held_out.write(out, built.records, share, built.seed, records)


def _count(path: Path, steps: int) -> dict[str, float]:
    rows = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {"all": float(len(rows)), "a_step": len(rows) / max(steps, 1)}
