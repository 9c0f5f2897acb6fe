"""From examples to log-probabilities: each context is encoded once, each distinct answer scored once."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from veridical.align.examples import Example
from veridical.align.sight import Batch, Sight
from veridical.objectives.needs import Need
from veridical.vlm.scoring import score
from veridical.vlm.views import View


def views_of(needs: Sequence[Need]) -> list[View]:
    """The distinct views among needs, in order."""
    return list(dict.fromkeys(need.view for need in needs))


def score_needs(sight: Sight, batch: Batch, needs: Sequence[Need]) -> dict[Need, list[Tensor]]:
    """Per-token log-probabilities of each need's answers, a float32 tensor [tokens] an example.

    Gradients flow if enabled. The token that ends the turn comes last, except for a shortened answer.
    """
    scored: dict[Need, list[Tensor]] = {}
    for view in views_of(needs):
        group = [need for need in needs if need.view == view]
        scored.update(_score_view(sight, batch, view, group))
    return scored


def _score_view(sight: Sight, batch: Batch, view: View, needs: Sequence[Need]) -> dict[Need, list[Tensor]]:
    # Pairs of one record share its context, and often an answer: neither is computed twice.
    texts: dict[str, dict[str, int]] = {}
    for example in batch.examples:
        known = texts.setdefault(example.context_key(view), {})
        for need in needs:
            known.setdefault(example.answer(need.response).text, len(known))
    prefix = sight.encode(list(texts), batch)
    per_context = score(sight.vlm, prefix, [list(known) for known in texts.values()])
    scores = dict(zip(texts, per_context, strict=True))

    def one(example: Example, need: Need) -> Tensor:
        answer = example.answer(need.response)
        key = example.context_key(view)
        tokens = scores[key][texts[key][answer.text]]
        # A shortened answer must not teach the model to stop where it was cut.
        return tokens[:-1] if answer.cut else tokens

    return {need: [one(example, need) for example in batch.examples] for need in needs}
