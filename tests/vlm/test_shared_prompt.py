"""Prompts about one image, read from a shared start, against each read by itself."""

import dataclasses

import pytest
import torch
from PIL import Image

from veridical.errors import UserError
from veridical.records import Message
from veridical.vlm.generation.generate import generate
from veridical.vlm.generation.params import Branch, SamplingParams
from veridical.vlm.images.views import FeatureNoise, NoImage, Noise, TokenMask
from veridical.vlm.inputs.context import Context
from veridical.vlm.load import load
from veridical.vlm.model.loading import Sharing
from veridical.vlm.prefix.encode import encode
from veridical.vlm.prefix.shared_prompt import encode_together, prepare_together
from veridical.vlm.probe import shared_prompt_obstacle
from veridical.vlm.scores.scoring import score

QUESTIONS = ("Describe this image.", "Is there a fork in the image?", "Is there a car?", "What is on the left?")
GREEDY = SamplingParams(max_new_tokens=8, temperature=0.0)


@pytest.fixture(scope="module", params=["llava_folder", "qwen2_vl_folder"])
def vlm(request):
    return load(request.getfixturevalue(request.param), device="cpu")


def pictures() -> list[Image.Image]:
    """Three pictures of different sizes, which take different numbers of tokens in Qwen2-VL."""
    slope = Image.linear_gradient("L")
    return [slope.resize((96, 96)).convert("RGB"), slope.rotate(90).resize((64, 120)).convert("RGB"),
            Image.radial_gradient("L").resize((110, 60)).convert("RGB")]  # fmt: skip


def asked(view=None) -> list[Context]:
    """Two to four questions about each picture, not side by side."""
    kept = {} if view is None else {"view": view}
    shown = pictures()
    return [
        Context((shown[index],), (Message("user", question),), key=("picture", index), **kept)
        for question in QUESTIONS
        for index in range(3)
        if (index, question) not in {(1, QUESTIONS[1]), (1, QUESTIONS[3])}
    ]


@pytest.mark.parametrize("view", [None, Noise(500), TokenMask(0.5), FeatureNoise(1.0), NoImage()])
def test_together_is_the_same_as_each_by_itself(vlm, view):
    contexts = asked(view)
    together = encode_together(vlm, contexts)
    assert together.shared
    with torch.no_grad():
        each = [encode(vlm, [context]) for context in contexts]
    for row, alone in enumerate(each):
        assert together.prepared[row].tensors["input_ids"].tolist() == alone.prepared[0].tensors["input_ids"].tolist()
        assert together.next_position[row] == alone.next_position[0]
        own = together.mask[row].bool()
        assert torch.equal(together.positions[..., row, own], alone.positions[..., 0, alone.mask[0].bool()])
        assert torch.allclose(together.logits[row], alone.logits[0], atol=1e-4)
    answers = [["Yes.", "There is a fork and a knife on the table."]] * len(contexts)
    with torch.no_grad():
        for both, (one,) in zip(
            score(vlm, together, answers), [score(vlm, p, [a]) for p, a in zip(each, answers, strict=True)], strict=True
        ):
            for found, wanted in zip(both, one, strict=True):
                assert torch.allclose(found, wanted, atol=1e-4)
    texts = generate(vlm, together, [Branch(row) for row in range(len(contexts))], GREEDY)
    assert texts == [generate(vlm, alone, [Branch(0)], GREEDY)[0] for alone in each]


def test_each_image_goes_through_the_tower_once(vlm):
    inner = vlm.model.model
    tower = inner.visual if hasattr(inner, "visual") else inner.vision_tower
    images: list[int] = []

    def count(_module, positional, named):
        grid = named.get("grid_thw")
        images.append(len(grid if grid is not None else [*positional, *named.values()][0]))

    hook = tower.register_forward_pre_hook(count, with_kwargs=True)
    try:
        for apart in (False, True):
            images.clear()
            encode_together(vlm, asked(), apart=apart)
            assert images == [3]
    finally:
        hook.remove()


def test_apart_reads_each_prompt_anew_and_says_the_same(vlm):
    contexts = asked()
    assert torch.allclose(
        encode_together(vlm, contexts).logits, encode_together(vlm, contexts, apart=True).logits, atol=1e-4
    )


def test_a_model_without_obstacle_and_one_that_cannot_share(vlm):
    assert shared_prompt_obstacle(vlm) == ""
    alone = dataclasses.replace(vlm, sharing=Sharing(tested=False, reason="it keeps no cache"))
    assert shared_prompt_obstacle(alone) == "it keeps no cache"
    with pytest.warns(UserWarning, match="it keeps no cache"):
        found = encode_together(alone, asked())
    assert not found.shared
    texts = generate(alone, found, [Branch(4)], GREEDY)
    assert texts == generate(vlm, encode_together(vlm, asked()), [Branch(4)], GREEDY)


def test_a_placeholder_in_any_of_the_questions_is_refused(vlm):
    token = vlm.tokenizer.convert_ids_to_tokens(vlm.traits.image_id)
    contexts = asked()
    bad = dataclasses.replace(contexts[5], prompt=(Message("user", f"What is {token}?"),), key=("picture 5",))
    with pytest.raises(UserError, match=r"picture 5.*placeholder"):
        prepare_together(vlm, [*contexts[:5], bad])
