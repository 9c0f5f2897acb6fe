"""Views of the image's tokens and features: masks, noise, and one look of the tower for all of them."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from tests.vlm import plain

from veridical.vlm.images import views
from veridical.vlm.images.views import Clean, FeatureNoise, TokenMask
from veridical.vlm.inputs.context import Context
from veridical.vlm.inputs.prepare import prepare
from veridical.vlm.prefix import token_pruning
from veridical.vlm.prefix.encode import encode, features
from veridical.vlm.scores.scoring import score


def test_a_token_mask_is_a_masked_row_with_the_positions_of_the_whole_one(vlm):
    """Against one full forward of transformers' model: zeros in the 2D mask, positions of the unmasked row."""
    context = Context((plain.picture(0),), plain.DESCRIBE, TokenMask(0.6), ("r",))
    prepared = prepare(vlm, context)
    inputs = plain.prompt_inputs(vlm, context)
    ids = [*vlm.tokenizer("There is a fork.", add_special_tokens=False).input_ids, vlm.tokenizer.eos_token_id]
    inputs["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([ids])], 1)
    mask = torch.ones_like(inputs["input_ids"])
    if "mm_token_type_ids" in inputs:
        types = torch.cat([inputs["mm_token_type_ids"], torch.zeros(1, len(ids), dtype=torch.long)], 1)
        inputs["mm_token_type_ids"] = types
        grid = inputs["image_grid_thw"]
        places, _ = vlm.model.model.get_rope_index(
            inputs["input_ids"], mm_token_type_ids=types, image_grid_thw=grid, attention_mask=mask
        )
    else:
        places = torch.arange(mask.shape[1])[None]
    hidden = prepared.hidden
    assert (inputs["input_ids"][0, hidden] == vlm.traits.image_id).all()
    mask[0, hidden] = 0
    inputs["attention_mask"] = mask
    with torch.no_grad():
        logits = vlm.model(**inputs, position_ids=places, use_cache=False).logits[0, -len(ids) - 1 : -1]
        found = score(vlm, encode(vlm, [context]), [["There is a fork."]])[0][0]
    assert (found - logits.log_softmax(-1)[range(len(ids)), ids]).abs().max() < 1e-5


def test_tokens_are_hidden_at_the_rate_asked_for_and_more_of_them_at_a_higher_one(llava):
    images = tuple(plain.picture(seed) for seed in range(4))

    def hidden(rho):
        return set(prepare(llava, Context(images, plain.DESCRIBE, TokenMask(rho), ("r",))).hidden.tolist())

    assert len(hidden(1.0)) == 4 * 36
    assert not hidden(0.0)
    assert len(hidden(0.5)) == pytest.approx(72, abs=20)
    assert hidden(0.5) < hidden(0.9)


def test_wholly_hidden_image_tokens_leave_nothing_of_the_image(vlm):
    one, other = (Context((plain.picture(n),), plain.DESCRIBE, TokenMask(1.0), ("r",)) for n in (0, 1))
    first, second = score(vlm, encode(vlm, [one, other]), [["A dog."]] * 2)
    assert torch.equal(first[0], second[0])


def test_hiding_equals_dropping_with_positions_kept(llava):
    """In a full-attention family, the tokens left alone give the same scores as the masked row."""
    context = Context((plain.picture(0),), plain.DESCRIBE, TokenMask(0.7), ("r",))
    prepared = prepare(llava, context)
    ids = [*llava.tokenizer("A dog and a ball.", add_special_tokens=False).input_ids, llava.tokenizer.eos_token_id]
    whole = torch.cat([prepared.tensors["input_ids"][0], torch.tensor(ids)])
    with torch.no_grad():
        embedded = llava.model.get_input_embeddings()(whole)
        seen = llava.model.get_image_features(pixel_values=prepared.tensors["pixel_values"], return_dict=True)
        embedded[whole == llava.traits.image_id] = torch.cat(list(seen.pooler_output)).reshape(36, -1)
        kept = torch.tensor(sorted(set(range(len(whole))) - set(prepared.hidden.tolist())))
        # Without a mask, transformers would take gaps in the positions for packed sequences.
        hidden = llava.model.model.language_model(
            inputs_embeds=embedded[None, kept],
            attention_mask=torch.ones_like(kept)[None],
            position_ids=kept[None],
            use_cache=False,
        ).last_hidden_state
        logits = llava.model.lm_head(hidden)[0, -len(ids) - 1 : -1]
        found = score(llava, encode(llava, [context]), [["A dog and a ball."]])[0][0]
    assert (found - logits.log_softmax(-1)[range(len(ids)), ids]).abs().max() < 1e-5


def test_hidden_tokens_are_left_out_where_that_is_the_same(vlm, monkeypatch):
    """Scores, positions and what follows them, against the masked row; contexts hide different numbers of tokens."""
    contexts = [dataclasses.replace(one, view=view) for one in plain.contexts() for view in (TokenMask(0.8), Clean())]
    answers = [["There is a fork."]] * len(contexts)
    with torch.no_grad():
        dropped = encode(vlm, contexts)
        scores = score(vlm, dropped, answers)
        monkeypatch.setattr(token_pruning, "equals_masking", lambda *_: False)
        masked = encode(vlm, contexts)
        assert plain.largest_difference(scores, score(vlm, masked, answers)) < 1e-5
    seen = [one.length - (0 if one.hidden is None else len(one.hidden)) for one in masked.prepared]
    assert dropped.mask.sum(-1).tolist() == masked.mask.sum(-1).tolist() == seen
    assert torch.equal(dropped.next_position, masked.next_position)
    for row in range(len(contexts)):
        one, other = (prefix.positions[..., row, prefix.mask[row].bool()] for prefix in (dropped, masked))
        assert torch.equal(one, other)
    with torch.no_grad():
        assert encode(vlm, contexts[:1]).mask.shape[1] > int(dropped.mask[0].sum())


def test_a_window_or_a_family_not_tested_keeps_masking(llava):
    prepared = [prepare(llava, Context((plain.picture(0),), plain.DESCRIBE, TokenMask(0.8)))]
    assert token_pruning.equals_masking(llava, prepared)
    assert not token_pruning.equals_masking(dataclasses.replace(llava, family="gemma3"), prepared)
    llava.model.config.get_text_config(decoder=True).sliding_window = 8
    assert not token_pruning.equals_masking(llava, prepared)


def test_the_tower_looks_once_for_views_of_its_tokens(vlm):
    """Features of the clean image serve masked and noised tokens."""
    contexts = [Context((plain.picture(0),), plain.DESCRIBE, view, ("r",)) for view in (TokenMask(0.5), FeatureNoise())]
    assert {views.before_tower(context.view) for context in contexts} == {Clean()}
    clean = features(vlm, [prepare(vlm, Context((plain.picture(0),), plain.DESCRIBE))])
    with torch.no_grad():
        given = score(vlm, encode(vlm, contexts, clean * 2), [["A dog."]] * 2)
        own = score(vlm, encode(vlm, contexts), [["A dog."]] * 2)
    assert plain.largest_difference(given, own) < 1e-6


def test_the_tower_looks_once_at_an_image_however_it_is_masked(llava):
    """Several masks of one image in one call; gradients into the tower are those of separate passes."""
    tower = llava.model.model.vision_tower
    looked = []
    hook = tower.register_forward_pre_hook(lambda _module, given: looked.append(len(given[0])))
    contexts = [
        Context((picture,), plain.DESCRIBE, view, ("r", draw))
        for picture in (plain.picture(0), plain.picture(1))
        for draw in range(3)
        for view in (TokenMask(0.7), Clean())
    ]
    llava.model.requires_grad_(True)
    try:
        together = score(llava, encode(llava, contexts), [["A dog."]] * len(contexts))
        assert looked == [2]
    finally:
        hook.remove()
    alone = [score(llava, encode(llava, [context]), [["A dog."]])[0] for context in contexts]
    assert plain.largest_difference(together, alone) < 1e-5
    weights = list(tower.parameters())
    found, wanted = (
        torch.cat(
            [
                one.flatten()
                for one in torch.autograd.grad(plain.weighted_sum(scores), weights, allow_unused=True)
                if one is not None
            ]
        )
        for scores in (together, alone)
    )
    assert (found - wanted).norm() < 1e-5 * wanted.norm()


def test_feature_noise_is_as_wide_as_asked(llava):
    context = Context((plain.picture(0),), plain.DESCRIBE, FeatureNoise(0.5), ("r",))
    clean = features(llava, [prepare(llava, dataclasses.replace(context, view=Clean()))])[0].tokens
    with torch.no_grad():
        shown = encode(llava, [context]).features[0].tokens
    assert float((shown - clean).std() / clean.std()) == pytest.approx(0.5, rel=0.05)
