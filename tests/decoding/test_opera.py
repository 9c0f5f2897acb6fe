"""OPERA against its definition: full forwards of transformers' model, one for each candidate, without cache, every
matrix of attention weights and every score worked out anew from the text alone."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import pytest
import torch
from tests.vlm import plain

from veridical.decoding.answers import closed_answers, sample_under
from veridical.decoding.opera import Beam, Opera, Option, Retrospection, Written, over_trust, summary_token
from veridical.errors import UserError
from veridical.vlm.generation.generate import generate
from veridical.vlm.generation.params import Branch, SamplingParams
from veridical.vlm.inputs.context import Context
from veridical.vlm.inputs.prepare import prepare
from veridical.vlm.load import load
from veridical.vlm.model.loading import Sharing
from veridical.vlm.prefix.encode import encode
from veridical.world.records import world_records

TOKENS = 14
GREEDY = SamplingParams(TOKENS, temperature=0.0)
AFTER = "There is a"
# The penalty wakes up within captions of 14 words only where its unit is larger than the published one.
PENALTY = Opera(beams=3, candidates=3, unit=1e-3, overlap=99)
WINDOW = Opera(beams=2, candidates=4, unit=1e-2, window=3, overlap=99)
RETROSPECTION = Opera(beams=2, candidates=3, unit=1e-4, overlap=3, rollbacks=2)


@pytest.fixture(scope="module")
def bundled():
    return load("bundled", device="cpu")


@pytest.fixture(scope="module")
def eager():
    vlm = load("bundled", device="cpu")
    vlm.model.set_attn_implementation("eager")
    return vlm


@pytest.fixture(scope="module")
def contexts(tmp_path_factory):
    records = world_records("anti-bias", 3, 5, tmp_path_factory.mktemp("scenes"))
    return [Context(record.images, record.prompt, key=(5, record.id)) for record in records]


class Slow:
    """The search as a reader of the paper would write it down; texts are tuples of ids."""

    def __init__(self, vlm, context, settings, after=""):
        self.vlm, self.settings = vlm, settings
        self.prepared = prepare(vlm, context)
        self.after = vlm.tokenizer(after, add_special_tokens=False).input_ids
        self.seen = {}
        self.returns = []

    def run(self, text):
        """Logits of the next token, and the weights among the text's own tokens."""
        if text not in self.seen:
            inputs = dict(self.prepared.tensors)
            added = torch.tensor([[*self.after, *text]], dtype=torch.long)
            inputs["input_ids"] = torch.cat([inputs["input_ids"], added], 1)
            inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
            with torch.no_grad():
                output = self.vlm.model(**inputs, use_cache=False, output_attentions=True)
            weights = output.attentions[-1][0].double().max(0).values
            weights = weights / weights.sum(-1, keepdim=True)
            first = weights.shape[0] - len(text)
            self.seen[text] = output.logits[0, -1].double(), weights[first:, first:].tolist()
        return self.seen[text]

    def over_trust(self, text):
        """(phi, c)"""
        weights = self.run(text)[1]
        products = {}
        for j in range(max(0, len(text) - self.settings.window), len(text)):
            products[j] = math.prod(self.settings.scale * weights[i][j] for i in range(j, len(text)))
        place = max(products, key=products.get)
        return products[place], place

    def probabilities(self, text):
        logits = self.run(text)[0]
        likeliest = logits.argsort(descending=True, stable=True)[: self.settings.candidates].tolist()
        s = self.settings
        penalised = [
            float(logits[token]) - s.alpha * s.unit * self.over_trust((*text, token))[0] for token in likeliest
        ]
        whole = math.log(sum(math.exp(x - max(penalised)) for x in penalised)) + max(penalised)
        return {token: x - whole for token, x in zip(likeliest, penalised, strict=True)}

    def summary(self, text):
        places = [self.over_trust(text[: end + 1])[1] for end in range(len(text))]
        counts = Counter(places[-self.settings.window :])
        most = max(counts.values())
        return min(p for p, n in counts.items() if n == most) if most >= self.settings.overlap else None

    def ends(self, text):
        return text[-1] in self.vlm.traits.stop_ids or len(text) == TOKENS

    def search(self):
        s = self.settings
        beams, ended = {(): 0.0}, {}
        history, tried, times, latest = {}, {}, Counter(), 0
        while True:
            length = len(next(iter(beams)))
            history[length] = (beams, ended)
            steps = {
                (*text, token): score + more
                for text, score in beams.items()
                for token, more in self.probabilities(text).items()
                if (*text, token) not in tried.get(length, set())
            }
            ranked = sorted(steps, key=steps.get, reverse=True)
            ended = {**ended, **{t: steps[t] / (length + 1) for t in ranked[: s.beams] if self.ends(t)}}
            ended = dict(sorted(ended.items(), key=lambda one: -one[1])[: s.beams])
            beams = {t: steps[t] for t in [t for t in ranked if not self.ends(t)][: s.beams]}
            tried.setdefault(length, set()).update(beams)
            best = max(beams.values(), default=-math.inf) / (length + 1)
            if not beams or (len(ended) == s.beams and min(ended.values()) >= best):
                return self.shown(max(ended, key=ended.get))
            (summary, *others) = {self.summary(text) for text in beams}
            if others or summary is None or summary < latest:
                continue
            for back in (summary + 1, summary):
                if times[back] < s.rollbacks and len(tried[back]) < len(history[back][0]) * s.candidates:
                    times[back] += 1
                    latest = summary
                    self.returns.append((length + 1, summary, back))
                    beams, ended = history[back]
                    tried = {n: texts for n, texts in tried.items() if n <= back}
                    break

    def shown(self, text):
        ids = [token for token in text if token not in self.vlm.traits.stop_ids]
        whole = self.vlm.tokenizer.decode([*self.after, *ids], skip_special_tokens=True)
        return whole[len(self.vlm.tokenizer.decode(self.after)) :]


