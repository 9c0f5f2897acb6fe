"""Losses over whole optimiser steps, whole distributions, random views drawn anew, training without the image."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from tests.align.conftest import adapted, make_pairs
from tests.align.test_logps import plain_log_probs, scored
from tests.align.test_trainer import trained

from veridical.align.batch_loss import loss_of
from veridical.align.checks import prepare
from veridical.align.command import run
from veridical.align.config import AlignConfig
from veridical.align.draws import Drawn, draw_of, drawn
from veridical.align.embeddings import PairEmbeddings
from veridical.align.inputs import BatchEncoder
from veridical.align.memory_of_pairs import PairMemory
from veridical.align.reference import ReferenceCache, fill, missing
from veridical.errors import UserError
from veridical.objectives.base import Blend, LogpRequest
from veridical.objectives.chip import Chip
from veridical.objectives.ddpo import Ddpo
from veridical.objectives.dpo import Dpo
from veridical.objectives.kto import Kto
from veridical.objectives.mdpo import Mdpo
from veridical.objectives.rpo import Rpo, cosine_distances
from veridical.objectives.spa import Spa
from veridical.pairs.dataset import write_build
from veridical.vlm.images.views import Blank, Clean, Crop
from veridical.vlm.model.adapters import LoraSettings, adapters_off


@pytest.mark.parametrize(
    "objective",
    [Rpo(), Rpo(weights="uniform", form="unpaired"), Kto(), Spa(window=3, start=0.0, smoothing=0.4)],
    ids=repr,
)
def test_micro_batches_change_nothing(tmp_path, llava_folder, pictures, objective):
    pairs = make_pairs(pictures, 11)
    rows, weights = trained(tmp_path / "4", llava_folder, pairs, micro_batch=4, objective=objective)
    others, other_weights = trained(tmp_path / "1", llava_folder, pairs, micro_batch=1, objective=objective)
    assert len(rows) == len(others) == 3
    for one, two in zip(rows, others, strict=True):
        assert one["loss"] == pytest.approx(two["loss"], abs=1e-5)
        assert one["grad_norm"] == pytest.approx(two["grad_norm"], abs=1e-3)
    torch.testing.assert_close(weights, other_weights, atol=1e-4, rtol=0)


def test_a_step_of_rpo_is_its_formula_over_all_its_pairs(tmp_path, llava_folder, pictures):
    objective = Rpo(beta=0.5)
    rows, _ = trained(tmp_path / "a", llava_folder, make_pairs(pictures, 4), micro_batch=1, objective=objective)
    vlm = adapted(llava_folder)
    examples = prepare(make_pairs(pictures, 4), vlm, 512, "shorten").examples
    found = PairEmbeddings(vlm).of(examples, objective.embeds())
    assert cosine_distances(found["prompt"])[0, 2].item() == pytest.approx(0, abs=1e-5)  # the same prompt
    assert cosine_distances(found["prompt"])[0, 1].item() > 0.1
    assert cosine_distances(found["image"], centred=True)[0, 1].item() > 0.1
    # Before the first step every log-ratio is 0, so the loss is log 2, whatever the weights are.
    assert rows[0]["loss"] == pytest.approx(0.6931, abs=1e-3)
    assert 0.25 < rows[0]["own_weight"] < 1


# whole distributions


def plain_logits(vlm, example, text, blank=False):
    """The logits that predict an answer's tokens, and these, from one ordinary forward pass over the whole row."""
    from PIL import Image

    content = [{"type": "image"}, {"type": "text", "text": example.prompt[0].text}]
    row = vlm.processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    image = Image.open(example.images[0].path).convert("RGB")
    image = Image.new("RGB", image.size, (127, 127, 127)) if blank else image
    inputs = vlm.processor(images=[image], text=row + text + "<|end|>", return_tensors="pt", add_special_tokens=False)
    count = len(vlm.tokenizer(text, add_special_tokens=False).input_ids) + 1
    with torch.no_grad():
        logits = vlm.model(**inputs, use_cache=False).logits[0, -count - 1 : -1].float()
    return logits, inputs["input_ids"][0, -count:]


