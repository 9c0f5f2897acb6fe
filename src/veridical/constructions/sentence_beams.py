"""CSR's search, arXiv 2405.14622, section 3 and released code: answers grown sentence by sentence, scored on the way.

From every beginning that is followed, several next sentences are drawn. Among those of one beginning each sentence has
two ranks, the best 1/n and the worst n/n: by the likelihood of the text so far (the sum of its sentences' mean
log-probabilities per token), and by how well the sentence alone fits the image, which a judge rates (CLIP's image-text
similarity in the paper). A path's value is the mean over its sentences, the beginning counted too, of

    weight * rank by likelihood + (1 - weight) * rank by the judge,       weight 0.1 in the released code;

lower is better. As in the released code both likely and unlikely beginnings are followed, so that there is something to
reject. It finds next sentences by group beam search with a diversity penalty of 3, one beam a group; so does
`diversity`, and without it they are samples. Its likelihoods count the penalties, ours don't.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from veridical.constructions.protocol import Answer, Key, LogProbs, Request, Sample, Score
from veridical.judges.interface import Rate
from veridical.judges.tokens import FULL_STOPS
from veridical.records import Record
from veridical.vlm.generation.params import SamplingParams
from veridical.vlm.inputs.context import Context


@dataclass(frozen=True, slots=True)
class Path:
    """A text so far: its likelihood, the sum of its ranks, its number of sentences, and whether it is an answer."""

    text: str = ""
    likelihood: float = 0.0
    ranks: float = 0.0
    sentences: int = 0
    final: bool = False

    @property
    def value(self) -> float:
        """The mean of its ranks; lower is better."""
        return self.ranks / (self.sentences + 1)


def grow(
    record: Record, context: Context, sampling: SamplingParams, key: Key, beams: int, most: int, weight: float
) -> Generator[Request, Any, list[Path]]:
    """The answers that are found within `most` sentences, `beams` next sentences at a time."""
    active, answers = [Path()], []
    for level in range(most):
        drawn = yield from _drawn(context, sampling, (*key, level), active, beams)
        grown: list[Path] = []
        for path, sentences in zip(active, drawn, strict=True):
            if any(not sentence.text.strip() for sentence in sentences) and path.text:
                answers.append(_ended(path))
            children = [sentence for sentence in sentences if sentence.text.strip()]
            grown += yield from _ranked(record, context, path, children, weight)
        last = level == most - 1
        answers += [_ended(path) for path in grown if path.final or last]
        active = followed([path for path in grown if not path.final], beams)
        if not active:
            break
    return answers


def followed(paths: Sequence[Path], beams: int) -> list[Path]:
    """The beginnings to continue: all, or of as many as there are beams and more, likely and unlikely ones."""
    ordered = sorted(paths, key=lambda path: -path.likelihood)
    if len(ordered) < beams:
        return ordered
    best, worst = max(beams // 2 - 1, 1), max(beams // 2, 1)
    return [*ordered[:best], *ordered[-worst:]]


def _drawn(
    context: Context, sampling: SamplingParams, key: Key, active: Sequence[Path], beams: int
) -> Generator[Request, Any, list[list[Answer]]]:
    """For each beginning the distinct next sentences; an empty one says that the model ended its turn there."""
    sampled: list[Answer] = yield Sample(
        context,
        keys=tuple((*key, place, beam) for place in range(len(active)) for beam in range(beams)),
        sampling=replace(sampling, stop=FULL_STOPS),
        after=tuple(path.text for path in active for _ in range(beams)),
    )
    rows = [sampled[start : start + beams] for start in range(0, len(sampled), beams)]
    return [list({one.text: one for one in row if one.finished}.values()) for row in rows]


def _ranked(
    record: Record, context: Context, path: Path, sentences: Sequence[Answer], weight: float
) -> Generator[Request, Any, list[Path]]:
    """The beginning with each of some next sentences."""
    if not sentences:
        return []
    texts = tuple((path.text + sentence.text).strip() for sentence in sentences)
    before = (path.text,) if path.text else ()
    scored: list[LogProbs] = yield Score(context, (*before, *texts))
    known = scored[0].policy[:-1] if before else ()
    likelihoods = [path.likelihood + _gained(one.policy[:-1], known) for one in scored[len(before) :]]
    fits: list[float] = []
    for one in sentences:
        fits.append((yield Rate(record, record.prompt, one.text.strip())))
    return [
        Path(text, likelihood, path.ranks + weight * by_model + (1 - weight) * by_judge, path.sentences + 1, final)
        for text, likelihood, by_model, by_judge, final in zip(
            texts,
            likelihoods,
            ranks(likelihoods),
            ranks(fits),
            (not _stopped(sentence) for sentence in sentences),
            strict=True,
        )
    ]


def ranks(values: Sequence[float]) -> list[float]:
    """For each value its place among all, the highest first, over their number; of equals the first comes first."""
    order = sorted(range(len(values)), key=lambda place: -values[place])
    return [(order.index(place) + 1) / len(values) for place in range(len(values))]


def _gained(tokens: Sequence[float], known: Sequence[float]) -> float:
    """The mean log-probability of a sentence's tokens, by those of the text with it and without it."""
    return (sum(tokens) - sum(known)) / max(len(tokens) - len(known), 1)


def _stopped(sentence: Answer) -> bool:
    return sentence.text.rstrip().endswith(FULL_STOPS)


def _ended(path: Path) -> Path:
    return Path(path.text, path.likelihood, path.ranks, path.sentences, final=True)
