"""Log-probabilities of answers, given contexts that were encoded once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from veridical.errors import UserError
from veridical.vlm.inputs.context import name
from veridical.vlm.model.chat import answer_encoding
from veridical.vlm.prefix.encode import Prefix

if TYPE_CHECKING:
    from torch import Tensor

    from veridical.vlm.model.loading import Vlm


IN_FLOAT = 2**25
"""Logits that are cast to fp32 at a time: 128 MiB of them."""


def score(
    vlm: Vlm,
    prefix: Prefix,
    answers: Sequence[Sequence[str]],
    targets: Sequence[Sequence[Tensor | None]] | None = None,
) -> list[list[Tensor]]:
    """Log-probabilities (fp32, one per token, the end-of-turn token last) of each answer of each context.

    `answers[i]` are any number of answers to context i, of any lengths. Answers are tokenised by themselves
    and joined to the prompt by ids. Where `targets` [contexts][answers] holds token ids, as many as the answer
    has, those are scored, each after the answer's own tokens before it. Raises `UserError` for an answer that is
    empty, holds a placeholder, or is too long.
    """
    rows = answer_rows(vlm, prefix, answers)
    if not rows:
        return [[] for _ in answers]
    given = [None] * len(rows) if targets is None else [ids for some in targets for ids in some]
    wanted = [ids if other is None else other.tolist() for (_, ids), other in zip(rows, given, strict=True)]
    flat = iter(_shared(vlm, prefix, rows, wanted) if prefix.shared else _separate(vlm, prefix, rows, wanted))
    return [[next(flat) for _ in texts] for texts in answers]


def likeliest(vlm: Vlm, prefix: Prefix, answers: Sequence[Sequence[str]]) -> list[list[Tensor]]:
    """The token ids [tokens] that the model finds likeliest at each place of each answer of each context.

    Each place follows the answer's own tokens before it (teacher forcing); the last is the end of the turn.
    """
    import torch

    from veridical.vlm.scores import full_forward

    rows = answer_rows(vlm, prefix, answers)
    if not rows or not prefix.shared:
        flat = iter([logits.argmax(-1) for logits in full_forward.answer_logits(vlm, prefix, rows)])
    else:
        first, later = shared_logits(vlm, prefix, rows)
        rest = torch.split(later.argmax(-1), [len(ids) - 1 for _, ids in rows])
        flat = iter([torch.cat(one) for one in zip(first.argmax(-1)[:, None], rest, strict=True)])
    return [[next(flat) for _ in texts] for texts in answers]


def answer_rows(vlm: Vlm, prefix: Prefix, answers: Sequence[Sequence[str]]) -> list[tuple[int, list[int]]]:
    """The context and the token ids of each answer, the end of its turn included."""
    if len(answers) != len(prefix):
        raise ValueError(f"{len(prefix)} contexts were encoded, but answers are given for {len(answers)}")
    rows = [
        (context, answer_ids(vlm, text, prefix.keys[context]))
        for context, texts in enumerate(answers)
        for text in texts
    ]
    _check_lengths(vlm, prefix, rows)
    return rows


def next_token_logprobs(vlm: Vlm, prefix: Prefix, texts: Sequence[str]) -> Tensor:
    """Log-probabilities (fp32) [contexts, texts] of each text's first token as the first of the answer."""
    import torch

    logits = first_logits(vlm, prefix)
    chosen: Tensor = torch.log_softmax(logits.float(), -1)[:, first_ids(vlm, texts)]
    return chosen


def first_logits(vlm: Vlm, prefix: Prefix) -> Tensor:
    """The logits [contexts, vocabulary] of each context's first answer token."""
    from veridical.vlm.prefix.rows import SharedRows
    from veridical.vlm.scores import full_forward

    if prefix.logits is not None:
        return prefix.logits
    if not prefix.shared:
        return full_forward.first_logits(vlm, prefix)
    return SharedRows(vlm, prefix, range(len(prefix)), 0).logits


def first_ids(vlm: Vlm, texts: Sequence[str]) -> list[int]:
    """The id of each text's first token."""
    return [text_ids(vlm, text, ())[0] for text in texts]


def answer_ids(vlm: Vlm, text: str, key: Sequence[str | int] = ()) -> list[int]:
    """Token ids of an answer with the end of its turn; `key` names it in errors."""
    return [*text_ids(vlm, text, key), *vlm.traits.end_ids]


def text_ids(vlm: Vlm, text: str, key: Sequence[str | int]) -> list[int]:
    """Token ids of a piece of an answer, which must not be empty or hold a placeholder."""
    ids, _ = answer_encoding(vlm.tokenizer, vlm.traits.chat, text) if text else ([], [])
    if not ids:
        raise UserError(f"{name(key)}: an answer is empty. Leave it out or give it a text.")
    if found := vlm.traits.placeholder_ids.intersection(ids):
        token = vlm.tokenizer.convert_ids_to_tokens(min(found))
        raise UserError(f"{name(key)}: an answer contains the placeholder {token!r}. Take it out: {text[:80]!r}")
    return ids