def test_blended_logits_and_divergences_are_those_of_plain_forwards(llava_folder, pictures):
    vlm = adapted(llava_folder, perturb=True)
    examples = prepare(make_pairs(pictures, 3), vlm, 512, "shorten").examples
    chosen = LogpRequest("chosen")
    divergence = LogpRequest("chosen", reference=False, divergence=True)
    extrapolated = LogpRequest("rejected", reference=False, blend=Blend(1.3))
    guided = LogpRequest("chosen", reference=False, blend=Blend(1.5, "policy", Blank()))
    led = LogpRequest("chosen", reference=False, blend=Blend(1.5, "reference", Blank()))
    needs = (chosen, divergence, extrapolated, guided, led)
    found = scored(BatchEncoder(vlm, 2**30), examples, needs)
    for place, example in enumerate(examples):
        own, ids = plain_logits(vlm, example, example.chosen.text)
        blind, _ = plain_logits(vlm, example, example.chosen.text, blank=True)
        worse, worse_ids = plain_logits(vlm, example, example.rejected.text)
        with adapters_off(vlm):
            base, _ = plain_logits(vlm, example, example.chosen.text)
            base_worse, _ = plain_logits(vlm, example, example.rejected.text)
            base_blind, _ = plain_logits(vlm, example, example.chosen.text, blank=True)
        torch.testing.assert_close(
            found[chosen][place], plain_log_probs(vlm, example, example.chosen.text), atol=1e-4, rtol=0
        )
        kl = torch.distributions.kl_divergence(
            torch.distributions.Categorical(logits=base), torch.distributions.Categorical(logits=own)
        )
        assert kl.mean() > 1e-3
        torch.testing.assert_close(found[divergence][place], kl, atol=1e-4, rtol=0)
        for need, logits, tokens in (
            (extrapolated, 1.3 * worse - 0.3 * base_worse, worse_ids),
            (guided, 1.5 * own - 0.5 * blind, ids),
            (led, 1.5 * own - 0.5 * base_blind, ids),
        ):
            wanted = logits.log_softmax(-1).gather(1, tokens[:, None])[:, 0]
            torch.testing.assert_close(found[need][place], wanted, atol=1e-4, rtol=0)
    assert found[divergence][0].requires_grad


def test_whole_distributions_need_the_reference_at_hand(tmp_path):
    for changes in ({"train": "language"}, {"start": tmp_path, "reference": "start"}):
        with pytest.raises(UserError, match="whole distributions"):
            AlignConfig(pairs=tmp_path, out=tmp_path, objective=Chip(), **changes)
    AlignConfig(pairs=tmp_path, out=tmp_path, objective=Chip(token_weight=0), train="language")


def test_muffins_edits_reach_the_objective(llava_folder, pictures):
    vlm = adapted(llava_folder)
    pairs = make_pairs(pictures, 2)
    words = prepare(pairs, vlm, 512, "shorten").examples
    spans = prepare(pairs, vlm, 512, "shorten", objective=Ddpo(variant="released")).examples
    assert [e.chosen.edits for e in words] != [e.chosen.edits for e in spans]
    for example in spans:
        # The end of the turn belongs to a span where the answers end differently.
        assert (
            len(example.chosen.edits) == len(vlm.tokenizer(example.chosen.text, add_special_tokens=False).input_ids) + 1
        )
        assert max(example.chosen.edits) == max(example.rejected.edits)


# draws


def test_views_are_drawn_anew_for_every_epoch_and_seed(examples):
    view, example = Crop(), examples[0]
    keys = {drawn(example, draw_of("anew", seed, epoch)).context_key(view) for seed in range(3) for epoch in range(2)}
    assert len(keys) == 6
    fixed = {drawn(example, draw_of("fixed", seed, 1)).context_key(view) for seed in range(3)}
    assert fixed == {example.context_key(view)}
    assert drawn(example, (1, 2)).context_key(Clean()) == example.context_key(Clean())
    assert [one.draw for one in Drawn(examples, (1, 2))[:2]] == [(1, 2), (1, 2)]


