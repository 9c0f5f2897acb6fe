"""Log-probabilities of answers, given contexts that were encoded once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from veridical.errors import UserError
from veridical.vlm.inputs import name
from veridical.vlm.prefix import Prefix

if TYPE_CHECKING:
    from torch import Tensor

    from veridical.vlm.loading import Vlm


def score(vlm: Vlm, prefix: Prefix, answers: Sequence[Sequence[str]]) -> list[list[Tensor]]:
    """Log-probabilities (fp32, one per token, the end-of-turn token last) of each answer of each context.

    `answers[i]` are any number of answers to context i, of any lengths. Answers are tokenised by themselves
    and joined to the prompt by ids. Raises `UserError` for an answer that is empty, holds a placeholder, or
    is too long.
    """
    if len(answers) != len(prefix):
        raise ValueError(f"{len(prefix)} contexts were encoded, but answers are given for {len(answers)}")
    rows = [
        (context, answer_ids(vlm, text, prefix.keys[context]))
        for context, texts in enumerate(answers)
        for text in texts
    ]
    if not rows:
        return [[] for _ in answers]
    _check_lengths(vlm, prefix, rows)
    flat = iter(_shared(vlm, prefix, rows) if prefix.shared else _separate(vlm, prefix, rows))
    return [[next(flat) for _ in texts] for texts in answers]


def next_token_logprobs(vlm: Vlm, prefix: Prefix, texts: Sequence[str]) -> Tensor:
    """Log-probabilities (fp32) [contexts, texts] of each text's first token as the first of the answer."""
    import torch

    from veridical.vlm import separate

    firsts = [text_ids(vlm, text, ())[0] for text in texts]
    logits = prefix.logits if prefix.logits is not None else separate.first_logits(vlm, prefix)
    chosen: Tensor = torch.log_softmax(logits.float(), -1)[:, firsts]
    return chosen


def answer_ids(vlm: Vlm, text: str, key: Sequence[str | int] = ()) -> list[int]:
    """Token ids of an answer with the end of its turn; `key` names it in errors."""
    return [*text_ids(vlm, text, key), *vlm.traits.end_ids]


def text_ids(vlm: Vlm, text: str, key: Sequence[str | int]) -> list[int]:
    """Token ids of a piece of an answer, which must not be empty or hold a placeholder."""
    ids: list[int] = vlm.tokenizer(text, add_special_tokens=False).input_ids
    if not ids:
        raise UserError(f"{name(key)}: an answer is empty. Leave it out or give it a text.")
    if found := vlm.traits.placeholder_ids.intersection(ids):
        token = vlm.tokenizer.convert_ids_to_tokens(min(found))
        raise UserError(f"{name(key)}: an answer contains the placeholder {token!r}. Take it out: {text[:80]!r}")
    return ids


def _check_lengths(vlm: Vlm, prefix: Prefix, rows: Sequence[tuple[int, list[int]]]) -> None:
    longest = vlm.traits.longest
    if longest is None:
        return
    lengths = prefix.mask.sum(-1).tolist()
    for context, ids in rows:
        if lengths[context] + len(ids) > longest:
            raise UserError(
                f"{name(prefix.keys[context])}: the prompt ({lengths[context]} tokens) and an answer ({len(ids)}) "
                f"exceed the model's {longest} tokens. Shorten the answer or leave the pair out."
            )


def _shared(vlm: Vlm, prefix: Prefix, rows: Sequence[tuple[int, list[int]]]) -> list[Tensor]:
    """First tokens are scored by the prefix's own prediction, all later ones in one pass over the branches."""
    import torch

    from veridical.vlm import cache as caches
    from veridical.vlm import families, forward

    assert prefix.logits is not None
    device = prefix.logits.device
    owners = torch.tensor([context for context, _ in rows], device=device)
    first_ids = torch.tensor([ids[0] for _, ids in rows], device=device)
    first = torch.log_softmax(prefix.logits.float(), -1)[owners, first_ids]
    lengths = [len(ids) - 1 for _, ids in rows]
    if not any(lengths):
        return list(torch.split(first, 1))
    inputs, shown = forward.right_padded([ids[:-1] for _, ids in rows], device)
    targets, _ = forward.right_padded([ids[1:] for _, ids in rows], device)
    cache = caches.branch_cache([layer.rows(owners) for layer in prefix.past])
    places = families.later_positions(prefix.next_position[owners], inputs.shape[1], prefix.positions)
    mask = torch.cat([prefix.mask[owners], shown], -1)
    wanted = shown.bool()
    logits = forward.run(vlm, {"input_ids": inputs, "attention_mask": mask}, places, cache, logits_to_keep=wanted)
    later = torch.split(token_logprobs(logits, targets[wanted]), lengths)
    return [torch.cat([first[row : row + 1], rest]) for row, rest in enumerate(later)]


def _separate(vlm: Vlm, prefix: Prefix, rows: Sequence[tuple[int, list[int]]]) -> list[Tensor]:
    from veridical.vlm import separate

    logits = separate.answer_logits(vlm, prefix, rows)
    return [token_logprobs(one, one.new_tensor(ids).long()) for one, (_, ids) in zip(logits, rows, strict=True)]


def token_logprobs(logits: Tensor, targets: Tensor) -> Tensor:
    """Log-probabilities [tokens] of `targets` [tokens] under `logits` [tokens, vocabulary], summed in fp32."""
    from torch.nn.functional import cross_entropy

    return -cross_entropy(logits.float(), targets, reduction="none")
