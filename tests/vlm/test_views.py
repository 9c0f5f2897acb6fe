from __future__ import annotations

import dataclasses
import itertools

import numpy
import pytest
import torch
from PIL import Image
from tests.vlm import plain

from veridical.errors import UserError
from veridical.records import Turn
from veridical.vlm import dropping, seeds, views, weaken
from veridical.vlm.prefix import Context, encode, features, prepare
from veridical.vlm.probe import Sharing
from veridical.vlm.sampling import Branch, Sampling, sample
from veridical.vlm.scoring import score
from veridical.vlm.views import (
    Blank,
    Blur,
    Clean,
    Crop,
    FeatureNoise,
    NoImage,
    Noise,
    PatchMask,
    TokenMask,
    UnknownToken,
    describe,
    parse,
    signal_and_noise,
)

WEAK = [
    Noise(900),
    Noise(900, "pixels"),
    Blur(20),
    Crop(),
    PatchMask(0.5, 6),
    TokenMask(0.6),
    FeatureNoise(),
    Blank(),
    UnknownToken(),
    NoImage(),
]

# Signal and noise factors that reference code gives at these steps.
TABLE = {
    200: (0.994, 0.111),
    300: (0.981, 0.194),
    400: (0.945, 0.328),
    500: (0.863, 0.505),
    600: (0.734, 0.679),
    700: (0.593, 0.805),
    800: (0.467, 0.884),
    900: (0.365, 0.931),
    999: (0.285, 0.959),
}


@pytest.mark.parametrize("step", TABLE)
def test_schedule_has_the_published_values(step):
    assert signal_and_noise(step) == pytest.approx(TABLE[step], abs=6e-4)


def test_schedule_equals_its_formula_in_float64():
    betas = torch.sigmoid(torch.linspace(-6, 6, 1000, dtype=torch.float64)) * (5e-3 - 1e-5) + 1e-5
    remaining = (1 - betas).cumprod(0)
    for step in (0, 1, 250, 777, 999):
        assert signal_and_noise(step)[0] == pytest.approx(float(remaining[step].sqrt()), rel=1e-9)
        assert signal_and_noise(step)[1] == pytest.approx(float((1 - remaining[step]).sqrt()), rel=1e-9)


@pytest.mark.parametrize("step", [-1, 1000])
def test_steps_outside_the_schedule_are_refused(step):
    with pytest.raises(ValueError, match="between 0 and 999"):
        Noise(step)


def pixels(vlm, view, key=("r", 1), image=None) -> torch.Tensor:
    context = Context((image or plain.picture(0),), plain.DESCRIBE, view, key)
    return prepare(vlm, context).tensors["pixel_values"]


@pytest.mark.parametrize(("space", "scale"), [("normalised", 1.0), ("pixels", 2.0)])
def test_noise_is_added_in_its_space(llava, space, scale):
    """SigLIP's pixels are normalised by mean 0.5 and deviation 0.5, so noise in [0, 1] counts twice there."""
    clean, noisy = pixels(llava, Clean()), pixels(llava, Noise(500, space))
    signal, strength = signal_and_noise(500)
    expected = signal * clean + (signal - 1 if space == "pixels" else 0)
    drawn = (noisy - expected) / (strength * scale)
    assert drawn.mean().abs() < 0.02
    assert drawn.std() == pytest.approx(1, abs=0.02)
    assert abs(numpy.corrcoef(drawn.flatten(), clean.flatten())[0, 1]) < 0.02


def test_both_spaces_and_all_steps_draw_the_same_noise_for_a_key(llava):
    """What changes between steps is the strength alone, so that steps can be compared picture by picture."""
    clean = pixels(llava, Clean())
    drawn = []
    for step, space in itertools.product((300, 900), ("normalised", "pixels")):
        signal, strength = signal_and_noise(step)
        scale, centre = (2, signal * clean + (signal - 1)) if space == "pixels" else (1, signal * clean)
        drawn.append((pixels(llava, Noise(step, space)) - centre) / strength / scale)
    for other in drawn[1:]:
        torch.testing.assert_close(other, drawn[0], atol=1e-4, rtol=1e-4)


def test_noise_depends_on_the_key_alone(vlm):
    noise = Noise(700)
    assert torch.equal(pixels(vlm, noise), pixels(vlm, noise))
    assert not torch.equal(pixels(vlm, noise), pixels(vlm, noise, ("r", 2)))
    assert not torch.equal(pixels(vlm, noise), pixels(vlm, noise, ("r", "1")))
    torch.manual_seed(3)
    numpy.random.seed(3)
    first = pixels(vlm, noise)
    torch.manual_seed(4)
    numpy.random.seed(4)
    assert torch.equal(first, pixels(vlm, noise))


def test_images_of_one_context_get_noise_of_their_own(llava):
    twice = Context((plain.picture(0), plain.picture(0)), plain.DESCRIBE, Noise(999), ("r",))
    first, second = prepare(llava, twice).tensors["pixel_values"]
    assert abs(numpy.corrcoef((first - second).flatten(), first.flatten())[0, 1]) > 0.5


