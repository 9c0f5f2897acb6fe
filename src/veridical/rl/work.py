"""A step of policy gradient: sample groups of answers, reward them, and pass them through the algorithm's loss.

One prefix of image and prompt serves a whole group: for sampling, the sampling policy's log-probabilities, and the
gradient; the reference, another model, reads its own. Where all groups of a step fit in one pass, it is one and the
same prefix; else the gradient's is encoded again, part by part, since activations of all prompts would not fit.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from veridical.align import distributed
from veridical.align.policy import as_reference
from veridical.align.step_trainer import in_parts, places_of_step
from veridical.records import Record
from veridical.rl.base import Algorithm, Measured, Rollout, Tokens, Whole
from veridical.rl.judging import Judging, Monitor, Standard, answered
from veridical.rl.prompts import PromptEncoder
from veridical.rl.registry import REWARDS, short
from veridical.rl.rollouts import by_group, length_metrics, of_all_processes, own_part, read, shared_out, write
from veridical.rl.token_rewards import EDITS, IMPLICIT, of_edits, taken_out
from veridical.vlm.generation.generate import generate
from veridical.vlm.generation.params import Branch, Sampled, SamplingParams
from veridical.vlm.prefix.encode import Prefix
from veridical.vlm.scores.token_scores import TokenScores, score_tokens, value_head, without_value
from veridical.vlm.shrinking import BatchLimit, run_in_batches

if TYPE_CHECKING:
    from veridical.vlm.model.loading import Vlm

_ENDS = {"clip_ratio/low_mean": "clip_ratio/low_min", "clip_ratio/high_mean": "clip_ratio/high_max"}
"""The least and the most that was clipped of an answer, as TRL logs it."""


@dataclass(frozen=True)
class Task:
    """What a policy is trained on: prompts, how many at a time, how answers are drawn, what they are rewarded by."""

    records: Sequence[Record]
    groups: int
    seed: int
    sampling: SamplingParams
    rewards: Mapping[str, float]
    judging: Judging
    monitor: Monitor
    standard: Standard | None = None
    token_rewards: Mapping[str, float] = field(default_factory=dict)
    """What single tokens are rewarded by, each with its weight."""
    token_model: Mapping[str, Tensor] | None = None
    """The trained weights by which the token reward `implicit` goes, in the place of the policy's."""


