"""What a family must pass for each column of the support table.

A check raises where a model fails it. The yardstick is transformers' own model, called once for each whole row
(`tests/vlm/plain.py`).
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from tests.families.tiny import Tiny, random_model
from tests.vlm import plain

from veridical.errors import UserError
from veridical.vlm.generation.generate import generate
from veridical.vlm.generation.params import Branch, SamplingParams
from veridical.vlm.images.views import TokenMask
from veridical.vlm.inputs.context import Context
from veridical.vlm.inputs.prepare import prepare
from veridical.vlm.load import assemble, attach_lora, load
from veridical.vlm.model import families
from veridical.vlm.model.adapters import LoraSettings, adapters_off, save_trained
from veridical.vlm.model.loading import Sharing, Vlm
from veridical.vlm.prefix.encode import encode
from veridical.vlm.prefix.packed_rows import PackedRows, can_pack
from veridical.vlm.prefix.rows import SharedRows
from veridical.vlm.scores.scoring import score

Scores = list[list[torch.Tensor]]
EXACT = 1e-5
GREEDY = SamplingParams(max_new_tokens=8, temperature=0)


@dataclass(frozen=True)
class Family:
    """A tiny model of a family, and what separate forwards say of it; `folder` is an empty place to write to."""

    name: str
    tiny: Tiny
    folder: Path

    @cached_property
    def vlm(self) -> Vlm:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return assemble(self.name, random_model(self.tiny), self.tiny.processor)

    @cached_property
    def contexts(self) -> list[Context]:
        """One image, one of another size, and two behind a longer dialogue, where the family takes two."""
        contexts = [dataclasses.replace(one, images=one.images[: self.tiny.images]) for one in plain.contexts()]
        if self.tiny.chat.system:
            return contexts
        return [dataclasses.replace(c, prompt=tuple(m for m in c.prompt if m.role != "system")) for c in contexts]

    @cached_property
    def separate(self) -> Scores:
        """Log-probabilities by separate forwards, with their graph."""
        self.vlm.model.requires_grad_(True)
        pairs = zip(self.contexts, plain.ANSWERS, strict=True)
        return [[plain.answer_logprobs(self.vlm, one, text) for text in texts] for one, texts in pairs]

    @cached_property
    def gradient(self) -> torch.Tensor:
        """The whole gradient by separate forwards."""
        return gradient(self.vlm, self.separate)


def gradient(vlm: Vlm, scores: Scores) -> torch.Tensor:
    """The whole gradient of a loss over all tokens, as one vector."""
    trained = [p for p in vlm.model.parameters() if p.requires_grad]
    found = torch.autograd.grad(plain.weighted_sum(scores), trained, allow_unused=True, retain_graph=True)
    parts = zip(trained, found, strict=True)
    return torch.cat([torch.zeros(p.numel()) if g is None else g.flatten() for p, g in parts])


def loads(family: Family) -> None:
    """Saved, and loaded as a user would, it is the same model."""
    family.vlm.model.save_pretrained(family.folder)
    family.vlm.processor.save_pretrained(family.folder)
    again = load(family.folder)
    assert again.family == family.vlm.family
    assert again.traits == family.vlm.traits
    with torch.no_grad():
        inputs = [plain.prompt_inputs(one, family.contexts[0]) for one in (family.vlm, again)]
        wanted, found = family.vlm.model(**inputs[0]).logits, again.model(**inputs[1]).logits
    assert (found - wanted).abs().max() < EXACT


def scores(family: Family) -> None:
    """Scores are right by separate forwards at least, show the image at every token, and refuse what can't be."""
    alone = dataclasses.replace(family.vlm, sharing=Sharing(tested=False, reason="the test says so"))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fallen = score(alone, encode(alone, family.contexts), plain.ANSWERS)
    assert plain.largest_difference(fallen, family.separate) < EXACT
    one, other = (_score(family.vlm, family.contexts[0], seed, "There is a fork.") for seed in (0, 1))
    assert ((one - other).abs() > 1e-4).all()
    if family.vlm.traits.image_id is not None:
        placeholder = family.vlm.tokenizer.convert_ids_to_tokens(family.vlm.traits.image_id)
        with pytest.raises(UserError, match="placeholder"):
            _score(family.vlm, family.contexts[0], 0, f"A {placeholder} dog")


