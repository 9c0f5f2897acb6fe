"""The judge that compares images with texts, against the model's own two encoders."""

from __future__ import annotations

import hashlib

import numpy
import pytest
import torch
from PIL import Image
from tests.judges.detectors import WORDS, _merges
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizerFast

from veridical.errors import UserError
from veridical.judges.image_text import ImageTextSettings
from veridical.judges.interface import Compare, JudgeError, Rate
from veridical.judges.registry import JudgeContext, settings_type
from veridical.records import ImageFile, Message, Record

PROMPT = (Message("user", "?"),)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    letters = [*map(chr, range(97, 123))]
    merges = [pair for word in WORDS for pair in _merges(word)]
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), *map("".join, merges)]
    vocabulary = list(dict.fromkeys([*pieces, "<|startoftext|>", "<|endoftext|>"]))
    tokenizer = CLIPTokenizerFast(
        vocab={token: place for place, token in enumerate(vocabulary)},
        merges=list(dict.fromkeys(merges)),
        model_max_length=16,
    )
    text = {"vocab_size": len(vocabulary), "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
            "num_attention_heads": 2, "max_position_embeddings": 16, "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}  # fmt: skip
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
              "image_size": 32, "patch_size": 16}  # fmt: skip
    torch.manual_seed(0)
    out = tmp_path_factory.mktemp("clip")
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)).save_pretrained(out)
    size = {"height": 32, "width": 32}
    CLIPProcessor(CLIPImageProcessor(size=size, crop_size=size), tokenizer).save_pretrained(out)
    return out


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    path = tmp_path_factory.mktemp("pictures") / "a.png"
    noise = numpy.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=numpy.uint8)
    Image.fromarray(noise).save(path)
    return Record("r", (ImageFile(path, hashlib.sha256(path.read_bytes()).hexdigest()),), PROMPT)


def test_rates_are_scaled_cosines_of_the_two_encoders(folder, record):
    judge = ImageTextSettings(model=str(folder), device="cpu").open(JudgeContext())
    texts = ("a red cat", "a photo of traffic", "a red cat " * 30)
    found = judge.rate([Rate(record, PROMPT, text) for text in texts])
    picture = judge.processor(images=[Image.open(record.images[0].path)], return_tensors="pt")
    for text, rate in zip(texts, found, strict=True):
        words = judge.processor(text=[text], truncation=True, return_tensors="pt")
        with torch.no_grad():
            seen = judge.model.visual_projection(judge.model.vision_model(**picture).pooler_output)
            read = judge.model.text_projection(judge.model.text_model(**words).pooler_output)
        cosine = torch.nn.functional.cosine_similarity(seen, read).item()
        assert rate == pytest.approx(cosine * judge.model.logit_scale.exp().item(), abs=1e-4)
    [preference] = judge.compare([Compare(record, PROMPT, texts[0], texts[1])])
    assert (preference.margin > 0) == (found[0] > found[1])


def test_what_it_needs(folder, record, tmp_path):
    assert settings_type("image-text") is ImageTextSettings
    with pytest.raises(UserError, match=r"--judge\.model"):
        ImageTextSettings().open(JudgeContext())
    with pytest.raises(UserError, match=r"no model|can't be loaded"):
        ImageTextSettings(model=str(tmp_path)).open(JudgeContext())
    judge = ImageTextSettings(model=str(folder), device="cpu").open(JudgeContext())
    blind = Record("b", (), PROMPT)
    assert judge.lacks(Rate, blind).reason == "no-image"
    assert judge.lacks(Rate, record) is None
    good, bad = judge.rate([Rate(record, PROMPT, "a cat"), Rate(blind, PROMPT, "a cat")])
    assert isinstance(good, float)
    assert isinstance(bad, JudgeError)