def _check_lengths(vlm: Vlm, prefix: Prefix, rows: Sequence[tuple[int, list[int]]]) -> None:
    longest = vlm.traits.max_length
    if longest is None:
        return
    lengths = [one.length + len(prefix.invocation_tokens) for one in prefix.prepared]
    for context, ids in rows:
        if lengths[context] + len(ids) > longest:
            raise UserError(
                f"{name(prefix.keys[context])}: the prompt ({lengths[context]} tokens) and an answer ({len(ids)}) "
                f"exceed the model's {longest} tokens. Shorten the answer or leave the pair out."
            )


def _shared(
    vlm: Vlm, prefix: Prefix, rows: Sequence[tuple[int, list[int]]], targets: Sequence[Sequence[int]]
) -> list[Tensor]:
    import torch

    first_logits, later_logits = shared_logits(vlm, prefix, rows)
    device = first_logits.device
    first = token_logprobs(first_logits, torch.tensor([ids[0] for ids in targets], device=device))
    wanted = torch.tensor([token for ids in targets for token in ids[1:]], dtype=torch.long, device=device)
    later = torch.split(token_logprobs(later_logits, wanted), [len(ids) - 1 for ids in targets])
    return [torch.cat([first[row : row + 1], rest]) for row, rest in enumerate(later)]


def shared_logits(vlm: Vlm, prefix: Prefix, rows: Sequence[tuple[int, list[int]]]) -> tuple[Tensor, Tensor]:
    """Logits of first tokens [rows, vocabulary], the prefix's own prediction unless an opening comes between, and of
    all later tokens [tokens, vocabulary], row after row, from one pass over the branches."""
    import torch

    from veridical.vlm.prefix import forward

    device = prefix.mask.device
    owners = torch.tensor([context for context, _ in rows], device=device)
    first = None if prefix.logits is None else prefix.logits.index_select(0, owners)
    inputs, shown = forward.right_padded([[*prefix.invocation_tokens, *ids[:-1]] for _, ids in rows], device)
    if first is not None and not inputs.shape[1]:
        return first, first[:0]
    wanted = shown.bool()
    wanted[:, : max(len(prefix.invocation_tokens) - 1, 0)] = False
    logits = read_branches(vlm, prefix, owners, inputs, shown, wanted)
    if first is not None:
        return first, logits
    counts = torch.tensor([len(ids) for _, ids in rows], device=device)
    starts = counts.cumsum(0) - counts
    later = torch.ones(len(logits), dtype=torch.bool, device=device).index_fill(0, starts, value=False)
    return logits[starts], logits[later]


def read_branches(vlm: Vlm, prefix: Prefix, owners: Tensor, inputs: Tensor, shown: Tensor, wanted: Tensor) -> Tensor:
    """The logits [kept, vocabulary] at the places `wanted` of token ids `inputs`, each row after its owner's context.

    `owners` [rows] are contexts of a shared prefix; `inputs`, `shown` (1 at tokens, 0 at padding) and `wanted` are
    [rows, longest].
    """
    import torch

    from veridical.vlm.model import families
    from veridical.vlm.prefix import cache as caches
    from veridical.vlm.prefix import forward

    cache = caches.branch_cache(prefix.past, owners)
    places = families.later_positions(prefix.next_position[owners], inputs.shape[1], prefix.positions)
    mask = torch.cat([prefix.mask[owners], shown], -1)
    given = {"input_ids": inputs, "attention_mask": mask}
    given |= families.repeated({key: one[owners] for key, one in prefix.beside.items()}, inputs.shape[1])
    return forward.run(vlm, given, places, cache, logits_to_keep=wanted)


def _separate(
    vlm: Vlm, prefix: Prefix, rows: Sequence[tuple[int, list[int]]], targets: Sequence[Sequence[int]]
) -> list[Tensor]:
    from veridical.vlm.scores import full_forward

    logits = full_forward.answer_logits(vlm, prefix, rows)
    return [token_logprobs(one, one.new_tensor(ids).long()) for one, ids in zip(logits, targets, strict=True)]


def token_logprobs(logits: Tensor, targets: Tensor) -> Tensor:
    """Log-probabilities [tokens] of `targets` [tokens] under `logits` [tokens, vocabulary], summed in fp32.

    Over a large vocabulary only some tokens are in fp32 at a time: with gradients, they are so again in the backward
    pass, which would otherwise keep twice as much as the logits themselves.
    """
    import torch
    from torch.utils.checkpoint import checkpoint

    at_a_time = max(1, IN_FLOAT // logits.shape[-1])
    if len(targets) <= at_a_time:
        return _logprobs(logits, targets)
    parts = zip(torch.split(logits, at_a_time), torch.split(targets, at_a_time), strict=True)
    if not (logits.requires_grad and torch.is_grad_enabled()):
        return torch.cat([_logprobs(some, wanted) for some, wanted in parts])
    return torch.cat([checkpoint(_logprobs, some, wanted, use_reentrant=False) for some, wanted in parts])


def _logprobs(logits: Tensor, targets: Tensor) -> Tensor:
    from torch.nn.functional import cross_entropy

    return -cross_entropy(logits.float(), targets, reduction="none")
