"""The answers of every pair, looked at before hours of work. Nothing is dropped silently."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from veridical.align.types import Answer, Example
from veridical.edits import edit_spans
from veridical.pairs.checks import PairWarning, check_pairs
from veridical.records import Pair, Rejection, Span
from veridical.vlm.model.chat import answer_encoding, special_ids
from veridical.vlm.model.loading import Vlm

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
) -> Prepared:
    """Check the answers of every pair; `keep` puts the usable ones away. Images and prompts come in `first_look`.

    Reasons for leaving a pair out: `empty-answer`, `same-answers`, `special-token-in-answer`, `answer-too-long`, and
    `no-NAME` for pairs without a score that the objective `reads`.
    """
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
            made = _unstated(pair, reads) or _example(pair, vlm, max_answer_tokens, too_long)
            if isinstance(made, Example):
                shortened += (made.chosen.text != pair.chosen) + (made.rejected.text != pair.rejected)
                yield made
            else:
                reason, remedy, detail = made
                skipped.append(Rejection(pair.id, reason, remedy, detail))

    examples = keep(usable())
    return Prepared(examples, tuple(skipped), shortened, read, tuple(check_pairs(first)), dict(constructions))


_Problem = tuple[str, str, str]  # reason, remedy, detail


def _unstated(pair: Pair, reads: Sequence[str]) -> _Problem | None:
    lacking = next((name for name in reads if name not in pair.provenance.scores), None)
    if lacking is None:
        return None
    remedy = "Take pairs of a construction that states it, or another objective"
    return f"no-{lacking}", remedy, f"the objective reads the pairs' {lacking!r}, and {pair.id} states none"


def _example(pair: Pair, vlm: Vlm, limit: int, too_long: Literal["shorten", "reject"]) -> Example | _Problem:
    if not pair.chosen.strip() or not pair.rejected.strip():
        return "empty-answer", "Give both sides a text", "the chosen or the rejected answer is empty"
    texts = []
    for whole in (pair.chosen, pair.rejected):
        text = _fitting(whole, vlm, limit)
        if not isinstance(text, str):
            return text
        if text != whole and too_long == "reject":
            return "answer-too-long", "Raise --max-answer-tokens", f"an answer has more than {limit} tokens"
        texts.append(text)
    if texts[0] == texts[1]:
        cut = texts[0] != pair.chosen
        remedy = "Raise --max-answer-tokens" if cut else "Leave it out: there is nothing to prefer"
        return "same-answers", remedy, "the chosen and the rejected answer are the same"
    spans = pair.spans or edit_spans(pair.chosen, pair.rejected)
    chosen, rejected = (
        Answer(text, cut=pair.open_ended or text != whole, edits=_edits(text, places, vlm))
        for text, whole, places in zip(texts, (pair.chosen, pair.rejected), (spans.chosen, spans.rejected), strict=True)
    )
    return Example(pair.id, pair.images, pair.prompt, chosen, rejected, pair.provenance.scores, pair.record_id)


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
