"""The decoding loop: all branches step together, and leave the batch as they finish."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from veridical.errors import UserError
from veridical.vlm import seeds
from veridical.vlm.generation import contrast, token_choice
from veridical.vlm.generation.generate import Branch, Sampled, SamplingParams
from veridical.vlm.inputs.context import name
from veridical.vlm.model import families
from veridical.vlm.prefix import cache as caches
from veridical.vlm.prefix import forward
from veridical.vlm.prefix.encode import Prefix
from veridical.vlm.scores import full_forward, scoring

if TYPE_CHECKING:
    from veridical.vlm.model.loading import Vlm

# Rows that have finished go on as ballast until they are this share of the batch: taking them out copies the cache.
_BALLAST = 0.2


class Stepper(Protocol):
    """Rows that can be advanced by a token each."""

    @property
    def logits(self) -> Tensor:
        """[rows, vocabulary]: the prediction of each row's next token."""

    def advance(self, tokens: Tensor) -> None:
        """Append `tokens` [rows] and predict the next ones."""

    def keep_rows(self, rows: Tensor) -> None:
        """Drop all rows but `rows` (int64 indices); one that is named several times forks."""


@dataclass
class Row:
    """A branch while it is decoded; `pending` is what it goes on from that the model has still to be shown."""

    branch: Branch
    after_ids: list[int]
    limit: int
    uniforms: Tensor
    pending: list[int] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    sampled: Sampled | None = None


def decode(vlm: Vlm, prefix: Prefix, branches: Sequence[Branch], sampling: SamplingParams) -> list[Sampled]:
    """See `sampling.sample`; runs without gradients, in evaluation mode."""
    if sampling.decoding is None:
        rows = [begin(vlm, [prefix], branch, sampling) for branch in branches]
        return _decode(vlm, rows, _stepper(vlm, prefix, rows, sampling), sampling)
    with contrast.streams(vlm, prefix, sampling.decoding) as (prefixes, exits):
        rows = [begin(vlm, prefixes, branch, sampling) for branch in branches]
        written = torch.tensor([len(row.after_ids) for row in rows], device=prefix.mask.device)
        steppers = [_stepper(vlm, one, rows, sampling) for one in prefixes]
        return _decode(vlm, rows, contrast.Together(sampling.decoding, steppers, exits, written), sampling)


def _decode(vlm: Vlm, rows: Sequence[Row], stepper: Stepper, sampling: SamplingParams) -> list[Sampled]:
    running = list(rows)
    while True:
        uniforms = torch.stack([row.uniforms[min(len(row.ids), row.limit - 1)] for row in running])
        tokens = token_choice.choose(stepper.logits.float(), uniforms, sampling)
        for index, (row, token) in enumerate(zip(running, tokens.tolist(), strict=True)):
            if row.pending:
                tokens[index] = row.pending.pop(0)
            elif row.sampled is None:
                append(vlm, row, token, sampling)
        unfinished = [index for index, row in enumerate(running) if row.sampled is None]
        if not unfinished:
            break
        if len(unfinished) <= (1 - _BALLAST) * len(running):
            keep = torch.tensor(unfinished, device=tokens.device)
            stepper.keep_rows(keep)
            tokens, running = tokens[keep], [running[index] for index in unfinished]
        stepper.advance(tokens)
    return [row.sampled for row in rows if row.sampled is not None]


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """All modules in evaluation mode; afterwards each is in the mode it was in."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def begin(vlm: Vlm, prefixes: Sequence[Prefix], branch: Branch, sampling: SamplingParams) -> Row:
    """A branch of which nothing is decoded yet. Raises `UserError` for one that leaves the model no room."""
    after = scoring.text_ids(vlm, branch.after, branch.key) if branch.after else []
    limit = sampling.max_new_tokens
    if vlm.traits.longest is not None:
        prompt = max(prefix.prepared[branch.context].length + len(prefix.opening) for prefix in prefixes)
        limit = min(limit, vlm.traits.longest - prompt - len(after))
    if limit < 1:
        raise UserError(
            f"{name(branch.key)}: the prompt and the text to continue fill all of the model's {vlm.traits.longest} "
            "tokens. Shorten them."
        )
    drawn = seeds.generator("sample", branch.key).random(limit) if sampling.temperature else [0.0] * limit
    return Row(branch, after, limit, torch.as_tensor(drawn, dtype=torch.float64))


def append(vlm: Vlm, row: Row, token: int, sampling: SamplingParams) -> None:
    """Add a token to a row, and what was sampled if that ends it."""
    if token in vlm.traits.stop_ids:
        row.sampled = Sampled(_text(vlm, row), "turn", len(row.ids))
        return
    row.ids.append(token)
    if sampling.stop:
        text = _text(vlm, row)
        ends = [text.find(stop) + len(stop) for stop in sampling.stop if stop in text]
        if ends:
            row.sampled = Sampled(text[: min(ends)], "stop", len(row.ids))
    if row.sampled is None and len(row.ids) == row.limit:
        row.sampled = Sampled(_text(vlm, row), "length", len(row.ids))


def _text(vlm: Vlm, row: Row) -> str:
    """The new tokens as text; decoded behind the text before them, on which some tokenizers' spaces depend."""
    before = _decoded(vlm, row.after_ids)
    whole = _decoded(vlm, row.after_ids + row.ids)
    return whole[len(before) :] if whole.startswith(before) else _decoded(vlm, row.ids)


