"""Group beam search with one beam a group: against the same written slowly, a whole forward for every token."""

from __future__ import annotations

import pytest
import torch

from veridical.records import Message
from veridical.vlm.generation.generate import generate
from veridical.vlm.generation.params import Branch, SamplingParams
from veridical.vlm.generation.token_choice import choose_apart
from veridical.vlm.inputs.context import Context
from veridical.vlm.load import load
from veridical.vlm.prefix.encode import encode
from veridical.vlm.scores.full_forward import answer_logits


def test_tokens_that_others_take_cost_a_penalty():
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.2]] * 5))
    # Of group a: the best; the second best, since 0.5 / e < 0.3; the third, since 0.5 / e and 0.3 / e are below 0.2.
    found = choose_apart(logits, ["a", "a", "b", "a", "b"], [True] * 5, 1.0)
    assert found.tolist() == [0, 1, 0, 2, 1]
    found = choose_apart(logits, ["a", "a", "b", "a", "b"], [False, True, True, True, True], 1.0)
    assert found.tolist() == [0, 0, 0, 1, 1]  # the first has ended and takes nothing
    assert choose_apart(logits, ["a"] * 5, [True] * 5, 0.1).tolist() == [0] * 5


@pytest.mark.parametrize("after", ["", "The picture shows"])
def test_beams_are_those_of_a_slow_search(llava_folder, after):
    vlm = load(llava_folder, device="cpu")
    context = Context((), (Message("user", "Say something."),), key=("x",))
    beams, longest, penalty = 4, 6, 0.7
    sampling = SamplingParams(longest, 0.0, diversity=penalty)
    with torch.no_grad():
        prefix = encode(vlm, [context])
        found = generate(vlm, prefix, [Branch(0, (beam,), after) for beam in range(beams)], sampling)
        start = [] if not after else _ids(vlm, after)
        texts: list[list[int]] = [[] for _ in range(beams)]
        ended = [False] * beams
        for _ in range(longest):
            taken: dict[int, int] = {}
            for beam in range(beams):
                if ended[beam]:
                    continue
                ids = [*start, *texts[beam], 0]
                [logits] = answer_logits(vlm, encode(vlm, [context]), [(0, ids)])
                scores = logits[-1].float().log_softmax(-1)
                for token, times in taken.items():
                    scores[token] -= penalty * times
                token = int(scores.argmax())
                taken[token] = taken.get(token, 0) + 1
                texts[beam].append(token)
                ended[beam] = token in vlm.traits.stop_ids
    assert [list(one.ids) for one in found] == texts
    assert len({tuple(one) for one in texts}) > 1


def _ids(vlm, text: str) -> list[int]:
    from veridical.vlm.scores.scoring import text_ids

    return text_ids(vlm, text, ("x",))