CASES = {
    "penalty": (PENALTY, [Branch(1)]),
    "window": (WINDOW, [Branch(0, (), AFTER)]),
    "retrospection": (RETROSPECTION, [Branch(1), Branch(0, (), AFTER)]),
}


@pytest.mark.parametrize("case", CASES)
def test_texts_are_those_of_full_forwards(bundled, eager, contexts, case):
    settings, branches = CASES[case]
    found = sample_under(bundled, encode(bundled, contexts), branches, GREEDY, settings)
    slow = [Slow(eager, contexts[branch.context], settings, branch.after) for branch in branches]
    assert [one.text for one in found] == [one.search() for one in slow]
    assert any(one.returns for one in slow) == (settings is RETROSPECTION)
    if settings is RETROSPECTION:
        # To what was written up to the summary token, and after twice there to what was written before it.
        assert {back - summary for one in slow for _, summary, back in one.returns} == {0, 1}


def test_the_penalty_acts_after_the_first_token(bundled, contexts):
    prefix = encode(bundled, contexts)
    branches = [Branch(index) for index in range(len(contexts))]
    found, free = (
        sample_under(bundled, prefix, branches, GREEDY, replace(PENALTY, alpha=alpha)) for alpha in (1.0, 0.0)
    )
    assert any(
        one.text != other.text and one.text[:5] == other.text[:5] for one, other in zip(found, free, strict=True)
    )


def test_going_back_changes_the_text(bundled, contexts):
    prefix = encode(bundled, contexts)
    branches = [Branch(index) for index in range(len(contexts))]
    found, never = (
        sample_under(bundled, prefix, branches, GREEDY, replace(RETROSPECTION, rollbacks=times)) for times in (2, 0)
    )
    assert found != never
    assert never == sample_under(bundled, prefix, branches, GREEDY, replace(RETROSPECTION, overlap=99))


def test_without_penalty_it_is_the_beam_search_of_transformers(llava):
    """With the whole vocabulary as candidates; random weights, whose sharp attention would set off retrospection."""
    contexts = plain.contexts()[:2]
    settings = Opera(beams=3, candidates=len(llava.tokenizer), alpha=0, rollbacks=0)
    found = sample_under(
        llava, encode(llava, contexts), [Branch(0), Branch(1)], replace(GREEDY, max_new_tokens=5), settings
    )
    for context, one in zip(contexts, found, strict=True):
        inputs = plain.prompt_inputs(llava, context)
        ids = llava.model.generate(**inputs, num_beams=3, do_sample=False, max_new_tokens=5)
        assert one.text == llava.tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def test_columns_by_hand():
    """Two heads; 4 of a row's 5 keys hold 0.8 of the attention to two tokens written and the candidate, doubled."""
    weights = torch.tensor([[[0.1, 0.1, 0.4, 0.1, 0.3], [0.2, 0.1, 0.1, 0.3, 0.3]]])
    # The larger of both heads: 0.2 0.1 0.4 0.3 0.3, sum 1.3. What was written: products 4 and 0.5.
    before = torch.tensor([[4.0, 0.5]], dtype=torch.float64).log()
    columns, largest, places = over_trust(before, weights, Opera(scale=2))
    wanted = torch.tensor([4 * 0.8 / 1.3, 0.5 * 0.6 / 1.3, 0.6 / 1.3])
    assert torch.allclose(columns.exp().float(), wanted)
    assert (float(largest.exp()), int(places)) == (pytest.approx(3.2 / 1.3), 0)
    _, largest, places = over_trust(before, weights, Opera(scale=2, window=2))
    assert (float(largest.exp()), int(places)) == (pytest.approx(0.6 / 1.3), 2)


