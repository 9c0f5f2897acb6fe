"""Rewards of single tokens, for PPO: fine-grained supervision (Xu et al. 2024, arXiv 2406.02756).

The paper has the worse of two answers edited as little as possible, trains a reward model of tokens on the edits, and
gives PPO each token's reward where others have one for the whole answer. Two ways to such rewards:

- `edits`, without a model in between: what the judge finds wrong in a sampled answer the writer puts right, and nothing
  else. A token of which the edit takes out a letter has the reward -1, all others 0.
- `implicit`, the paper's: a reward model that was trained on the edits (`--token-adapter`). It is a policy that the
  objective `fine-grained` has trained on pairs of `caption-edit`; such a policy is a reward model of tokens, by its
  log-ratio (DPO's implicit reward, token by token: arXiv 2404.12358). A token has the reward log policy(token) - log
  base(token), and the weight of this reward is its beta.

The rewards enter PPO's where the KL does: at their token, before advantages are estimated. The paper's settings are not
in what is published of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from veridical.edits import edit_spans
from veridical.errors import UserError
from veridical.judges.interface import Detect, Kind, Rewrite
from veridical.records import Span
from veridical.rl.rewards import Answered

if TYPE_CHECKING:
    from torch import Tensor

    from veridical.rl.judging import Judging
    from veridical.vlm.generation.params import Sampled

EDITS, IMPLICIT = "edits", "implicit"
TOKEN_REWARDS: Mapping[str, str] = MappingProxyType(
    {
        EDITS: "-1 for each token that a minimal edit by judge and writer takes out",
        IMPLICIT: "a token's log-ratio by --token-adapter, an adapter that the objective fine-grained trained",
    }
)


def weighted_tokens(given: Sequence[str]) -> dict[str, float]:
    """Names of token rewards with their weights, out of `name` or `name=weight`. Raises UserError for others."""
    weights: dict[str, float] = {}
    for one in given:
        name, equals, number = one.partition("=")
        if name not in TOKEN_REWARDS:
            raise UserError(f"token_rewards: there is no {name!r}; there are {', '.join(TOKEN_REWARDS)}.")
        try:
            weights[name] = float(number) if equals else 1.0
        except ValueError:
            raise UserError(f"token_rewards: {one!r} has no number as its weight; write it as {name}=0.5.") from None
    return weights


def asked_of_judge(names: Sequence[str]) -> list[Kind]:
    """What judge and writer must answer for these token rewards."""
    return [Detect, Rewrite] if EDITS in names else []


def taken_out(answers: Sequence[Answered], judging: Judging) -> list[tuple[Span, ...]]:
    """The characters of each answer that a minimal edit takes out; none where nothing is wrong or nobody could say."""
    findings = judging.findings(answers)
    wrong = {place: found for place, found in enumerate(findings) if found is not None and found.wrong}
    corrected = judging.rewritten(
        [Rewrite(answers[place].text, found.invented_names, faults=found.faults) for place, found in wrong.items()]
    )
    spans: list[tuple[Span, ...]] = [()] * len(answers)
    for (place, found), text in zip(wrong.items(), corrected, strict=True):
        # A writer that can't put an answer right leaves what is wrong in it to be taken out.
        faulty = [(fault.start, fault.end) for fault in found.faults]
        edited = edit_spans(text, answers[place].text).rejected if text else faulty
        spans[place] = tuple((start, end) for start, end in edited if start < end)
    return spans


def of_edits(sampled: Sampled, spans: Sequence[Span], tokenizer: Any) -> Tensor:
    """-1 for each token of a sampled answer that wrote a letter in `spans` of the answer's text, else 0."""
    import torch

    rewards = torch.zeros(len(sampled.ids))
    if not spans:
        return rewards
    ranges = token_ranges(sampled.ids, tokenizer)
    # Spaces at its ends belong to no answer, and what the template writes before it to no text.
    written = tokenizer.decode(sampled.ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    before = max(written.find(sampled.text.strip()), 0)
    for place, (start, end) in enumerate(ranges):
        if any(start < to + before and since + before < end for since, to in spans):
            rewards[place] = -1.0
    return rewards


def token_ranges(ids: Sequence[int], tokenizer: Any) -> list[Span]:
    """The characters that each token adds to the text of those before it; special ones, and parts of a letter that
    later ones complete, add none."""
    ends, whole = [0], tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    for count in range(1, len(ids) + 1):
        text = tokenizer.decode(ids[:count], skip_special_tokens=True, clean_up_tokenization_spaces=False)
        same = next((i for i, pair in enumerate(zip(text, whole, strict=False)) if pair[0] != pair[1]), len(text))
        ends.append(max(ends[-1], min(same, len(whole))))
    return list(pairwise(ends))
