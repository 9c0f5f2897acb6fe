"""After training: what it did to pairs seen and held out, the verdict, the summary, and the adapter's card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from veridical.align import final_metrics, verdict
from veridical.align.config import AlignConfig
from veridical.align.inputs import BatchEncoder
from veridical.align.reference import ReferenceCache
from veridical.align.sample import sample_answers
from veridical.align.types import Example
from veridical.align.verdict import TrainingWarning


@dataclass(frozen=True)
class Outcome:
    """What `measure` says of training pairs and, if there are any, of held-out ones; some answers; what is wrong."""

    final: Mapping[str, Any]
    held_out: Mapping[str, Any] | None
    answers: Mapping[str, str]
    findings: Sequence[TrainingWarning]

    def summary(self) -> dict[str, Any]:
        """As JSON, for the run's summary."""
        return {
            "final": dict(self.final),
            "held_out": None if self.held_out is None else dict(self.held_out),
            "answers": dict(self.answers),
            "verdict": [asdict(finding) for finding in self.findings],
        }

    def lines(self) -> list[str]:
        """In sentences, for the user."""
        told = [f"on the training pairs: {_sentence(self.final)}"]
        if self.held_out is not None:
            told.append(f"on held-out pairs:     {_sentence(self.held_out)}")
        return [*told, *map(str, self.findings)]


def examine(
    config: AlignConfig,
    encoder: BatchEncoder,
    reference: ReferenceCache,
    examples: Sequence[Example],
    held_out: Sequence[Example],
) -> Outcome:
    """Measure the trained model on its pairs and on held-out ones, let it answer, and judge."""
    own = final_metrics.measure(encoder, reference, config.objective, examples, config.micro_batch)
    other = None
    if held_out:
        other = final_metrics.measure(encoder, reference, config.objective, held_out, config.micro_batch)
    answers = sample_answers(encoder, held_out or examples)
    return Outcome(own, other, answers, verdict.judge(config, own, other, list(answers.values())))


def _sentence(numbers: Mapping[str, Any]) -> str:
    low, high = (100 * bound for bound in numbers["intervals"]["accuracy"])
    return (
        f"the chosen answer gained more in {100 * numbers['accuracy']:.0f} % [{low:.0f}, {high:.0f}] of "
        f"{numbers['pairs']}, by {_nats(numbers, 'margin')} nats; log-probability of chosen "
        f"{_nats(numbers, 'chosen_drift')}, of rejected {_nats(numbers, 'rejected_drift')}"
    )


def _nats(numbers: Mapping[str, Any], name: str) -> str:
    low, high = numbers["intervals"][name]
    return f"{numbers[name]:+.1f} [{low:+.1f}, {high:+.1f}]"