def test_summary_tokens_by_hand():
    def found(*beams, **settings):
        return summary_token([Beam(None, None, 0.0, places) for places in beams], Opera(**settings))

    assert found((0, 0, 2, 2, 2), overlap=3) == 2
    assert found((0, 0, 2, 2, 2), overlap=4) is None
    assert found((0, 0, 2, 2, 2), (0, 2, 2, 2, 2), overlap=3) == 2
    assert found((0, 0, 2, 2, 2), (0, 0, 0, 2, 2), overlap=3) is None
    assert found((0, 0, 0, 2, 2), overlap=2) == 0
    assert found((0, 0, 0, 2, 2), overlap=2, window=3) == 2


def stop(length):
    """A search that has come to this length with one beam."""
    return Written((Beam(None, torch.zeros(length)),))


def options(*tokens):
    return [Option(0, token, Beam(None, None)) for token in tokens]


def test_it_goes_back_so_often_to_one_place_then_before_it_and_never_to_an_earlier_one():
    retrospection = Retrospection(Opera(beams=1, candidates=9, rollbacks=2))
    stops = [stop(length) for length in range(5)]
    start, found = 0, []
    for place in (2, 2, 2, 1, 2, 2):
        for one in stops[start:]:
            retrospection.took(retrospection.left(one, options(*range(9)))[:1])
        back = retrospection.back(place)
        start = len(stops) if back is None else stops.index(back)
        found.append(None if back is None else start)
    assert found == [3, 3, 2, None, 2, None]


def test_what_was_taken_is_left_out_until_nothing_else_is_left():
    retrospection = Retrospection(Opera(beams=1, candidates=2))
    stops = [stop(length) for length in range(3)]

    def left(one):
        found = retrospection.left(one, options(7, 8))
        retrospection.took(found[:1])
        return [option.token for option in found]

    assert [left(one) for one in stops] == [[7, 8]] * 3
    assert retrospection.back(0) is stops[1]
    assert left(stops[1]) == [8]
    assert left(stops[2]) == [7, 8]
    assert retrospection.back(0) is stops[0]
    assert left(stops[0]) == [8]
    assert left(stops[1]) == [7, 8]


def test_models_without_sharing_decode_the_same(bundled, contexts):
    alone = replace(bundled, sharing=Sharing(tested=False, reason="the test says so"))
    settings, branches = replace(RETROSPECTION, beams=2), [Branch(0, (), AFTER)]
    with pytest.warns(UserWarning, match="the test says so"):
        separate = sample_under(alone, encode(alone, contexts[:1]), branches, GREEDY, settings)
    assert separate == sample_under(bundled, encode(bundled, contexts), branches, GREEDY, settings)


def test_a_stop_text_ends_a_beam(bundled, contexts):
    until = replace(GREEDY, stop=(" a",))
    (found,) = sample_under(bundled, encode(bundled, contexts), [Branch(0)], until, PENALTY)
    assert found.ended == "stop"
    assert found.text.endswith(" a")


def test_the_model_is_left_as_it_was(bundled, contexts, monkeypatch):
    """Eager attention and what reads it are gone, after an error too; the tower has not looked again."""
    decoder = bundled.model.get_decoder()
    prefix = encode(bundled, contexts)
    looks = []
    hook = bundled.model.model.vision_tower.register_forward_pre_hook(lambda _module, given: looks.append(1))
    short = replace(GREEDY, max_new_tokens=2)
    plainly = generate(bundled, prefix, [Branch(0)], short)
    sample_under(bundled, prefix, [Branch(0)], short, Opera())
    # As a decoder does that only knows its own kind of attention.
    monkeypatch.setattr(decoder, "set_attn_implementation", lambda _name: None)
    with pytest.raises(UserError, match="returns no attention weights"):
        sample_under(bundled, prefix, [Branch(0)], short, Opera())
    hook.remove()
    assert decoder.config._attn_implementation == "sdpa"
    assert not decoder._forward_hooks
    assert not decoder._forward_pre_hooks
    assert generate(bundled, prefix, [Branch(0)], short) == plainly
    assert not looks


def test_what_makes_no_sense_is_refused(bundled, contexts):
    prefix = encode(bundled, contexts)
    with pytest.raises(UserError, match=r"temperature is 0\.7; it must be 0"):
        sample_under(bundled, prefix, [Branch(0)], SamplingParams(4, 0.7), Opera())
    with pytest.raises(UserError, match="opera chooses among free answers"):
        closed_answers(bundled, prefix, ("Yes", "No"), Opera())
    with pytest.raises(UserError, match="candidates is 1; it must be at least 2"):
        Opera(candidates=1)
    with pytest.raises(UserError, match=r"scale is 0; it must be above 0"):
        Opera(scale=0)