def test_policy_and_reference_see_the_same_draw(tmp_path, llava_folder, pictures):
    config = AlignConfig(
        pairs=write_build(tmp_path / "build", make_pairs(pictures, 8)),
        out=tmp_path / "run",
        model=str(llava_folder),
        objective=Mdpo(),
        lora=LoraSettings(rank=4, alpha=8),
        learning_rate=1e-12,
        epochs=2,
        batch_size=4,
        workers=0,
        device="cpu",
        held_out=0.0,
        seed=5,
    )
    run(config)
    rows = [json.loads(line) for line in (config.out / "log.jsonl").read_text().splitlines()]
    # The adapter doesn't move, so that policy and reference agree on every image that both see.
    assert all(abs(row["rewards/image_margins"]) < 1e-4 for row in rows)
    summary = json.loads((config.out / "summary.json").read_text())
    assert summary["reference_computed"] > 0


def test_anew_is_another_training_for_each_seed(tmp_path, llava_folder, pictures):
    """The pairs in the same order, the same adapter: only the views differ between seeds, unless they are fixed."""
    losses = {}
    for draws in ("anew", "fixed"):
        for seed in (0, 1):
            vlm = adapted(llava_folder, perturb=True)
            examples = prepare(make_pairs(pictures, 4), vlm, 512, "shorten").examples
            encoder, cache = BatchEncoder(vlm, 2**30), ReferenceCache(tmp_path / "reference")
            shown = Drawn(examples, draw_of(draws, seed, 0))
            needs = Mdpo().needs()
            fill(cache, encoder, missing(cache, shown, needs), needs, 4, 0, lambda _: None)
            batch = encoder.load(list(shown), [Clean(), Crop()])
            losses[draws, seed] = loss_of(encoder, cache, Mdpo(), batch)[0].item()
    assert losses["anew", 0] != losses["anew", 1]
    assert losses["fixed", 0] == losses["fixed", 1]


# without the image


def test_without_the_image_nothing_of_it_is_learnt(tmp_path, llava_folder, pictures):
    """The same pairs on other pictures give the same adapter."""
    adapters = []
    for name, shift in (("a", 0), ("b", 1)):
        pairs = [replace(pair, images=(pictures[shift],)) for pair in make_pairs(pictures, 6)]
        config = AlignConfig(
            pairs=write_build(tmp_path / f"build-{name}", pairs), out=tmp_path / name, model=str(llava_folder),
            objective=Dpo(), lora=LoraSettings(rank=4, alpha=8), learning_rate=1e-3, epochs=1, batch_size=3,
            workers=0, device="cpu", without_image="none", held_out=0.0,
        )  # fmt: skip
        run(config)
        adapters.append((config.out / "adapter" / "adapter_model.safetensors").read_bytes())
    assert adapters[0] == adapters[1]


def test_without_the_image_there_is_nothing_to_compare(tmp_path, llava_folder, pictures):
    config = AlignConfig(
        pairs=write_build(tmp_path / "build", make_pairs(pictures, 4)), out=tmp_path / "run", model=str(llava_folder),
        objective=Mdpo(), without_image="none", device="cpu",
    )  # fmt: skip
    with pytest.raises(UserError, match="compares images"):
        run(config)


# memory


def test_the_memory_of_pairs_survives_a_checkpoint(tmp_path, examples):
    memory = PairMemory(Spa(window=3))
    for number, batch in enumerate((examples[:2], examples[2:4])):
        memory._of_step = {example.id: float(number) + place for place, example in enumerate(batch)}
        memory.end_step()
    assert memory.state(0.5).remembered == (1.0, 1.0, 2.0)
    memory.save(tmp_path)
    again = PairMemory(Spa(window=3))
    again.load(tmp_path)
    assert again.state(0.5) == memory.state(0.5)
    PairMemory(Dpo()).save(tmp_path / "nowhere")  # nothing to remember, nothing written
    assert not (tmp_path / "nowhere").exists()