def test_qwen_sees_one_noisy_picture_not_two(qwen2_vl_folder):
    """Its patches hold every still picture twice, as two frames, which have to stay the same."""
    from veridical.vlm.loading import load

    noisy = pixels(load(qwen2_vl_folder), Noise(900))
    frames = noisy.view(len(noisy), 3, 2, 14, 14)
    assert torch.equal(frames[:, :, 0], frames[:, :, 1])


def test_the_processor_is_left_as_it_was(vlm):
    before = pixels(vlm, Clean())
    pixels(vlm, Noise(999))
    assert torch.equal(pixels(vlm, Clean()), before)


def test_blank_is_mid_grey(llava):
    values = pixels(llava, Blank())
    assert values.abs().max() < 0.01
    assert pixels(llava, Blank(), image=plain.picture(5)).equal(values)


def test_no_image_leaves_no_placeholder(vlm):
    prepared = prepare(vlm, Context((plain.picture(0),), plain.DESCRIBE, NoImage()))
    assert "pixel_values" not in prepared.tensors
    assert prepared.placeholders == 0
    assert vlm.traits.image_id not in prepared.tensors["input_ids"]


@pytest.mark.parametrize("view", WEAK, ids=describe)
def test_a_view_changes_every_answer_token(vlm, view):
    with_unknown_token(vlm)
    clean = Context((plain.picture(0),), plain.DESCRIBE, key=("r",))
    prefix = encode(vlm, [clean, dataclasses.replace(clean, view=view)])
    (one,), (other,) = score(vlm, prefix, [["There is a fork."]] * 2)
    assert ((one - other).abs() > 1e-3).all()


@pytest.mark.parametrize("view", WEAK, ids=describe)
def test_shared_scores_of_a_view_equal_separate_ones(vlm, view):
    with_unknown_token(vlm)
    contexts = [dataclasses.replace(context, view=view) for context in plain.contexts()]
    shared = score(vlm, encode(vlm, contexts), plain.ANSWERS)
    alone = dataclasses.replace(vlm, sharing=Sharing(tested=False, reason="the test says so"))
    with pytest.warns(UserWarning, match="the test says so"):
        separate = score(alone, encode(alone, contexts), plain.ANSWERS)
    assert plain.largest_difference(shared, separate) < 1e-5


@pytest.mark.parametrize("view", [view for view in WEAK if views.is_random(view)], ids=describe)
def test_a_random_view_is_drawn_from_its_key_alone(vlm, view):
    def scored(*key):
        prefix = encode(vlm, [Context((plain.picture(0),), plain.DESCRIBE, view, key)])
        return score(vlm, prefix, [["There is a fork."]])[0][0]

    first = scored(7, "record", 0)
    assert torch.equal(scored(7, "record", 0), first)
    for other in ((8, "record", 0), (7, "another", 0), (7, "record", 1)):
        assert (scored(*other) - first).abs().max() > 1e-4


@pytest.mark.parametrize("view", WEAK, ids=describe)
def test_a_view_lasts_through_sampling_and_is_what_is_scored(vlm, view):
    """After a forced beginning, the likeliest text is the one that full forwards on the view give token by
    token; the clean image's differs.
    """
    with_unknown_token(vlm)
    shown = Context((plain.picture(0),), plain.DESCRIBE, view, ("r",))
    clean = dataclasses.replace(shown, view=Clean())
    after = "There is a fork and a"
    greedy = Sampling(max_new_tokens=12, temperature=0)
    ours, theirs = sample(vlm, encode(vlm, [shown, clean]), [Branch(0, (), after), Branch(1, (), after)], greedy)
    alone = dataclasses.replace(vlm, sharing=Sharing(tested=False, reason="the test says so"))
    with pytest.warns(UserWarning, match="the test says so"):
        assert sample(alone, encode(alone, [shown]), [Branch(0, (), after)], greedy) == [ours]
    assert ours.text != theirs.text


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
        monkeypatch.setattr(dropping, "equals_masking", lambda *_: False)
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
    assert dropping.equals_masking(llava, prepared)
    assert not dropping.equals_masking(dataclasses.replace(llava, family="gemma3"), prepared)
    llava.model.config.get_text_config(decoder=True).sliding_window = 8
    assert not dropping.equals_masking(llava, prepared)


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


def test_a_patch_mask_paints_cells_grey(llava):
    image = plain.picture(0)
    shown = weaken.picture(image, PatchMask(0.4, 8), seeds.generator("picture", ("r",)))
    cells = numpy.asarray(shown).reshape(8, 12, 8, 12, 3).transpose(0, 2, 1, 3, 4)
    grey = (cells == 127).all(axis=(2, 3, 4))
    assert 12 < grey.sum() < 39
    original = numpy.asarray(image).reshape(8, 12, 8, 12, 3).transpose(0, 2, 1, 3, 4)
    assert (cells[~grey] == original[~grey]).all()


