"""The answers of every pair, looked at before hours of work. Nothing is dropped silently."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from veridical.align.types import Answer, Example
from veridical.align.wide import WideParts, whole_text
from veridical.edits import edit_spans
from veridical.objectives.base import Objective, scores_read
from veridical.objectives.token_weights import reads_replaced_tokens, replaced_spans
from veridical.pairs.checks import PairWarning, check_pairs
from veridical.records import FurtherAnswer, ImageFile, Pair, Rejection, Span
from veridical.vlm.model.chat import answer_encoding, special_ids
from veridical.vlm.model.loading import Vlm
from veridical.vlm.scores.scoring import answer_ids

WARNED_ABOUT = 4096
"""Pairs, the first ones, that are looked at for what is suspicious about all."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What training gets of the pairs that were `read`: the usable ones, the others with reasons, how many answers were
    shortened, what is suspicious about the pairs, and how many each construction made."""

    examples: Sequence[Example]
    skipped: tuple[Rejection, ...]
    shortened: int
    read: int
    warnings: tuple[PairWarning, ...] = ()
    constructions: Mapping[str, int] = field(default_factory=dict)

    def reasons(self) -> dict[str, int]:
        """How many pairs were left out, by reason."""
        return dict(sorted(Counter(reject.reason for reject in self.skipped).items()))


def prepare(
    pairs: Iterable[Pair],
    vlm: Vlm,
    max_answer_tokens: int,
    too_long: Literal["shorten", "reject"],
    reads: Sequence[str] = (),
    keep: Callable[[Iterable[Example]], Sequence[Example]] = tuple,
    objective: Objective | None = None,
) -> Prepared:
    """Check the answers of every pair; `keep` puts the usable ones away. Images and prompts come in `first_look`.

    Reasons for leaving a pair out: `empty-answer`, `same-answers`, `special-token-in-answer`, `answer-too-long`; and
    what it lacks that the `objective` needs: `no-NAME` for a score (also one that is among `reads`), `no-others`,
    `no-contrast`, and `no-image` where the objective looks at weakened images.
    """
    wide, replaced = WideParts(objective), reads_replaced_tokens(objective)
    reads = (*reads, *(scores_read(objective) if objective else ()))
    skipped: list[Rejection] = []
    read = shortened = 0
    first: list[Pair] = []
    constructions: Counter[str] = Counter()

    def usable() -> Iterator[Example]:
        nonlocal read, shortened
        for pair in pairs:
            read += 1
            constructions[pair.provenance.construction] += 1
            if len(first) < WARNED_ABOUT:
                first.append(pair)
            made = _unstated(pair, reads) or _example(pair, vlm, max_answer_tokens, too_long, replaced)
            if isinstance(made, Example):
                made = wide.lacking(made) or made
            if isinstance(made, Example):
                wide.count(pair, made)
                sides = ((made.chosen, pair.chosen), (made.rejected, pair.rejected))
                shortened += sum(answer.text != whole_text(pair.context, text) for answer, text in sides)
                yield made
            else:
                reason, remedy, detail = made
                skipped.append(Rejection(pair.id, reason, remedy, detail))

    examples = keep(usable())
    warnings = (*check_pairs(first), *wide.warnings(len(examples)))
    return Prepared(examples, tuple(skipped), shortened, read, warnings, dict(constructions))


_Problem = tuple[str, str, str]  # reason, remedy, detail


def _unstated(pair: Pair, reads: Sequence[str]) -> _Problem | None:
    lacking = next((name for name in reads if name not in pair.provenance.scores), None)
    if lacking is None:
        return None
    remedy = "Take pairs of a construction that states it, or another objective"
    return f"no-{lacking}", remedy, f"the objective reads the pairs' {lacking!r}, and {pair.id} states none"


def _example(
    pair: Pair, vlm: Vlm, limit: int, too_long: Literal["shorten", "reject"], replaced: bool
) -> Example | _Problem:
    if not pair.chosen.strip() or not pair.rejected.strip():
        return "empty-answer", "Give both sides a text", "the chosen or the rejected answer is empty"
    sides = []
    for text in (pair.chosen, pair.rejected):
        answer = _answer(pair, text, vlm, limit, too_long)
        if not isinstance(answer, Answer):
            return answer
        sides.append(answer)
    if sides[0].text == sides[1].text and pair.rejected_images is None:
        cut = sides[0].text != whole_text(pair.context, pair.chosen)
        remedy = "Raise --max-answer-tokens" if cut else "Leave it out: there is nothing to prefer"
        return "same-answers", remedy, "the chosen and the rejected answer are the same"
    spans = pair.spans or edit_spans(pair.chosen, pair.rejected)
    before = len(whole_text(pair.context, ""))
    weights = pair.weights or (1.0, 1.0)
    chosen, rejected = (
        replace(side, edits=_edits(side.text, [(a + before, b + before) for a, b in places], vlm), weight=weight)
        for side, places, weight in zip(sides, (spans.chosen, spans.rejected), weights, strict=True)
    )
    if replaced:
        numbers = replaced_spans(*(answer_ids(vlm, side.text, (pair.id,)) for side in (chosen, rejected)))
        chosen, rejected = replace(chosen, edits=numbers[0]), replace(rejected, edits=numbers[1])
    others, contrast = _further(pair, chosen, vlm, limit, too_long)
    return Example(
        pair.id,
        pair.images,
        pair.prompt,
        chosen,
        replace(rejected, images=pair.rejected_images),
        pair.provenance.scores,
        pair.record_id,
        others,
        contrast,
    )


def _answer(pair: Pair, text: str, vlm: Vlm, limit: int, too_long: Literal["shorten", "reject"]) -> Answer | _Problem:
    """An answer of a pair after the context that it continues, as much of it as `limit` tokens hold."""
    whole = whole_text(pair.context, text)
    fitting = _fitting(whole, vlm, limit)
    if not isinstance(fitting, str):
        return fitting
    if fitting != whole and (too_long == "reject" or len(fitting) <= len(whole_text(pair.context, ""))):
        return "answer-too-long", "Raise --max-answer-tokens", f"an answer has more than {limit} tokens"
    return Answer(fitting, cut=pair.open_ended or fitting != whole, skip=_context_tokens(pair.context, fitting, vlm))


def _context_tokens(context: str, text: str, vlm: Vlm) -> int:
    """How many of a text's tokens belong to the context that it begins with."""
    if not context:
        return 0
    if not vlm.tokenizer.is_fast:
        return len(vlm.tokenizer(context, add_special_tokens=False)["input_ids"])
    _, tokens = answer_encoding(vlm.tokenizer, vlm.traits.chat, text)
    return sum(end <= len(context) for _, end in tokens)