def _score(vlm: Vlm, like: Context, seed: int, answer: str) -> torch.Tensor:
    context = dataclasses.replace(like, images=(plain.picture(seed),))
    with torch.no_grad():
        return score(vlm, encode(vlm, [context]), [[answer]])[0][0]


def shares(family: Family) -> None:
    """Sharing gives the scores and the gradient of separate forwards, under gradient checkpointing too."""
    vlm = family.vlm
    wanted = family.gradient
    assert wanted.norm() > 1
    for checkpointing in (False, True):
        if checkpointing:
            vlm.model.activation_checkpointing_enable({"use_reentrant": False})
            vlm.model.train()
        try:
            prefix = encode(vlm, family.contexts)
            found = score(vlm, prefix, plain.ANSWERS)
            assert prefix.shared, prefix.reason
            assert plain.largest_difference(found, family.separate) < EXACT
            assert (gradient(vlm, found) - wanted).norm() / wanted.norm() < EXACT
        finally:
            vlm.model.activation_checkpointing_disable()
            vlm.model.eval()


def samples(family: Family) -> None:
    """Greedy text is that of `generate`, from several prompts at once and behind given beginnings."""
    vlm = family.vlm
    branches = [Branch(0), Branch(1, after="Yes."), Branch(2), Branch(2, after="A dog and a ball")]
    found = [one.text for one in generate(vlm, encode(vlm, family.contexts), branches, GREEDY)]
    assert found == [_generated(vlm, family.contexts[branch.context], branch.after) for branch in branches]
    assert len(set(found)) == len(branches)
    # Several of each: branches of one context may share a row.
    twice = [branch for branch in (Branch(0), Branch(1), Branch(2)) for _ in range(2)]
    again = [one.text for one in generate(vlm, encode(vlm, family.contexts), twice, GREEDY)]
    assert again == [_generated(vlm, family.contexts[branch.context], "") for branch in twice]
    _packed_as_apart(family)


def _packed_as_apart(family: Family) -> None:
    """Where branches of one context share a row, every step predicts what rows of their own predict."""
    vlm, owners = family.vlm, [0, 0, 1, 1]
    with torch.no_grad():
        prefix = encode(vlm, family.contexts[:2])
        if not prefix.shared or not can_pack(vlm, prefix, owners, 3):
            return
        packed, apart = PackedRows(vlm, prefix, owners, 3), SharedRows(vlm, prefix, owners, 3)
        for step in range(3):
            texts = (plain.ANSWERS[0][1], plain.ANSWERS[1][0], plain.ANSWERS[2][0], plain.ANSWERS[2][1])
            tokens = torch.tensor([plain.answer_ids(vlm, text)[step] for text in texts])
            packed.advance(tokens)
            apart.advance(tokens)
            assert torch.allclose(packed.logits.softmax(-1), apart.logits.softmax(-1), atol=1e-4)


def _generated(vlm: Vlm, context: Context, after: str) -> str:
    """Greedy text by separate forwards: by `generate`, which takes no beginning, or token by token behind one."""
    inputs = plain.prompt_inputs(vlm, context)
    length = inputs["input_ids"].shape[1]
    if not after:
        with torch.no_grad():
            output = vlm.model.generate(**inputs, do_sample=False, max_new_tokens=GREEDY.max_new_tokens)
        text = str(vlm.tokenizer.decode(output[0, length:], skip_special_tokens=True))
        return text.removeprefix(vlm.traits.chat.lead)
    ids = plain.answer_ids(vlm, after)[: -len(vlm.traits.end_ids)]
    beginning = len(ids)
    while len(ids) < beginning + GREEDY.max_new_tokens and ids[-1] not in vlm.traits.stop_ids:
        with torch.no_grad():
            logits = vlm.model(**plain.extended(vlm, inputs, ids), use_cache=False).logits
        ids.append(int(logits[0, -1].argmax()))
    return str(vlm.tokenizer.decode(ids[beginning:], skip_special_tokens=True))


