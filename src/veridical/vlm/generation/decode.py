"""The decoding loop: all branches step together, and leave the batch as they finish."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from veridical.errors import UserError
from veridical.vlm import seeds
from veridical.vlm.generation import contrast, token_choice
from veridical.vlm.generation.params import Branch, Sampled, SamplingParams
from veridical.vlm.generation.rules import Rules, rules_of
from veridical.vlm.generation.stepping import Row, Stepper
from veridical.vlm.inputs.context import name
from veridical.vlm.prefix.encode import Prefix
from veridical.vlm.prefix.packed_rows import PackedRows, can_pack
from veridical.vlm.prefix.rows import SharedRows
from veridical.vlm.scores import full_forward, scoring

if TYPE_CHECKING:
    from veridical.vlm.model.loading import Vlm

# Rows that have finished go on as ballast until they are this share of the batch: taking them out copies the cache.
_BALLAST = 0.2


def decode(vlm: Vlm, prefix: Prefix, branches: Sequence[Branch], sampling: SamplingParams) -> list[Sampled]:
    """See `sampling.sample`; runs without gradients, in evaluation mode."""
    if sampling.decoding is None:
        rows = [begin(vlm, [prefix], branch, sampling) for branch in branches]
        contexts = [row.branch.context for row in rows]
        longest = max(row.limit for row in rows)
        if prefix.shared and not any(row.after_ids for row in rows) and can_pack(vlm, prefix, contexts, longest):
            stepper: Stepper = PackedRows(vlm, prefix, contexts, longest)
        else:
            stepper = _stepper(vlm, prefix, rows, sampling)
        return _decode(vlm, rows, stepper, sampling, rules_of(vlm, prefix))
    with contrast.streams(vlm, prefix, sampling.decoding) as (prefixes, early_layers):
        rows = [begin(vlm, prefixes, branch, sampling) for branch in branches]
        written = torch.tensor([len(row.after_ids) for row in rows], device=prefix.mask.device)
        steppers = [_stepper(vlm, one, rows, sampling) for one in prefixes]
        together = contrast.Together(sampling.decoding, steppers, early_layers, written)
        return _decode(vlm, rows, together, sampling, rules_of(vlm, prefix))


def _decode(
    vlm: Vlm, rows: Sequence[Row], stepper: Stepper, sampling: SamplingParams, rules: Rules | None
) -> list[Sampled]:
    running = list(rows)
    while True:
        uniforms = torch.stack([row.uniforms[min(len(row.ids), row.limit - 1)] for row in running])
        logits = stepper.logits.float()
        logits = logits if rules is None else rules(logits, running)
        if sampling.diversity:
            groups = [(row.branch.context, tuple(row.after_ids)) for row in running]
            going_on = [row.sampled is None for row in running]
            tokens = token_choice.choose_apart(
                token_choice.allowed(logits, sampling), groups, going_on, sampling.diversity
            )
        else:
            tokens = token_choice.choose(logits, uniforms, sampling)
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


def begin(vlm: Vlm, prefixes: Sequence[Prefix], branch: Branch, sampling: SamplingParams) -> Row:
    """A branch of which nothing is decoded yet. Raises `UserError` for one that leaves the model no room."""
    after = scoring.text_ids(vlm, branch.after, branch.key) if branch.after else []
    limit = sampling.max_new_tokens
    if vlm.traits.max_length is not None:
        prompt = max(prefix.prepared[branch.context].length + len(prefix.invocation_tokens) for prefix in prefixes)
        limit = min(limit, vlm.traits.max_length - prompt - len(after))
    if limit < 1:
        raise UserError(
            f"{name(branch.key)}: the prompt and the text to continue fill all of the model's {vlm.traits.max_length} "
            "tokens. Shorten them."
        )
    drawn = seeds.generator("sample", branch.key).random(limit) if sampling.temperature else [0.0] * limit
    return Row(branch, after, limit, torch.as_tensor(drawn, dtype=torch.float64))


def append(vlm: Vlm, row: Row, token: int, sampling: SamplingParams) -> None:
    """Add a token to a row, and what was sampled if that ends it."""
    if token in vlm.traits.stop_ids:
        row.sampled = Sampled(_text(vlm, row), "turn", len(row.ids), (*row.ids, token))
        return
    row.ids.append(token)
    if sampling.stop:
        text = _text(vlm, row)
        ends = [text.find(stop) + len(stop) for stop in sampling.stop if stop in text]
        if ends:
            row.sampled = Sampled(text[: min(ends)], "stop", len(row.ids), tuple(row.ids))
    if row.sampled is None and len(row.ids) == row.limit:
        row.sampled = Sampled(_text(vlm, row), "length", len(row.ids), tuple(row.ids))


def _text(vlm: Vlm, row: Row) -> str:
    """Decode the new tokens after the text before them, since some tokenizers' spaces depend on it."""
    if not row.after_ids:
        return _decoded(vlm, row.ids).removeprefix(vlm.traits.chat.lead)
    before = _decoded(vlm, row.after_ids)
    whole = _decoded(vlm, row.after_ids + row.ids)
    return whole[len(before) :] if whole.startswith(before) else _decoded(vlm, row.ids)


def _decoded(vlm: Vlm, ids: list[int]) -> str:
    return str(vlm.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def _stepper(vlm: Vlm, prefix: Prefix, rows: Sequence[Row], sampling: SamplingParams) -> Stepper:
    """The rows, ready to predict the first of their new tokens."""
    if not prefix.shared:
        return SeparateRows(vlm, prefix, [row.branch.context for row in rows], [row.after_ids for row in rows])
    longest_after = max(len(row.after_ids) for row in rows)
    room = longest_after + sampling.max_new_tokens
    if not longest_after or not prefix.takes_ragged_texts:
        # A row that continues a text is fed that text, a token a step.
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
    """Rows of one branch, each after what it has written so far, all of equal length."""
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
        """One row for each of `contexts`, after a text of its own."""
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