def _decoded(vlm: Vlm, ids: list[int]) -> str:
    return str(vlm.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def first_logits(vlm: Vlm, prefix: Prefix) -> Tensor:
    """The logits [contexts, vocabulary] of each context's first answer token."""
    if prefix.logits is not None:
        return prefix.logits
    if not prefix.shared:
        return full_forward.first_logits(vlm, prefix)
    return SharedRows(vlm, prefix, range(len(prefix)), 0).logits


class SharedRows:
    """Rows that go on from a shared prefix, with a growing cache."""

    def __init__(self, vlm: Vlm, prefix: Prefix, contexts: Sequence[int], room: int) -> None:
        """One row for each of `contexts`, with room for `room` further tokens."""
        owners = torch.tensor(contexts, device=prefix.mask.device)
        past = [layer.rows(owners) for layer in prefix.past]
        self.vlm = vlm
        self.like = prefix.positions
        self.mask = prefix.mask[owners]
        self.next_position = prefix.next_position[owners]
        self.beside = {key: one[owners] for key, one in prefix.beside.items()}
        self.cache = caches.decoding_cache(past, room + len(prefix.opening))
        if prefix.opening:
            opening = torch.tensor([prefix.opening] * len(contexts), device=prefix.mask.device)
            self.logits = self._extend(opening, torch.ones_like(opening), 1)[:, -1]
        else:
            assert prefix.logits is not None
            self.logits = prefix.logits[owners]

    def advance(self, tokens: Tensor) -> None:
        """Append one token to each row."""
        self.logits = self._extend(tokens[:, None], torch.ones_like(tokens)[:, None], 1)[:, -1]

    def append_texts(self, texts: Sequence[Sequence[int]], branches: Sequence[tuple[int, int]] | None = None) -> None:
        """Append a text of its own to each row, of any length (0 too).

        Given `branches`, pairs of a row and a length, these are the rows from then on: each with so many of the first
        tokens of that row's text. Rows are padded on the right for this and then shifted, so that they end together
        again: a gap inside a row would be counted by sliding windows.
        """
        pairs = [(row, len(text)) for row, text in enumerate(texts)] if branches is None else branches
        # Logits are wanted at the last token of every branch only, so each row has a list of places to keep.
        ends: list[list[int]] = [[] for _ in texts]
        slots = []
        for row, length in pairs:
            slots.append(len(ends[row]))
            ends[row].append(max(length - 1, 0))
        device = self.mask.device
        ids, shown = forward.right_padded(texts, device)
        owners, lengths = torch.tensor(pairs, device=device).unbind(-1)
        read = self._extend(ids, shown, forward.right_padded(ends, device)[0])
        if branches is not None:
            self.keep_rows(owners)
        self.logits = torch.where(lengths[:, None] > 0, read[owners, torch.tensor(slots, device=device)], self.logits)
        self._shift_right(ids.shape[1] - lengths)

    def _shift_right(self, shifts: Tensor) -> None:
        """Take the last `shifts` [rows] tokens off each row, so that all end together."""
        self.next_position = self.next_position - shifts
        for layer in self.cache.layers:
            layer.roll_rows(shifts)
        places = torch.arange(self.mask.shape[1], device=self.mask.device) - shifts[:, None]
        self.mask = self.mask.gather(1, places % self.mask.shape[1]).masked_fill(places < 0, 0)

    def keep_rows(self, rows: Tensor) -> None:
        """Drop all rows but `rows`."""
        self.mask, self.next_position, self.logits = (
            self.mask[rows],
            self.next_position[rows],
            self.logits[rows],
        )
        self.beside = {key: one[rows] for key, one in self.beside.items()}
        for layer in self.cache.layers:
            layer.keep_rows(rows)

    def past(self) -> list[caches.LayerPast]:
        """What each layer keeps of the rows so far."""
        return [caches.kept_so_far(layer) for layer in self.cache.layers]

    def _extend(self, ids: Tensor, shown: Tensor, logits_to_keep: int | Tensor) -> Tensor:
        self.mask = torch.cat([self.mask, shown], -1)
        places = families.later_positions(self.next_position, ids.shape[1], self.like)
        inputs = {"input_ids": ids, "attention_mask": self.mask, **families.repeated(self.beside, ids.shape[1])}
        logits = forward.run(self.vlm, inputs, places, self.cache, logits_to_keep)
        self.next_position = self.next_position + ids.shape[1]
        return logits


def _stepper(vlm: Vlm, prefix: Prefix, rows: Sequence[Row], sampling: SamplingParams) -> Stepper:
    """The rows, ready to predict the first of their new tokens."""
    if not prefix.shared:
        return SeparateRows(vlm, prefix, [row.branch.context for row in rows], [row.after_ids for row in rows])
    longest_after = max(len(row.after_ids) for row in rows)
    room = longest_after + sampling.max_new_tokens
    if not longest_after or not prefix.takes_ragged_texts:
        # Where a row has a text to go on from, it is shown that a token at a step.
        for row in rows:
            row.pending = list(row.after_ids)
        return SharedRows(vlm, prefix, [row.branch.context for row in rows], room)
    readers = _readers(rows)
    reading = sorted(set(readers))
    stepper = SharedRows(vlm, prefix, [rows[index].branch.context for index in reading], room)
    places = {index: place for place, index in enumerate(reading)}
    branches = [(places[reader], len(row.after_ids)) for reader, row in zip(readers, rows, strict=True)]
    stepper.append_texts([rows[index].after_ids for index in reading], branches)
    return stepper


def going_on(vlm: Vlm, prefix: Prefix, rows: Sequence[Row]) -> Stepper:
    """Rows of one branch, each behind what it has written so far, all equally much."""
    texts = [[*row.after_ids, *row.ids] for row in rows]
    contexts = [row.branch.context for row in rows]
    if not prefix.shared:
        return SeparateRows(vlm, prefix, contexts, texts)
    stepper = SharedRows(vlm, prefix, contexts, len(rows[0].after_ids) + rows[0].limit)
    for tokens in zip(*texts, strict=True):
        stepper.advance(torch.tensor(tokens, device=prefix.mask.device))
    return stepper


def _readers(rows: Sequence[Row]) -> list[int]:
    """For each row the one that reads its text: itself, unless another text of its context begins with it."""
    readers = list(range(len(rows)))
    # Backwards, a text comes right after the longer ones that begin with it.
    backwards = sorted(readers, key=lambda one: (rows[one].branch.context, rows[one].after_ids), reverse=True)
    reader = backwards[0]
    for index in backwards:
        if not _reads(rows[reader], rows[index]):
            reader = index
        readers[index] = reader
    return readers


def _reads(reader: Row, row: Row) -> bool:
    """Whether the text of `reader` begins with that of `row`, in the same context."""
    begins_so = reader.after_ids[: len(row.after_ids)] == row.after_ids
    return reader.branch.context == row.branch.context and begins_so


class SeparateRows:
    """Rows that are run in full at every step, for models whose prefix can't be shared."""

    def __init__(self, vlm: Vlm, prefix: Prefix, contexts: Sequence[int], texts: Sequence[Sequence[int]]) -> None:
        """One row for each of `contexts`, behind a text of its own."""
        self.vlm = vlm
        self.prefix = prefix
        self.rows = [(context, list(ids)) for context, ids in zip(contexts, texts, strict=True)]
        self.logits = self._predict()

    def advance(self, tokens: Tensor) -> None:
        """Append one token to each row."""
        for (_, ids), token in zip(self.rows, tokens.tolist(), strict=True):
            ids.append(token)
        self.logits = self._predict()

    def keep_rows(self, rows: Tensor) -> None:
        """Drop all rows but `rows`."""
        self.rows = [(context, list(ids)) for context, ids in (self.rows[index] for index in rows.tolist())]
        self.logits = self.logits[rows]

    def _predict(self) -> Tensor:
        # The last id only marks the place to predict: `answer_logits` never shows it to the model.
        marked = [(context, [*ids, 0]) for context, ids in self.rows]
        return torch.stack([logits[-1] for logits in full_forward.answer_logits(self.vlm, self.prefix, marked)])
