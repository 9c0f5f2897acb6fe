"""Each method against what it is by definition: full forwards of transformers' model, one for each stream and
token, without cache, on the bundled model."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from veridical.decoding.best_of_n import BestOfN
from veridical.decoding.dola import Dola
from veridical.decoding.icd import Icd
from veridical.decoding.m3id import M3id
from veridical.decoding.plausible import plausible
from veridical.decoding.vcd import Vcd
from veridical.decoding.vdd import Vdd
from veridical.errors import UserError
from veridical.protocols import chair
from veridical.protocols.sources import world_vocabulary
from veridical.records import Message
from veridical.vlm import seeds
from veridical.vlm.generation.generate import generate
from veridical.vlm.generation.params import Branch, SamplingParams
from veridical.vlm.images.views import Clean, NoImage, TokenMask, UnknownToken, parse
from veridical.vlm.inputs.context import Context
from veridical.vlm.inputs.prepare import prepare
from veridical.vlm.load import load
from veridical.vlm.model.loading import Sharing
from veridical.vlm.prefix.encode import encode
from veridical.world.records import world_records

TOKENS = 14
AFTER = "There is a"


@pytest.fixture(scope="module")
def bundled():
    return load("bundled", device="cpu")


@pytest.fixture(scope="module")
def contexts(tmp_path_factory):
    records = world_records("in-theme", 3, 5, tmp_path_factory.mktemp("scenes"))
    return [Context(record.images, record.prompt, key=(5, record.id)) for record in records]


def viewed(view, system=None):
    """How a stream changes a context."""

    def change(context):
        prompt = context.prompt if system is None else (Message("system", system), *context.prompt)
        return dataclasses.replace(context, view=parse(view) if isinstance(view, str) else view, prompt=prompt)

    return change


def cut_off(own, beta):
    return own.softmax(-1) < beta * own.softmax(-1).max()


def contrasted(alpha, beta):
    def formula(step, own, *others):
        other = sum(others) / len(others)
        found = own + alpha * (own - other)
        found[cut_off(own, beta)] = -math.inf
        return found

    return formula


def m3id(decay, beta):
    def formula(step, own, without):
        own, without = own.log_softmax(-1), without.log_softmax(-1)
        gamma = math.exp(-decay * step)
        found = own + (1 - gamma) / gamma * (own - without)
        found[cut_off(own, beta)] = -math.inf
        return found

    return formula


DISTURBANCE = "What is on the left?"
CASES = {
    "vcd": (Vcd(alpha=1.5, beta=0.05, view="noise:700"), ["noise:700"], contrasted(1.5, 0.05)),
    "vcd, tokens": (Vcd(alpha=3, beta=0.01, view="token-mask:0.95"), [TokenMask(0.95)], contrasted(3.0, 0.01)),
    "bpo, reversed": (Vcd(alpha=-1, beta=0.01, view="noise:900"), ["noise:900"], contrasted(-1.0, 0.01)),
    "vdd": (Vdd(alpha=1.0, beta=0.02), [NoImage()], contrasted(1.0, 0.02)),
    "vdd, both": (
        Vdd(alpha=1.0, beta=0.02, views=("none", "unknown-token")),
        [NoImage(), UnknownToken()],
        contrasted(1.0, 0.02),
    ),
    "m3id": (M3id(decay=0.1, beta=0.01), [NoImage()], m3id(0.1, 0.01)),
    "icd": (Icd(beta=0.02, disturbance=DISTURBANCE), [(Clean(), DISTURBANCE)], contrasted(1.0, 0.02)),
}


def full_logits(vlm, prepared, ids):
    """The model's logits of the next token, from one full forward without a cache; all its hidden states too."""
    inputs = dict(prepared.tensors)
    inputs["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([ids], dtype=torch.long)], 1)
    mask = torch.ones_like(inputs["input_ids"])
    if prepared.hidden is not None:
        mask[0, prepared.hidden] = 0
    inputs["attention_mask"] = mask
    places = torch.arange(mask.shape[1])[None]
    with torch.no_grad():
        output = vlm.model(**inputs, position_ids=places, use_cache=False, output_hidden_states=True)
    return output.logits[0, -1].float(), [layer[0, -1] for layer in output.hidden_states]


def naive(vlm, context, changes, formula, key=None, after=""):
    """Token by token, with every stream run in full. With a key, drawn by inverting the distribution function."""
    after_ids = vlm.tokenizer(after, add_special_tokens=False).input_ids
    shown = [prepare(vlm, context), *(prepare(vlm, change(context)) for change in changes)]
    uniforms = None if key is None else seeds.generator("sample", key).random(TOKENS)
    ids = []
    for step in range(TOKENS):
        streams = [full_logits(vlm, prepared, [*after_ids, *ids])[0] for prepared in shown]
        found = formula(len(after_ids) + step, *streams)
        if uniforms is None:
            token = int(found.argmax())
        else:
            reached = found.double().softmax(-1).cumsum(0) / found.double().softmax(-1).sum()
            token = int((reached <= uniforms[step]).sum())
        if token in vlm.traits.stop_ids:
            break
        ids.append(token)
    whole = vlm.tokenizer.decode([*after_ids, *ids], skip_special_tokens=True)
    return whole[len(vlm.tokenizer.decode(after_ids)) :]


def changes(shown):
    return [viewed(*one) if isinstance(one, tuple) else viewed(one) for one in shown]


@pytest.mark.parametrize("case", CASES)
def test_greedy_and_drawn_texts_are_those_of_full_forwards(bundled, contexts, case):
    method, shown, formula = CASES[case]
    prefix = encode(bundled, contexts)
    branches = [Branch(0), Branch(1), Branch(2), Branch(0, (), AFTER)]
    greedy = generate(bundled, prefix, branches, SamplingParams(TOKENS, 0.0, decoding=method))
    drawn = generate(bundled, prefix, [Branch(1, ("a",)), Branch(2, ("b",))], SamplingParams(TOKENS, decoding=method))
    for branch, found in zip(branches, greedy, strict=True):
        wanted = naive(bundled, contexts[branch.context], changes(shown), formula, after=branch.after)
        assert found.text == wanted
    for index, key, found in ((1, ("a",), drawn[0]), (2, ("b",), drawn[1])):
        assert found.text == naive(bundled, contexts[index], changes(shown), formula, key)


@pytest.mark.parametrize("case", CASES)
def test_the_contrast_acts_after_the_first_token_too(bundled, contexts, case):
    """Against a method that lets go after the first token, as released code did: some texts part later."""
    method, shown, formula = CASES[case]

    def lets_go(step, own, *others):
        return formula(step, own, *others) if step == 0 else own

    settings = SamplingParams(TOKENS, 0.0, decoding=method)
    found = generate(bundled, encode(bundled, contexts), [Branch(0), Branch(1), Branch(2)], settings)
    let_go = [naive(bundled, context, changes(shown), lets_go) for context in contexts]
    assert any(one.text != other and one.text[:2] == other[:2] for one, other in zip(found, let_go, strict=True))


@pytest.mark.parametrize(
    "method", [Vcd(alpha=0, beta=0), Vdd(alpha=0, beta=0), Icd(alpha=0, beta=0), M3id(decay=0, beta=0)]
)
def test_no_contrast_is_plain_sampling(bundled, contexts, method):
    prefix = encode(bundled, contexts)
    branches = [Branch(index % 3, (index,), after) for index, after in enumerate(["", "", "", AFTER])]
    for temperature in (0.0, 1.0):
        plain = SamplingParams(TOKENS, temperature)
        assert generate(bundled, prefix, branches, dataclasses.replace(plain, decoding=method)) == generate(
            bundled, prefix, branches, plain
        )


@pytest.mark.parametrize("layers", ["low", "high"])
def test_dola_is_the_last_layer_against_the_most_different_candidate(bundled, contexts, layers):
    """By hand from transformers' own hidden states: candidates of the bundled model's four layers are layer 2 alone,
    so a wider choice is made here.
    """

    @dataclasses.dataclass(frozen=True)
    class Wider(Dola):
        def early_layers(self, layers):
            return (0, 1, 2, 3)

    method = Wider(beta=0.05) if layers == "low" else Dola(layers="high", beta=0.05)
    candidates = method.early_layers(4)
    head = bundled.model.get_output_embeddings()

    def wanted(context):
        prepared, ids = prepare(bundled, context), []
        for _ in range(TOKENS):
            own, hidden = full_logits(bundled, prepared, ids)
            with torch.no_grad():
                early = [head(hidden[layer]).log_softmax(-1) for layer in candidates]
            last = own.log_softmax(-1)

            def divergence(one, last=last):
                middle = (one.exp() + last.exp()) / 2
                halves = [
                    torch.nn.functional.kl_div(middle.log(), p, log_target=True, reduction="sum") for p in (one, last)
                ]
                return float(sum(halves)) / 2

            found = last - max(early, key=divergence)
            found[cut_off(own, 0.05)] = -math.inf
            if (token := int(found.argmax())) in bundled.traits.stop_ids:
                break
            ids.append(token)
        return bundled.tokenizer.decode(ids, skip_special_tokens=True)

    texts = generate(bundled, encode(bundled, contexts), [Branch(0), Branch(1), Branch(2)],
                   SamplingParams(TOKENS, 0.0, decoding=method))  # fmt: skip
    assert [one.text for one in texts] == [wanted(context) for context in contexts]
    plain = generate(bundled, encode(bundled, contexts), [Branch(0)], SamplingParams(TOKENS, 0.0))
    assert plain[0].tokens > 2  # the hooks are gone, and the logits as wide as ever


def test_dola_released_picks_the_layer_by_the_mean_first():
    from torch.nn.functional import kl_div

    generator = torch.Generator().manual_seed(0)
    own = torch.randn(40, 9, generator=generator) * 2
    others = [torch.randn(40, 9, generator=generator) * 2 for _ in range(4)]
    last, early = own.log_softmax(-1), torch.stack(others).log_softmax(-1)
    mean = (last.exp()[None] + early.exp()) / 2
    # As in the released code: `kl_div(a, b)` is KL(b || a).
    halves = [kl_div(one, mean, reduction="none").sum(-1) for one in (last.expand_as(early), early)]
    layer = (halves[0] + halves[1]).argmax(0)
    wanted = last - early[layer, torch.arange(40)]
    found = Dola(choice="released", beta=0).logits(own, others, torch.zeros(40))
    torch.testing.assert_close(found, wanted)
    # Sometimes another layer than by Jensen-Shannon divergence.
    assert not torch.allclose(found, Dola(beta=0).logits(own, others, torch.zeros(40)))


def test_dola_takes_candidates_from_a_half():
    assert Dola(layers="low").early_layers(32) == tuple(range(2, 16, 2))
    assert Dola(layers="high").early_layers(32) == tuple(range(16, 32, 2))
    assert Dola(layers="low").early_layers(4) == Dola(layers="high").early_layers(4) == (2,)


@pytest.mark.parametrize("method", [Vcd(view="token-mask:0.8"), Vdd(), Icd(disturbance=DISTURBANCE), Dola()])
def test_models_without_sharing_decode_the_same(bundled, contexts, method):
    alone = dataclasses.replace(bundled, sharing=Sharing(tested=False, reason="the test says so"))
    settings = SamplingParams(5, decoding=method)
    branches = [Branch(0, ("a",)), Branch(1, ("b",), AFTER)]
    with pytest.warns(UserWarning, match="the test says so"):
        separate = generate(alone, encode(alone, contexts), branches, settings)
    assert separate == generate(bundled, encode(bundled, contexts), branches, settings)


def test_a_text_under_contrast_depends_on_its_key_alone(bundled, contexts):
    settings = SamplingParams(TOKENS, decoding=Vcd())
    branches = [Branch(index % 3, (index,)) for index in range(7)]
    together = generate(bundled, encode(bundled, contexts), branches, settings)
    alone = [
        generate(bundled, encode(bundled, [contexts[b.context]]), [dataclasses.replace(b, context=0)], settings)[0]
        for b in branches
    ]
    assert together == alone


def test_the_tower_looks_once_where_the_view_allows_it(bundled, contexts):
    seen = []
    hook = bundled.model.model.vision_tower.register_forward_pre_hook(lambda _module, given: seen.append(1))
    try:
        prefix = encode(bundled, contexts)
        for method, looks in ((Icd(), 0), (Vcd(view="token-mask:0.5"), 0), (Vdd(), 0), (Dola(), 0), (Vcd(), 1)):
            seen.clear()
            generate(bundled, prefix, [Branch(0)], SamplingParams(2, decoding=method))
            assert len(seen) == looks, method
    finally:
        hook.remove()


def test_the_sign_of_the_contrast_decides_what_it_does(bundled, tmp_path):
    """Away from what noise brings out, captions invent less; towards it, more. That is no matter of a few captions."""
    records = world_records("anti-bias", 24, 1, tmp_path)
    lexicon = world_vocabulary().lexicon
    prefix = encode(bundled, [Context(record.images, record.prompt, key=(record.id,)) for record in records])
    invented = {}
    for alpha in (1.0, 0.0, -1.0):
        settings = SamplingParams(40, 0.0, decoding=Vcd(alpha=alpha))
        texts = generate(bundled, prefix, [Branch(index) for index in range(len(records))], settings)
        items = [chair.read(record, one.text, lexicon) for record, one in zip(records, texts, strict=True)]
        invented[alpha] = sum(mention.invented for item in items for mention in item.mentions)
    assert invented[1.0] < 0.8 * invented[0.0]
    assert invented[-1.0] > 1.2 * invented[0.0]


def test_the_cut_off_by_hand():
    own = torch.tensor([[0.5, 0.3, 0.04, 0.16]]).log()
    found = plausible(torch.ones(1, 4), own, 0.1)
    assert found.tolist() == [[1, 1, -math.inf, 1]]
    assert plausible(torch.ones(1, 4), own, 0).tolist() == [[1, 1, 1, 1]]


def test_wrong_settings_are_refused():
    with pytest.raises(UserError, match=r"beta is 1\.5; it must be at least 0 and at most 1"):
        Vcd(beta=1.5)
    with pytest.raises(UserError, match="did you mean 'noise'"):
        Vcd(view="nose:500")
    with pytest.raises(UserError, match="at least one view"):
        Vdd(views=())
    with pytest.raises(UserError, match="n is 0; it must be at least 1"):
        BestOfN(n=0)
    with pytest.raises(UserError, match=r"temperature is 0\.0; it must be above 0"):
        BestOfN(temperature=0.0)