def masks_image_tokens(family: Family) -> None:
    """Hidden image tokens are as masked in a full row that keeps its positions; with all hidden, no image shows."""
    vlm, context = family.vlm, dataclasses.replace(family.contexts[0], view=TokenMask(0.6))
    ids = plain.answer_ids(vlm, "A dog.")
    inputs = plain.extended(vlm, plain.prompt_inputs(vlm, context), ids)
    places = families.positions(vlm.model, inputs)[0]
    prepared = prepare(vlm, context)
    inputs["attention_mask"][0, : prepared.length][prepared.hidden] = 0
    with torch.no_grad():
        logits = vlm.model(**inputs, position_ids=places, use_cache=False).logits[0, -len(ids) - 1 : -1]
        wanted = logits.float().log_softmax(-1)[range(len(ids)), ids]
        found = score(vlm, encode(vlm, [context]), [["A dog."]])[0][0]
    assert (found - wanted).abs().max() < EXACT
    assert ((found - _score(vlm, family.contexts[0], 0, "A dog.")).abs() > EXACT).any()
    blind = dataclasses.replace(family.contexts[0], view=TokenMask(1.0))
    one, other = (_score(vlm, blind, seed, "A dog.") for seed in (0, 1))
    assert (one - other).abs().max() < EXACT


def trains_lora(family: Family) -> None:
    """One step of a low-rank adapter makes a chosen answer likelier against a rejected one; off, it is the base."""
    base = _base(family)
    context, pair = family.contexts[:1], [["Yes.", "There are three cups."]]
    with torch.no_grad():
        before = _margin(base, context, pair)
    vlm = attach_lora(base, LoraSettings(rank=4, alpha=8), seed=0)
    trained = [p for p in vlm.model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3)
    vlm.model.train()
    (-_margin(vlm, context, pair)).backward()
    optimizer.step()
    vlm.model.eval()
    with torch.no_grad():
        assert _margin(vlm, context, pair) > before + 1e-3
        with adapters_off(vlm):
            assert _margin(vlm, context, pair) == before


def answer_only_adapter(family: Family) -> None:
    """An adapter that acts on answers only scores and learns as PEFT's activated LoRA does on whole rows."""
    contexts, answers = family.contexts[:2], plain.ANSWERS[:2]
    # Under another name, since of a family that failed before it would be refused.
    unknown = dataclasses.replace(_base(family), family="unknown")
    attached = attach_lora(unknown, LoraSettings(rank=4, acts_on="answers"), seed=0)
    vlm = dataclasses.replace(attached, family=family.vlm.family)
    _stir(vlm)
    save_trained(vlm, family.folder / "adapter")
    by_peft = PeftModel.from_pretrained(_base(family).model, family.folder / "adapter", is_trainable=True).eval()
    rows = dataclasses.replace(vlm, model=by_peft)
    separate = [
        [plain.answer_logprobs(rows, one, text) for text in texts] for one, texts in zip(contexts, answers, strict=True)
    ]
    shared = score(vlm, encode(vlm, contexts), answers)
    assert plain.largest_difference(separate, shared) < EXACT
    wanted, found = gradient(rows, separate), gradient(vlm, shared)
    assert wanted.norm() > 1
    assert (wanted - found).norm() / wanted.norm() < EXACT


def _base(family: Family) -> Vlm:
    """The model once more, frozen."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        vlm = assemble(family.name, random_model(family.tiny), family.tiny.processor)
    vlm.model.requires_grad_(False)
    return vlm


def _stir(vlm: Vlm) -> None:
    """Freshly attached adapters are zero: give them values, as training would."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in vlm.model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)


def _margin(vlm: Vlm, contexts: list[Context], pair: list[list[str]]) -> torch.Tensor:
    chosen, rejected = score(vlm, encode(vlm, contexts), pair)[0]
    return chosen.sum() - rejected.sum()


COLUMNS: Mapping[str, Callable[[Family], None]] = {
    "loads": loads,
    "scores": scores,
    "shares": shares,
    "samples": samples,
    "masks_image_tokens": masks_image_tokens,
    "trains_lora": trains_lora,
    "answer_only_adapter": answer_only_adapter,
}
