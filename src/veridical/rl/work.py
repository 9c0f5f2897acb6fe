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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from veridical.align.policy import as_reference
from veridical.align.step_trainer import in_parts, places_of_step
from veridical.files import write_json
from veridical.records import Record
from veridical.rl.base import Algorithm, Measured, Rollout, Tokens, Whole
from veridical.rl.judging import Judging, Monitor, Standard, answered
from veridical.rl.prompts import PromptEncoder
from veridical.rl.registry import REWARDS, short
from veridical.vlm.generation.generate import generate
from veridical.vlm.generation.params import Branch, Sampled, SamplingParams
from veridical.vlm.prefix.encode import Prefix
from veridical.vlm.scores.token_scores import TokenScores, score_tokens, value_head, without_value
from veridical.vlm.shrinking import BatchLimit, run_in_batches

if TYPE_CHECKING:
    from veridical.vlm.model.loading import Vlm

_STATE = "rollouts.json"
_ENDS = {"clip_ratio/low_mean": "clip_ratio/low_min", "clip_ratio/high_mean": "clip_ratio/high_max"}
"""The least and the most that was clipped of an answer, as TRL logs it."""
_KEPT = ("old", "reference", "values", "advantages", "returns")


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
        # Dropout would make the sampling policy another one than the one that trains.
        dropout = any(isinstance(one, torch.nn.Dropout) and one.p > 0 for one in vlm.model.modules())
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
        return self._rollouts

    def sample(self, records: Sequence[Record], step: int | str, share: bool = False) -> list[Rollout]:
        """Groups of answers, without rewards; with `share`, the prefix is kept for the gradient."""
        rollouts: list[Rollout] = []
        parts = list(in_parts(list(enumerate(records)), self._limit.size))
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
            found = generate(self._vlm, shown, branches, self._sampling)
        rollouts = [
            Rollout(record, found[place * count : (place + 1) * count], torch.empty(0))
            for place, record in enumerate(records)
        ]
        if self._algorithm.needs_old:
            with torch.no_grad(), self._as_trained():
                scored = self._scored(rollouts, prefix)
            _shared_out(rollouts, "old", scored.logps)
            if self._head is not None:
                _shared_out(rollouts, "values", scored.values)
        if self._algorithm.needs_reference:
            _shared_out(rollouts, "reference", self._reference_logps(rollouts))
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
        rows = [(place, answer.ids) for place, rollout in enumerate(rollouts) for answer in rollout.answers]
        with torch.no_grad(), self._as_trained(), as_reference(self._vlm, self._reference), self._encoder.autocast():
            prefix = self._encoder.encode([rollout.record for rollout in rollouts])
            return score_tokens(self._vlm, prefix, rows, self.task.sampling.temperature or 1.0).logps

    def _collected(self, number: int) -> list[Rollout]:
        """Groups for the `number`-th time, with rewards and advantages."""
        self._encoder.begin()
        self.task.judging.begin()
        places = places_of_step(len(self.task.records), self.task.groups, self.task.seed, number)
        rollouts = self.sample([self.task.records[place] for place in places], number, share=True)
        raw = self.reward(rollouts)
        applied = raw if self.task.standard is None else self.task.standard.applied(raw)
        count = self._algorithm.num_generations
        for place, rollout in enumerate(rollouts):
            rollout.rewards = applied[place * count : (place + 1) * count]
        metrics = self._algorithm.advantages(rollouts, self._weights)
        self._of_rollout = {
            **self._reward_metrics(raw),
            **metrics,
            **_length_metrics(rollouts),
            **self.task.monitor.metrics(answered(rollouts)),
        }
        self._log_completions(number, rollouts, raw)
        return rollouts

    def reward(self, rollouts: Sequence[Rollout]) -> Tensor:
        """Every reward of every answer, [answers, rewards], NaN where there is none."""
        answers = answered(rollouts)
        columns = []
        for name in self.task.rewards:
            given = REWARDS.get(name, "rewards")(answers, self.task.judging)
            columns.append([math.nan if one is None else float(one) for one in given])
        return torch.tensor(columns).T.contiguous()

    def _reward_metrics(self, raw: Tensor) -> dict[str, float]:
        from veridical.rl.base import combined, nanstd

        totals = combined(raw, self._weights)
        groups = totals.view(-1, self._algorithm.num_generations)
        found = {"reward": float(totals.nanmean()), "reward_std": float(nanstd(totals))}
        spread = nanstd(groups, 1)
        found["frac_reward_zero_std"] = float(torch.isclose(spread, torch.zeros_like(spread)).float().mean())
        for place, name in enumerate(self.task.rewards):
            found[f"rewards/{short(name)}/mean"] = float(raw[:, place].nanmean())
            found[f"rewards/{short(name)}/std"] = float(nanstd(raw[:, place]))
        return found

    def _log_completions(self, number: int, rollouts: Sequence[Rollout], raw: Tensor) -> None:
        if self._completions is None:
            return
        rows = iter(raw.tolist())
        with self._completions.open("a", encoding="utf-8") as file:
            for rollout in rollouts:
                for answer, advantages in zip(rollout.answers, rollout.advantages, strict=True):
                    own = dict(zip(map(short, self.task.rewards), next(rows), strict=True))
                    row = {"step": number * self._algorithm.num_iterations + 1, "id": rollout.record.id}
                    row |= {"completion": answer.text.strip(), "ended": answer.ended, "advantage": advantages[0].item()}
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
        shared = self._live if len(items) == len(self._rollouts) else None
        prefix = shared or self._encoded([one.record for one in items], gradients=True)
        scored = self._scored(items, prefix)
        for rollout, logps in zip(items, _by_group(items, scored.logps), strict=True):
            if not rollout.old:
                # The sampling policy is the one that trains, in the first step on its answers.
                rollout.old = [one.detach() for one in logps]
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
        """TRL's names, beside them what annotations say of the answers; the weights of judges' failures too."""
        self._live = None
        found = {name: total / max(weight, 1e-9) for name, (total, weight) in self._totals.items()}
        failed = sum(self.task.judging.failures.values())
        return {**found, **self._ends, **self._of_rollout, **({"judge/failed": float(failed)} if failed else {})}

    def end(self, step: int) -> None:
        """Nothing to do."""

    def save(self, folder: Path) -> None:
        """Write the answers on which further steps follow, with what is known of them."""
        if self._algorithm.num_iterations == 1:
            return
        rollouts = [
            {
                "record": self._place(rollout.record),
                "answers": [[one.text, one.ended, one.tokens, list(one.ids)] for one in rollout.answers],
                **{name: [one.tolist() for one in getattr(rollout, name)] for name in _KEPT},
            }
            for rollout in self._rollouts
        ]
        write_json(folder / _STATE, {"rollouts": rollouts, "metrics": self._of_rollout})

    def _place(self, record: Record) -> int:
        return next(place for place, one in enumerate(self.task.records) if one.id == record.id)

    def load(self, folder: Path) -> None:
        """Read them again."""
        if not (folder / _STATE).exists():
            return
        state = json.loads((folder / _STATE).read_text(encoding="utf-8"))
        device = self._vlm.model.device
        self._of_rollout = state["metrics"]
        self._rollouts = [_restored(one, self.task.records, device) for one in state["rollouts"]]