def _further(
    pair: Pair, chosen: Answer, vlm: Vlm, limit: int, too_long: Literal["shorten", "reject"]
) -> tuple[tuple[Answer, ...], tuple[ImageFile, ...] | None]:
    """Further rejected answers that can be used; and images of which the chosen answer isn't true: those of a further
    answer with the same text, or else the rejected side's own."""
    others: list[Answer] = []
    contrast = pair.rejected_images
    for further in pair.others:
        if further.text == pair.chosen and further.images is not None:
            contrast = further.images
        elif usable := _usable(pair, further, chosen, vlm, limit, too_long):
            others.append(usable)
    return tuple(others), contrast


def _usable(
    pair: Pair, other: FurtherAnswer, chosen: Answer, vlm: Vlm, limit: int, too_long: Literal["shorten", "reject"]
) -> Answer | None:
    answer = _answer(pair, other.text, vlm, limit, too_long) if other.text.strip() else None
    if not isinstance(answer, Answer) or (answer.text == chosen.text and other.images is None):
        return None
    return replace(answer, images=other.images, weight=1.0 if other.weight is None else other.weight)


def _edits(text: str, spans: Sequence[Span], vlm: Vlm) -> tuple[int, ...]:
    """For each token the number of the span that it touches, from 1, or 0."""
    if not vlm.tokenizer.is_fast:
        return ()
    _, tokens = answer_encoding(vlm.tokenizer, vlm.traits.chat, text)
    numbered = list(enumerate(spans, start=1))
    return tuple(next((n for n, (a, b) in numbered if start < b and a < end), 0) for start, end in tokens)


def _fitting(text: str, vlm: Vlm, limit: int) -> str | _Problem:
    """The text, or as much of its beginning as `limit` tokens hold."""
    tokenizer = vlm.tokenizer
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if special := (special_ids(tokenizer) | vlm.traits.placeholder_ids).intersection(ids):
        named = ", ".join(tokenizer.convert_ids_to_tokens(sorted(special)))
        return "special-token-in-answer", "Take it out of the text", f"an answer holds {named}"
    if len(ids) <= limit:
        return text
    # Tokens may end inside a character, which decodes to something that is not in the text.
    return _common_start(text, tokenizer.decode(ids[:limit]))


def _common_start(text: str, other: str) -> str:
    length = next((i for i, pair in enumerate(zip(text, other, strict=False)) if pair[0] != pair[1]), len(other))
    return text[:length]
