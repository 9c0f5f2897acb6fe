"""Who judges sampled answers: the panel of judges, a trained reward, and annotations that watch beside them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from veridical.judges.interface import Detect, Findings, JudgeError, Rate, Rewrite
from veridical.judges.oracle import Oracle
from veridical.rl.rewards import Answered, recall_of, repetition, truth, yes_or_no

if TYPE_CHECKING:
    from torch import Tensor

    from veridical.judges.interface import Judge
    from veridical.judges.lexicon_sources import Words
    from veridical.judges.panel import Panel
    from veridical.rl.base import Rollout


@dataclass
class Judging:
    """Answers what rewards ask about answers, each question of a step once; failures are counted by reason."""

    panel: Panel
    reward_model: Judge | None = None
    length_words: int | None = None
    length_slack: float = 0.25
    failures: Counter[str] = field(default_factory=Counter)
    _found: dict[tuple[str, str], Findings | None] = field(default_factory=dict)

    def begin(self) -> None:
        """Forget the findings of the step before."""
        self._found.clear()

    def findings(self, answers: Sequence[Answered]) -> list[Findings | None]:
        """What is named, wrong and missing in each answer; None for yes/no questions, and where the judge can't say."""
        asked = [answer for answer in answers if truth(answer.record) is None]
        unknown = {(one.record.id, one.text): one for one in asked if (one.record.id, one.text) not in self._found}
        if unknown:
            answered = self.panel.answer([Detect(one.record, one.text) for one in unknown.values()])
            self._found |= dict(zip(unknown, map(self._answer, answered), strict=True))
        return [self._found.get((answer.record.id, answer.text)) for answer in answers]

    def rewritten(self, requests: Sequence[Rewrite]) -> list[str | None]:
        """Texts with their faults put right; None where the writer can't."""
        return [self._answer(one) for one in self.panel.answer(list(requests))] if requests else []

    def rates(self, answers: Sequence[Answered]) -> list[float | None]:
        """The judge's rate of each answer."""
        return self._rated(self.panel.answer, answers)

    def trained(self, answers: Sequence[Answered]) -> list[float | None]:
        """The reward model's rate of each answer."""
        judge: Any = self.reward_model
        return self._rated(judge.rate, answers)

    def _rated(self, rate: Any, answers: Sequence[Answered]) -> list[float | None]:
        different = {(answer.record.id, answer.text): answer for answer in answers}
        rates = rate([Rate(one.record, one.record.prompt, one.text) for one in different.values()])
        known = dict(zip(different, map(self._answer, rates), strict=True))
        return [known[answer.record.id, answer.text] for answer in answers]

    def _answer(self, given: Any) -> Any:
        if not isinstance(given, JudgeError):
            return given
        self.failures[given.reason] += 1
        return None


@dataclass(frozen=True)
class Monitor:
    """Watches sampled answers by the annotations, whoever gives the rewards, so that hacked rewards show."""

    words: Words | None

    def metrics(self, answers: Sequence[Answered]) -> dict[str, float]:
        """`oracle/score`, `oracle/chair_s`, `oracle/recall` of captions of annotated images; words, repetition, yeses.

        The score is (objects named rightly - faults) / objects that are there.
        """
        captions = [answer for answer in answers if truth(answer.record) is None]
        replies = [yes_or_no(answer.text) for answer in answers if truth(answer.record) is not None]
        metrics = {
            "completions/words": _mean([len(answer.text.split()) for answer in answers]),
            "completions/repetition": _mean([repetition(answer.text) for answer in answers]),
            "completions/distinct": len({answer.text for answer in answers}) / max(len(answers), 1),
        }
        if replies:
            metrics["completions/yes_ratio"] = _mean([reply == "yes" for reply in replies])
        annotated = [caption for caption in captions if caption.record.annotations is not None]
        if self.words is None or not annotated:
            return metrics
        oracle = Oracle(self.words.lexicon, (), self.words.partner, self.words.scenes)
        findings = [f for f in oracle.detect([Detect(o.record, o.text) for o in annotated]) if isinstance(f, Findings)]
        rates = [r for r in oracle.rate([Rate(o.record, o.record.prompt, o.text) for o in annotated]) if _is_number(r)]
        recalls = [recall for finding in findings if (recall := recall_of(finding)) is not None]
        return metrics | {
            "oracle/score": _mean(rates),
            "oracle/chair_s": _mean([finding.invents for finding in findings]),
            "oracle/recall": _mean(recalls),
        }


@dataclass(frozen=True)
class Standard:
    """Each reward's mean and deviation, which are taken off and divided by, as the study does with RLOO."""

    mean: Sequence[float]
    deviation: Sequence[float]

    def applied(self, rewards: Tensor) -> Tensor:
        """Rewards [..., rewards] in units of the deviation, around the mean."""
        return (rewards - rewards.new_tensor(self.mean)) / rewards.new_tensor(self.deviation)

    @staticmethod
    def of(rewards: Tensor) -> Standard:
        """The mean and deviation of rewards [answers, rewards]; a reward that is always the same is only centred."""
        from veridical.rl.base import nanstd

        deviation = nanstd(rewards, 0)[0].nan_to_num(nan=0.0)
        return Standard(
            rewards.nanmean(0).nan_to_num(nan=0.0).tolist(), deviation.masked_fill(deviation < 1e-6, 1.0).tolist()
        )


def answered(rollouts: Sequence[Rollout]) -> list[Answered]:
    """The answers of some groups, one after the other."""
    return [Answered(r.record, answer.text.strip(), answer.finished) for r in rollouts for answer in r.answers]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def _mean(values: Sequence[Any]) -> float:
    return float(sum(values) / len(values)) if values else float("nan")