def _restored(state: Mapping[str, Any], records: Sequence[Record], device: torch.device) -> Rollout:
    answers = [Sampled(text, ended, tokens, tuple(ids)) for text, ended, tokens, ids in state["answers"]]
    rollout = Rollout(records[state["record"]], answers, torch.empty(0))
    for name in _KEPT:
        setattr(rollout, name, [torch.tensor(one, device=device) for one in state[name]])
    return rollout


def _by_group(rollouts: Sequence[Rollout], per_answer: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    rest = iter(per_answer)
    return ([next(rest) for _ in rollout.answers] for rollout in rollouts)


def _shared_out(rollouts: Sequence[Rollout], name: str, per_answer: Sequence[Tensor]) -> None:
    for rollout, own in zip(rollouts, _by_group(rollouts, per_answer), strict=True):
        setattr(rollout, name, own)


def _length_metrics(rollouts: Sequence[Rollout]) -> dict[str, float]:
    """Lengths in tokens, named as in TRL."""
    answers = [answer for rollout in rollouts for answer in rollout.answers]
    lengths = [len(one.ids) for one in answers]
    ended = [len(one.ids) for one in answers if one.finished] or [0]
    return {
        "completions/mean_length": sum(lengths) / len(lengths),
        "completions/min_length": float(min(lengths)),
        "completions/max_length": float(max(lengths)),
        "completions/clipped_ratio": sum(not one.finished for one in answers) / len(answers),
        "completions/mean_terminated_length": sum(ended) / len(ended),
    }
