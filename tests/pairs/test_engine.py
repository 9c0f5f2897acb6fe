"""What the engine answers to model requests, against full forwards of transformers' own model."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from tests.vlm import plain

from veridical.constructions.bdhs import BdhsSettings, bdhs
from veridical.constructions.protocol import Sample, Score, YesNo
from veridical.errors import UserError
from veridical.generators.local import LocalGenerator
from veridical.judges.panel import Panel
from veridical.judges.similarity import TokenSimilarity
from veridical.pairs.engine import Engine
from veridical.pairs.runner import kind, run_concurrently
from veridical.records import ImageFile, Record
from veridical.vlm.generation.params import SamplingParams
from veridical.vlm.inputs.context import Context
from veridical.vlm.load import attach_lora, load
from veridical.vlm.model.adapters import LoraSettings
from veridical.vlm.prefix.encode import encode
from veridical.vlm.scores import scoring

JUDGES = Panel((TokenSimilarity(),))


@pytest.fixture(scope="module", autouse=True)
def shown(tmp_path_factory) -> list[Context]:
    """Contexts as records bring them, with images in files."""
    folder = tmp_path_factory.mktemp("pictures")
    return [
        replace(context, images=tuple(on_disk(image, folder) for image in context.images))
        for context in plain.contexts()
    ]


@pytest.fixture(scope="module")
def engine(llava_folder) -> Engine:
    return Engine(LocalGenerator(load(llava_folder)), Panel())


def on_disk(image: Image.Image, folder: Path) -> ImageFile:
    path = folder / f"{hashlib.sha256(image.tobytes()).hexdigest()}.png"
    image.save(path)
    return ImageFile(path, hashlib.sha256(path.read_bytes()).hexdigest())


def in_memory(context: Context) -> Context:
    return replace(context, images=tuple(Image.open(image.path) for image in context.images))


def close(one, other) -> bool:
    return torch.allclose(torch.tensor(one), torch.as_tensor(other), atol=1e-4)


def test_scores_are_those_of_separate_forwards(engine, shown):
    requests = [Score(shown[0], plain.ANSWERS[0]), Score(shown[1], plain.ANSWERS[1]), Score(shown[0], plain.ANSWERS[2])]
    for request, scores in zip(requests, engine(requests), strict=True):
        for text, score in zip(request.texts, scores, strict=True):
            assert close(score.policy, plain.answer_logprobs(engine.generator.vlm, in_memory(request.context), text))
            assert score.reference == score.policy
            assert score.log_ratio == 0


def test_with_an_adapter_the_reference_is_the_base(llava_folder, engine, shown):
    adapted = attach_lora(load(llava_folder), LoraSettings(rank=2), seed=0)
    with torch.no_grad():
        for name, parameter in adapted.model.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.02)
    request = Score(shown[2], plain.ANSWERS[2])
    [scores], [base] = Engine(LocalGenerator(adapted), Panel())([request]), engine([request])
    for text, score, plainly in zip(request.texts, scores, base, strict=True):
        assert close(score.policy, plain.answer_logprobs(adapted, in_memory(shown[2]), text))
        assert close(score.reference, plainly.policy)
        assert abs(score.log_ratio) > 0.01
        assert score.log_ratio == pytest.approx(sum(score.policy) - sum(score.reference))


def test_yes_or_no_is_the_share_of_yes_among_the_two(engine, shown):
    requests = [YesNo(shown[1]), YesNo(shown[0]), YesNo(shown[1])]
    answers = engine(requests)
    for request, answer in zip(requests, answers, strict=True):
        firsts = [
            plain.answer_logprobs(engine.generator.vlm, in_memory(request.context), word)[0].exp()
            for word in ("Yes", "No")
        ]
        assert answer == pytest.approx(float(firsts[0] / sum(firsts)), abs=1e-4)
    assert answers[0] == answers[2] != answers[1]


def test_a_sample_goes_on_from_the_text_it_is_given(engine, shown):
    after = ("There is a fork and", "", "A dog")
    sampling = SamplingParams(max_new_tokens=6, temperature=0.0)
    keys = (("a",), ("b",), ("c",))
    [answers] = engine([Sample(shown[0], keys, sampling, after)])
    for start, answer in zip(after, answers, strict=True):
        expected = continued(engine.generator.vlm, in_memory(shown[0]), start, 6)
        assert answer.text == (expected.rstrip() if start else expected.strip())


def test_one_sample_may_go_on_and_another_start_afresh(engine, shown):
    sampling = SamplingParams(max_new_tokens=5, temperature=0.0)
    requests = [Sample(shown[0], (("a",),), sampling), Sample(shown[1], (("b",),), sampling, ("A cat",))]
    assert kind(requests[0]) == kind(requests[1])
    together = engine(requests)
    assert together == [answer for request in requests for answer in engine([request])]


def test_as_many_texts_to_go_on_from_as_keys(shown):
    with pytest.raises(ValueError, match="2 keys, but 1 texts"):
        Sample(shown[0], (("a",), ("b",)), SamplingParams(), ("A dog",))


def test_what_the_model_refuses_is_refused_alone(engine, shown):
    good, bad = Score(shown[0], ("Yes.",)), Score(shown[0], ("An <image>.",))
    answers = engine([good, bad, replace(good, texts=("No.",))])
    assert isinstance(answers[1], UserError)
    assert [len(answers[0]), len(answers[2])] == [1, 1]


def continued(vlm, context, start: str, tokens: int) -> str:
    """The greedy continuation, each token by a full forward of everything before it."""
    ids = vlm.tokenizer(start, add_special_tokens=False).input_ids if start else []
    new: list[int] = []
    while len(new) < tokens:
        inputs = plain.prompt_inputs(vlm, context)
        inputs["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([[*ids, *new]]).long()], 1)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        token = int(vlm.model(**inputs, use_cache=False).logits[0, -1].argmax())
        if token == vlm.tokenizer.eos_token_id:
            break
        new.append(token)
    return str(vlm.tokenizer.decode(new, skip_special_tokens=True))


def test_a_model_in_the_middle_of_training_answers_as_it_is_and_trains_on(llava_folder, shown):
    def policy(dropout: float):
        vlm = attach_lora(load(llava_folder), LoraSettings(rank=2, dropout=dropout), seed=0)
        with torch.no_grad():
            for name, parameter in vlm.model.named_parameters():
                if "lora_B" in name:
                    parameter.fill_(0.02)
        return vlm

    vlm = policy(dropout=0.5)
    vlm.model.train()
    settings = BdhsSettings(view="token-mask:0.5", max_new_tokens=8, keep_unfinished=True, tries=1)
    record = Record("r", shown[0].images, shown[0].prompt, "There is a fork on the table. A dog is in the park.")

    def made(policy):
        [(_, outcome)] = run_concurrently(
            [(0, "r", bdhs(record, settings, 0))], Engine(LocalGenerator(policy), JUDGES), 4
        )
        return [pair.rejected for pair in outcome]

    calm = policy(dropout=0.0)
    assert made(vlm) == made(calm) != []
    assert vlm.model.training
    prefix = encode(vlm, [shown[0]])
    scoring.score(vlm, prefix, [["A dog."]])[0][0].sum().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in vlm.model.parameters())