class PolicyGradient:
    """The work of a `StepTrainer` by GRPO, RLOO or PPO."""

    def __init__(
        self,
        vlm: Vlm,
        encoder: PromptEncoder,
        algorithm: Algorithm,
        task: Task,
        limit: BatchLimit,
        reference: Mapping[str, Tensor] | None = None,
        head: torch.nn.Linear | None = None,
        completions: Path | None = None,
        keep_prefix: bool = True,
    ) -> None:
        """`limit`: groups in one pass. `reference`: weights that the policy is held to, the base's if None.
        `completions`: a file that takes all answers with their rewards. `keep_prefix`: whether activations of a step's
        prompts may be held while answers are sampled."""
        self._vlm, self._encoder, self._algorithm, self.task = vlm, encoder, algorithm, task
        self._limit, self._reference, self._head = limit, reference, head
        # An answer with a token that stands for an image could not be scored.
        self._sampling = replace(task.sampling, never=(*task.sampling.never, *sorted(vlm.traits.placeholder_ids)))
        self._completions = completions
        self._weights = torch.tensor(list(task.rewards.values()))
        self._rollouts: list[Rollout] = []
        self._live: Prefix | None = None
        self._whole = Whole(0, 0, 0)
        self._of_rollout: dict[str, float] = {}
        self._totals: dict[str, list[float]] = {}
        self._ends: dict[str, float] = {}
        self._failed = 0
        # Dropout would make the sampling policy another one than the one that trains.
        dropout = any(isinstance(module, torch.nn.Dropout) and module.p > 0 for module in vlm.model.modules())
        self._may_share = keep_prefix and not dropout

    def begin(self, step: int) -> Sequence[Rollout]:
        """Sample and reward new groups, or take those of the last step again (`num_iterations`)."""
        self._totals.clear()
        self._ends.clear()
        self._live = None
        number, iteration = divmod(step, self._algorithm.num_iterations)
        if iteration == 0:
            self._rollouts = self._collected(number)
        self._whole = self._counted()
        return own_part(self._rollouts)

    def sample(self, records: Sequence[Record], step: int | str, share: bool = False, first: int = 0) -> list[Rollout]:
        """Groups of answers, without rewards; with `share`, the prefix is kept for the gradient. `first` is the place
        of the first record among those of the step."""
        rollouts: list[Rollout] = []
        parts = list(in_parts(list(enumerate(records, first)), self._limit.size))
        keep = share and len(parts) == 1 and self._may_share
        for part in parts:
            rollouts += self._sampled_in_parts(part, step, keep)
        return rollouts

    def _sampled_in_parts(self, part: Sequence[tuple[int, Record]], step: int | str, keep: bool) -> list[Rollout]:
        def run(some: Sequence[tuple[int, Record]]) -> list[Rollout]:
            whole = keep and len(some) == len(part)
            return self._sampled(some, step, whole)

        return run_in_batches(run, part, self._limit)

    def _sampled(self, part: Sequence[tuple[int, Record]], step: int | str, keep: bool) -> list[Rollout]:
        records = [record for _, record in part]
        prefix = self._encoded(records, gradients=keep)
        self._live = prefix if keep else None
        count = self._algorithm.num_generations
        branches = [
            Branch(context, (self.task.seed, step, place, record.id, index))
            for context, (place, record) in enumerate(part)
            for index in range(count)
        ]
        with torch.no_grad(), self._encoder.autocast():
            shown = without_value(prefix) if self._head is not None else prefix
            sampled = generate(self._vlm, shown, branches, self._sampling)
        rollouts = [
            Rollout(record, sampled[place * count : (place + 1) * count], torch.empty(0))
            for place, record in enumerate(records)
        ]
        if self._algorithm.needs_old or (distributed.count() > 1 and self._algorithm.num_iterations > 1):
            # With several processes a checkpoint must hold those of all, before any has passed its answers.
            with torch.no_grad(), self._as_trained():
                scored = self._scored(rollouts, prefix)
            shared_out(rollouts, "old", scored.logps)
            if self._head is not None:
                shared_out(rollouts, "values", scored.values)
        if self._algorithm.needs_reference:
            shared_out(rollouts, "reference", self._reference_logps(rollouts))
        return rollouts

    @contextmanager
    def _as_trained(self) -> Iterator[None]:
        """In evaluation mode, which differs from training by the adapter's dropout alone."""
        from veridical.vlm.model.modes import evaluating

        with evaluating(self._vlm.model):
            yield

    def _encoded(self, records: Sequence[Record], gradients: bool) -> Prefix:
        with torch.set_grad_enabled(gradients), self._encoder.autocast(), value_head(self._vlm, self._head):
            if gradients:
                self._vlm.model.train()
                return self._encoder.encode(records)
            with self._as_trained():
                return self._encoder.encode(records)

    def _scored(self, rollouts: Sequence[Rollout], prefix: Prefix) -> TokenScores:
        rows = [(place, answer.ids) for place, rollout in enumerate(rollouts) for answer in rollout.answers]
        valued = self._head is not None
        with self._encoder.autocast(), value_head(self._vlm, self._head):
            return score_tokens(self._vlm, prefix, rows, self.task.sampling.temperature or 1.0, valued)

    def _reference_logps(self, rollouts: Sequence[Rollout]) -> list[Tensor]:
        return self._logps_by(rollouts, self._reference)

    def _logps_by(self, rollouts: Sequence[Rollout], weights: Mapping[str, Tensor] | None) -> list[Tensor]:
        """The answers' log-probabilities by the model with other weights, or without its adapter where None."""
        rows = [(place, answer.ids) for place, rollout in enumerate(rollouts) for answer in rollout.answers]
        with torch.no_grad(), self._as_trained(), as_reference(self._vlm, weights), self._encoder.autocast():
            prefix = self._encoder.encode([rollout.record for rollout in rollouts])
            return score_tokens(self._vlm, prefix, rows, self.task.sampling.temperature or 1.0).logps

    def _collected(self, number: int) -> list[Rollout]:
        """Groups for the `number`-th time, with rewards and advantages."""
        self._encoder.begin()
        self.task.judging.begin()
        places = places_of_step(len(self.task.records), self.task.groups, self.task.seed, number)
        share = distributed.share(len(places))
        records = [self.task.records[place] for place in places[share.start : share.stop]]
        own = self.sample(records, number, share=True, first=share.start)
        count = self._algorithm.num_generations
        of_groups = torch.split(self.reward(own), count)
        for rollout, rewards in zip(own, of_groups, strict=True):
            rollout.rewards = rewards
        self._reward_tokens(own)
        failed = sum(self.task.judging.failures.values())
        rollouts, self._failed = of_all_processes(own, failed, self._vlm.model.device)
        raw = torch.cat([rollout.rewards for rollout in rollouts])
        if self.task.standard is not None:
            for rollout in rollouts:
                rollout.rewards = self.task.standard.applied(rollout.rewards)
        metrics = self._algorithm.advantages(rollouts, self._weights)
        self._of_rollout = {
            **self._reward_metrics(raw, rollouts),
            **metrics,
            **length_metrics(rollouts),
            **self.task.monitor.metrics(answered(rollouts)),
        }
        self._log_completions(number, rollouts, raw)
        return rollouts

    def _reward_tokens(self, rollouts: Sequence[Rollout]) -> None:
        """Reward single tokens by the weighted sum of their rewards, where there are any."""
        answers = [one for rollout in rollouts for one in rollout.answers]
        totals = [torch.zeros(len(one.ids)) for one in answers]
        if weight := self.task.token_rewards.get(EDITS):
            spans = taken_out(answered(rollouts), self.task.judging)
            for total, answer, some in zip(totals, answers, spans, strict=True):
                total += weight * of_edits(answer, some, self._vlm.tokenizer)
        if weight := self.task.token_rewards.get(IMPLICIT):
            theirs, base = (self._logps_in_parts(rollouts, weights) for weights in (self.task.token_model, None))
            for total, one, other in zip(totals, theirs, base, strict=True):
                total += weight * (one - other).cpu()
        if self.task.token_rewards:
            shared_out(rollouts, "token_rewards", totals)

    def _logps_in_parts(self, rollouts: Sequence[Rollout], weights: Mapping[str, Tensor] | None) -> list[Tensor]:
        def run(some: Sequence[Rollout]) -> list[list[Tensor]]:
            return list(by_group(some, self._logps_by(some, weights)))

        return [one for group in run_in_batches(run, rollouts, self._limit) for one in group]

    def reward(self, rollouts: Sequence[Rollout]) -> Tensor:
        """Every reward of every answer, [answers, rewards], NaN where there is none."""
        answers = answered(rollouts)
        columns = []
        for name in self.task.rewards:
            given = REWARDS.get(name, "rewards")(answers, self.task.judging)
            columns.append([math.nan if one is None else float(one) for one in given])
        return torch.tensor(columns).T.contiguous()

    def _reward_metrics(self, raw: Tensor, rollouts: Sequence[Rollout]) -> dict[str, float]:
        from veridical.rl.base import combined, nanstd

        totals = combined(raw, self._weights)
        metrics = {}
        if self.task.token_rewards:
            sums = torch.stack([reward.sum() for rollout in rollouts for reward in rollout.token_rewards])
            metrics["rewards/tokens/mean"] = float(sums.mean())
            totals = totals + sums
        groups = totals.view(-1, self._algorithm.num_generations)
        metrics |= {"reward": float(totals.nanmean()), "reward_std": float(nanstd(totals))}
        spread = nanstd(groups, 1)
        metrics["frac_reward_zero_std"] = float(torch.isclose(spread, torch.zeros_like(spread)).float().mean())
        for place, name in enumerate(self.task.rewards):
            metrics[f"rewards/{short(name)}/mean"] = float(raw[:, place].nanmean())
            metrics[f"rewards/{short(name)}/std"] = float(nanstd(raw[:, place]))
        return metrics

    def _log_completions(self, number: int, rollouts: Sequence[Rollout], raw: Tensor) -> None:
        if self._completions is None:
            return
        rows = iter(raw.tolist())
        with self._completions.open("a", encoding="utf-8") as file:
            for rollout in rollouts:
                for place, (answer, advantages) in enumerate(zip(rollout.answers, rollout.advantages, strict=True)):
                    own = dict(zip(map(short, self.task.rewards), next(rows), strict=True))
                    row = {"step": number * self._algorithm.num_iterations + 1, "id": rollout.record.id}
                    row |= {"completion": answer.text.strip(), "ended": answer.ended, "advantage": advantages[0].item()}
                    if rollout.token_rewards:
                        own["tokens"] = float(rollout.token_rewards[place].sum())
                    row["rewards"] = {name: None if math.isnan(value) else value for name, value in own.items()}
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")

    def _counted(self) -> Whole:
        answers = [answer for rollout in self._rollouts for answer in rollout.answers]
        tokens = sum(len(one.ids) for one in answers if self._counts(one))
        return Whole(len(answers), tokens, self.task.sampling.max_new_tokens)

    def _counts(self, answer: Sampled) -> bool:
        return answer.finished or not getattr(self._algorithm, "mask_truncated_completions", False)

    def loss(self, items: Sequence[Rollout]) -> Tensor:
        """The groups' share of the step's loss."""
        shared = self._live if len(items) == len(own_part(self._rollouts)) else None
        prefix = shared or self._encoded([item.record for item in items], gradients=True)
        scored = self._scored(items, prefix)
        for rollout, logps in zip(items, by_group(items, scored.logps), strict=True):
            if not rollout.old:
                # The sampling policy is the one that trains, in the first step on its answers.
                rollout.old = [logp.detach() for logp in logps]
        tokens = self._padded(items, scored)
        loss, measured = self._algorithm.loss(tokens, self._whole)
        entropies = pad_sequence(scored.entropies, batch_first=True)
        self._add({**measured, "entropy": (entropies, tokens.mask)})
        return loss

    def _padded(self, items: Sequence[Rollout], scored: TokenScores) -> Tokens:
        device = scored.logps[0].device
        answers = [answer for rollout in items for answer in rollout.answers]

        def padded(name: str) -> Tensor | None:
            given = [one.to(device) for rollout in items for one in getattr(rollout, name)]
            return pad_sequence(given, batch_first=True) if given else None

        counted = [torch.full((len(one.ids),), float(self._counts(one)), device=device) for one in answers]
        old, advantages = padded("old"), padded("advantages")
        assert old is not None
        assert advantages is not None
        return Tokens(
            logps=pad_sequence(scored.logps, batch_first=True),
            mask=pad_sequence(counted, batch_first=True),
            old=old,
            advantages=advantages,
            reference=padded("reference"),
            values=pad_sequence(scored.values, batch_first=True) if self._head is not None else None,
            old_values=padded("values"),
            returns=padded("returns"),
        )

    def _add(self, measured: Measured) -> None:
        for name, (values, weights) in measured.items():
            total = self._totals.setdefault(name, [0.0, 0.0])
            total[0] += float((values * weights).sum())
            total[1] += float(weights.sum())
            if name in _ENDS:
                each = (values * weights).view(len(values), -1).sum(1) / weights.view(len(values), -1).sum(1)
                known, pick = _ENDS[name], min if name.endswith("low_mean") else max
                self._ends[known] = pick(float(pick(each)), self._ends.get(known, float(pick(each))))

    def restart(self) -> None:
        """Forget what was counted, and the prefix whose graph a broken pass has used up."""
        self._totals.clear()
        self._ends.clear()
        self._live = None

    def metrics(self) -> Mapping[str, float]:
        """TRL's names, then what annotations say of the answers; the weights of judges' failures too."""
        self._live = None
        totals: dict[str, tuple[float, float]] = {}
        ends: dict[str, float] = {}
        for theirs, further in distributed.gathered((self._totals, self._ends)):
            for name, (total, weight) in theirs.items():
                before = totals.get(name, (0.0, 0.0))
                totals[name] = before[0] + total, before[1] + weight
            for name, value in further.items():
                pick = min if name.endswith("low_min") else max
                ends[name] = pick(value, ends.get(name, value))
        found = {name: total / max(weight, 1e-9) for name, (total, weight) in totals.items()}
        failed = {"judge/failed": float(self._failed)} if self._failed else {}
        return {**found, **ends, **self._of_rollout, **failed}

    def end(self, step: int) -> None:
        """Nothing to do."""

    def save(self, folder: Path) -> None:
        """Write the answers on which further steps follow, with what is known of them."""
        if self._algorithm.num_iterations == 1:
            return
        write(folder, self._rollouts, self.task.records, self._of_rollout)

    def load(self, folder: Path) -> None:
        """Read them again."""
        rollouts, metrics = read(folder, self.task.records, self._vlm.model.device)
        if rollouts:
            self._rollouts, self._of_rollout = rollouts, metrics