def test_a_crop_shows_a_share_of_the_image_between_its_bounds():
    """On an image whose colours are its coordinates, what is left of the coordinates' range is the share."""
    across, down = numpy.meshgrid(numpy.linspace(0, 255, 200), numpy.linspace(0, 255, 100))
    image = Image.fromarray(numpy.stack([across, down, across], -1).astype(numpy.uint8))
    shares = []
    for draw in range(60):
        shown = weaken.picture(image, Crop(0.1, 0.4), seeds.generator("picture", (draw,)))
        assert shown.size == image.size
        ranges = numpy.ptp(numpy.asarray(shown, float), axis=(0, 1)) / 255
        shares.append(ranges[0] * ranges[1])
    assert 0.07 < min(shares) < 0.2
    assert 0.3 < max(shares) < 0.43


def test_a_blur_has_the_width_asked_for():
    """A black and white edge becomes the Gaussian's integral: 16 to 84 % of the way in two deviations."""
    edge = numpy.zeros((100, 200, 3), numpy.uint8)
    edge[:, 100:] = 255
    profile = numpy.asarray(weaken.picture(Image.fromarray(edge), Blur(5), seeds.generator("", ())))[50, :, 0] / 255.0
    assert numpy.interp(0.841, profile, range(200)) - numpy.interp(0.159, profile, range(200)) == pytest.approx(
        10, abs=1
    )


def test_an_unknown_token_stands_for_each_image(vlm):
    with_unknown_token(vlm)
    for context, images in zip(plain.contexts(), (1, 1, 2), strict=True):
        prepared = prepare(vlm, dataclasses.replace(context, view=UnknownToken()))
        clean = prepare(vlm, context).tensors["input_ids"][0].tolist()
        ids = prepared.tensors["input_ids"][0].tolist()
        unknown = vlm.tokenizer.unk_token_id
        assert ids.count(unknown) == images
        assert [i for i in ids if i != unknown] == [i for i in clean if i != vlm.traits.image_id]
        assert not any(key.startswith(("pixel", "image")) for key in prepared.tensors)


def with_unknown_token(vlm):
    vlm.tokenizer.unk_token = vlm.tokenizer.pad_token


def test_what_a_model_cannot_have_is_refused_with_a_way_out(llava):
    def show(vlm, view):
        prepare(vlm, Context((plain.picture(0),), plain.DESCRIBE, view, ("record 7",)))

    with pytest.raises(UserError, match=r"record 7: .*'unknown token'.*no unknown token.*Choose another"):
        show(llava, UnknownToken())
    outside = dataclasses.replace(llava, family="mllama")
    with pytest.raises(UserError, match="outside the prompt"):
        show(outside, TokenMask(0.5))
    without = dataclasses.replace(llava, traits=dataclasses.replace(llava.traits, takes_features=False))
    with pytest.raises(UserError, match="no image features"):
        show(without, FeatureNoise())


@pytest.mark.parametrize(
    ("text", "view"),
    [
        ("clean", Clean()),
        ("noise:500", Noise(500)),
        ("noise:500:pixels", Noise(500, "pixels")),
        ("blur:8", Blur(8)),
        ("crop:0.1:0.5", Crop(0.1, 0.5)),
        ("patch-mask:0.5:16", PatchMask(0.5, 16)),
        ("token-mask:0.6", TokenMask(0.6)),
        ("feature-noise:2", FeatureNoise(2)),
        ("blank", Blank()),
        ("unknown-token", UnknownToken()),
        ("none", NoImage()),
    ],
)
def test_a_short_text_names_a_view(text, view):
    assert parse(text) == view


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nose:500", "did you mean 'noise'"),
        ("noise", "write noise:NUMBER"),
        ("noise:1000", "between 0 and 999"),
        ("noise:500:linear", "'pixels' or 'normalised'"),
        ("blank:3", "at most 0"),
        ("token-mask:half", "half"),
        ("token-mask:1.5", "between 0 and 1"),
        ("crop:0.5:0.1", "least <= most"),
    ],
)
def test_a_text_that_names_no_view_is_refused(text, said):
    with pytest.raises(UserError, match=said):
        parse(text)


def test_gradients_flow_through_a_noisy_view(vlm):
    vlm.model.requires_grad_(True)
    prefix = encode(vlm, [Context((plain.picture(0),), (Turn("user", "What?"),), Noise(500))])
    score(vlm, prefix, [["Yes."]])[0][0].sum().backward()
    tower = next(vlm.model.model.children())
    assert max(float(p.grad.abs().max()) for p in tower.parameters() if p.grad is not None) > 0


def test_noise_needs_a_processor_that_can_have_it(llava, monkeypatch):
    from transformers import SiglipImageProcessorPil

    llava.processor.image_processor = SiglipImageProcessorPil(size={"height": 96, "width": 96})
    assert pixels(llava, Clean()).shape == (1, 3, 96, 96)
    with pytest.raises(UserError, match="SiglipImageProcessorPil"):
        pixels(llava, Noise(100))


def test_every_view_has_a_name_of_its_own():
    shown = [Noise(501), Noise(500), Noise(500, "pixels"), TokenMask(0.61), Clean(), *WEAK]
    names = [describe(view) for view in shown]
    assert len(set(names)) == len(shown)
    assert names[1] == "noise(500, normalised)"
    assert views.blank_colour() == (127, 127, 127)
