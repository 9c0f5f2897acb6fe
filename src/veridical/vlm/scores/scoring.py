"""Log-probabilities of answers, given contexts that were encoded once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from veridical.errors import UserError
from veridical.vlm.inputs.context import name
from veridical.vlm.model.chat import answer_encoding
from veridical.vlm.prefix.encode import Prefix

if TYPE_CHECKING:
    from torch import Tensor

    from veridical.vlm.model.loading import Vlm
    from veridical.vlm.scores.output_layer import Take


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
    from veridical.vlm.scores import full_forward

    rows = answer_rows(vlm, prefix, answers)
    if not rows or not prefix.shared:
        flat = iter([logits.argmax(-1) for logits in full_forward.answer_logits(vlm, prefix, rows)])
    else:
        own = [ids for _, ids in rows]
        flat = iter(shared_scores(vlm, prefix, rows, own, lambda logits, _: (logits.argmax(-1),))[0])
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
    return shared_scores(vlm, prefix, rows, targets, lambda logits, ids: (_logprobs(logits, ids),))[0]


def shared_scores(
    vlm: Vlm, prefix: Prefix, rows: Sequence[tuple[int, list[int]]], targets: Sequence[Sequence[int]], take: Take
) -> tuple[list[Tensor], ...]:
    """What `take` makes of the logits that predict `targets`, as many token ids as each answer has, from one pass over
    the branches: for each thing that it takes, a tensor [tokens] an answer.

    Over a large vocabulary there are only some tokens' logits at a time, in the backward pass too.
    """
    import torch

    from veridical.vlm.scores.output_layer import in_parts, taken_of_pass

    device = prefix.mask.device
    owners, inputs, shown, wanted = _branches(prefix, rows)
    skipped = 0 if prefix.logits is None else 1
    ids = torch.tensor([token for row in targets for token in row[skipped:]], dtype=torch.long, device=device)
    read: tuple[Tensor, ...] | None = None
    if len(ids):
        run = partial(read_branches, vlm, prefix, owners, inputs, shown, wanted)
        read = taken_of_pass(vlm, run, ids, take)
    if prefix.logits is None:
        assert read is not None
        return tuple(list(torch.split(one, [len(row) for row in targets])) for one in read)
    firsts = torch.tensor([row[0] for row in targets], dtype=torch.long, device=device)
    logits = prefix.logits.index_select(0, owners)
    first = in_parts(take, logits, firsts, logits.shape[-1])
    later = read or tuple(one[:0] for one in first)
    counts = [len(row) - 1 for row in targets]
    return tuple(
        [torch.cat([one[row : row + 1], rest]) for row, rest in enumerate(torch.split(others, counts))]
        for one, others in zip(first, later, strict=True)
    )


def _branches(prefix: Prefix, rows: Sequence[tuple[int, list[int]]]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The context of each answer; token ids to read, which of them are no padding, and after which to predict."""
    import torch

    from veridical.vlm.prefix import forward

    device = prefix.mask.device
    owners = torch.tensor([context for context, _ in rows], device=device)
    inputs, shown = forward.right_padded([[*prefix.invocation_tokens, *ids[:-1]] for _, ids in rows], device)
    wanted = shown.bool()
    wanted[:, : max(len(prefix.invocation_tokens) - 1, 0)] = False
    return owners, inputs, shown, wanted


def shared_logits(vlm: Vlm, prefix: Prefix, rows: Sequence[tuple[int, list[int]]]) -> tuple[Tensor, Tensor]:
    """Logits of first tokens [rows, vocabulary], the prefix's own prediction unless an opening comes between, and of
    all later tokens [tokens, vocabulary], row after row, from one pass over the branches."""
    import torch

    owners, inputs, shown, wanted = _branches(prefix, rows)
    device = inputs.device
    first = None if prefix.logits is None else prefix.logits.index_select(0, owners)
    if first is not None and not inputs.shape[1]:
        return first, first[:0]
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
    import torch

    from veridical.vlm.scores import full_forward

    logits = full_forward.answer_logits(vlm, prefix, rows)
    # Never by way of the logits' own type: bfloat16 has no 257.
    return [token_logprobs(one, torch.tensor(ids, device=one.device)) for one, ids in zip(logits, targets, strict=True)]


def token_logprobs(logits: Tensor, targets: Tensor) -> Tensor:
    """Log-probabilities [tokens] of `targets` [tokens] under `logits` [tokens, vocabulary], summed in fp32.

    Over a large vocabulary only some tokens are in fp32 at a time: with gradients, they are so again in the backward
    pass, which would otherwise keep twice as much as the logits themselves.
    """
    from veridical.vlm.scores.output_layer import in_parts

    return in_parts(lambda some, wanted: (_logprobs(some, wanted),), logits, targets, logits.shape[-1])[0]


def _logprobs(logits: Tensor, targets: Tensor) -> Tensor:
    from torch.nn.functional import cross_entropy

    return -cross_entropy(logits.float(), targets, reduction="none")
