"""Which side a model prefers, by its implicit reward: what it has learnt of a set's preferences, or their opposite.

The reward of an answer is log policy - log reference, as in DPO (arXiv 2305.18290, section 5.1); a pair's margin is the
chosen side's less the rejected side's, in nats, without beta.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from veridical.judges.implicit import log_probs
from veridical.judges.interface import JudgeError
from veridical.judges.rewards import Scorable, each
from veridical.pairs.audit.finding import Finding
from veridical.records import Pair
from veridical.vlm.load import load
from veridical.vlm.model.adapters import adapters_off
from veridical.vlm.model.loading import Vlm

FEWEST = 20
"""Pairs below which a share of them says nothing."""


def check_margins(
    pairs: Sequence[Pair], model: str, adapter: str | None = None, reference: str = "", most: int = 500
) -> Iterator[Finding]:
    """The mean margin of up to `most` pairs and the share whose chosen side the model prefers, both with intervals.

    The reference is the model without its `adapter`, or `reference`. Warns where the model prefers the rejected side
    more often than not. Raises UserError for a model that can't be loaded.
    """
    looked_at = list(pairs[:: max(1, -(-len(pairs) // most))])
    policy = load(model, adapter=None if adapter is None else Path(adapter))
    ours = _log_probs(policy, looked_at)
    if adapter is not None:
        with adapters_off(policy):
            theirs = _log_probs(policy, looked_at)
    else:
        theirs = _log_probs(load(reference), looked_at)
    known = [
        (pair, (a[0] - b[0]) - (a[1] - b[1]))
        for pair, a, b in zip(looked_at, ours, theirs, strict=True)
        if a is not None and b is not None
    ]
    if len(known) < len(looked_at):
        text = f"{len(looked_at) - len(known)} of {len(looked_at)} pairs can't be shown to {model}"
        yield Finding("margin-unread", "note", text)
    if known:
        yield _finding([pair for pair, _ in known], [margin for _, margin in known])


def _log_probs(vlm: Vlm, pairs: Sequence[Pair]) -> list[tuple[float, float] | None]:
    """The log-probabilities of each pair's chosen and rejected answer, in nats; None where the model can't read it."""
    sides = [
        each([_scorable(pair, rejected) for pair in pairs], lambda batch: list(map(sum, log_probs(vlm, batch))), 8)
        for rejected in (False, True)
    ]
    return [
        None if isinstance(chosen, JudgeError) or isinstance(rejected, JudgeError) else (chosen, rejected)
        for chosen, rejected in zip(*sides, strict=True)
    ]


def _scorable(pair: Pair, rejected: bool) -> Scorable:
    text = pair.rejected if rejected else pair.chosen
    images = pair.rejected_images if rejected and pair.rejected_images is not None else pair.images
    return Scorable(images, pair.prompt, f"{pair.context} {text}" if pair.context else text, pair.record_id)


def _finding(pairs: Sequence[Pair], margins: Sequence[float]) -> Finding:
    import numpy

    from veridical.intervals import mean_interval, wilson

    count = len(margins)
    right = sum(margin > 0 for margin in margins)
    low, high = mean_interval(numpy.asarray(margins), [pair.record_id for pair in pairs])
    first, last = (100 * end for end in wilson(right, count))
    mean = sum(margins) / count
    against = tuple(pair.id for pair, margin in zip(pairs, margins, strict=True) if margin < 0)
    numbers = {
        "margin": mean, "margin_low": low, "margin_high": high, "accuracy": 100 * right / count, "low": first,
        "high": last, "pairs": count,
    }  # fmt: skip
    text = (
        f"implicit reward: the model prefers the chosen side in {100 * right / count:.1f} % [{first:.1f}, {last:.1f}] "
        f"of {count} pairs, by {mean:+.2f} nats [{low:+.2f}, {high:+.2f}] on average"
    )
    if count >= FEWEST and last < 50:
        remedy = "look at the pairs below: the sides may be swapped, or the model was trained on the opposite"
        return Finding("margin", "warning", text, remedy, against, numbers=numbers)
    return Finding("margin", "note", text, pairs=against, numbers=numbers)
