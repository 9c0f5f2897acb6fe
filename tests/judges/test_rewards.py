"""Judges that score: the implicit reward, sequence classifiers, and our own trained head, against plain forwards."""

import functools
import hashlib
import json
import math
import random
from dataclasses import replace

import numpy
import pytest
import torch
from PIL import Image

from models import CHATML_TEMPLATE, tokenizer
from veridical.errors import UserError
from veridical.judge_training.reward_probe import ProbeConfig, fit, is_held_out, run
from veridical.judges.implicit import ImplicitSettings
from veridical.judges.interface import Compare, JudgeError, Rate
from veridical.judges.registry import JudgeContext
from veridical.judges.reward_model import RewardModelSettings
from veridical.records import ImageFile, Message, Pair, Provenance, Record
from vlm import plain

TEXTS = ("There is a fork.", "There is a fork and a knife on the table.", "No.")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    found = []
    for index in range(3):
        plain.picture(index).save(folder / f"{index}.png")
        content = (folder / f"{index}.png").read_bytes()
        found.append(ImageFile(folder / f"{index}.png", hashlib.sha256(content).hexdigest()))
    return found


def rates(pictures):
    return [Rate(Record(f"r{i}", (pictures[i],), plain.DESCRIBE), plain.DESCRIBE, text) for i, text in enumerate(TEXTS)]


@pytest.fixture(scope="module")
def adapted(llava_folder):
    """A model with an adapter that changes what it says."""
    from veridical.vlm.load import attach_lora, load
    from veridical.vlm.model.adapters import LoraSettings

    vlm = attach_lora(load(llava_folder, device="cpu"), LoraSettings(), 0)
    with torch.no_grad():
        for name, parameter in vlm.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.1, generator=torch.Generator().manual_seed(len(name)))
    return vlm


@pytest.mark.parametrize("per_token", [False, True])
def test_the_implicit_reward_is_the_log_ratio_of_two_plain_forwards(adapted, pictures, per_token):
    judge = ImplicitSettings(beta=0.2, per_token=per_token, batch_size=2).open(JudgeContext(None, lambda: adapted))
    found = judge.rate(rates(pictures))
    for request, rate in zip(rates(pictures), found, strict=True):
        context = plain.Context(request.record.images, request.prompt)
        context = replace(context, images=tuple(Image.open(image.path) for image in request.record.images))
        with torch.no_grad():
            policy = plain.answer_logprobs(adapted, context, request.text)
        with torch.no_grad(), adapted.model.disable_adapter():
            reference = plain.answer_logprobs(adapted, context, request.text)
        expected = 0.2 * float(policy.sum() - reference.sum()) / (len(policy) if per_token else 1)
        assert rate == pytest.approx(expected, abs=1e-4)
    assert max(found) - min(found) > 0.1


def test_preferences_are_bradley_and_terrys(adapted, pictures):
    judge = ImplicitSettings().open(JudgeContext(None, lambda: adapted))
    record = Record("r", (pictures[0],), plain.DESCRIBE)
    first, second = judge.rate([Rate(record, plain.DESCRIBE, text) for text in TEXTS[:2]])
    forward, backward = judge.compare(
        [Compare(record, plain.DESCRIBE, *TEXTS[:2]), Compare(record, plain.DESCRIBE, *TEXTS[1::-1])]
    )
    probability = 1 / (1 + math.exp(second - first))
    assert forward.margin == pytest.approx(2 * probability - 1, abs=1e-5)
    assert backward.margin == pytest.approx(-forward.margin, abs=1e-5)


def test_without_an_adapter_there_is_no_implicit_reward(llava_folder, pictures):
    from veridical.vlm.load import load

    model = functools.cache(lambda: load(llava_folder, device="cpu"))
    with pytest.raises(UserError, match="--adapter"):
        ImplicitSettings().open(JudgeContext(None, model)).rate(rates(pictures))


def test_an_answer_that_can_not_be_taken_fails_alone(adapted, pictures):
    judge = ImplicitSettings().open(JudgeContext(None, lambda: adapted))
    good, bad, other = rates(pictures)
    found = judge.rate([good, replace(bad, text=""), other])
    assert [isinstance(one, JudgeError) for one in found] == [False, True, False]


@pytest.mark.parametrize("template", [CHATML_TEMPLATE, None])
def test_a_sequence_classifier_gives_its_logit(tmp_path, template):
    from transformers import AutoModelForSequenceClassification, LlamaConfig

    words = tokenizer(("<pad>", "<|im_start|>", "<|im_end|>"), "<|im_end|>", "<pad>")
    words.chat_template = template
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_labels=1, pad_token_id=words.pad_token_id,
    )  # fmt: skip
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config)
    model.save_pretrained(tmp_path / "rm")
    words.save_pretrained(tmp_path / "rm")
    judge = RewardModelSettings(model=str(tmp_path / "rm"), device="cpu").open(JudgeContext())
    record = Record("r", (), plain.DESCRIBE)
    found = judge.rate([Rate(record, plain.DESCRIBE, text) for text in TEXTS])
    for text, rate in zip(TEXTS, found, strict=True):
        messages = [{"role": "user", "content": plain.DESCRIBE[0].text}, {"role": "assistant", "content": text}]
        written = words.apply_chat_template(messages, tokenize=False) if template else plain.DESCRIBE[0].text + text
        ids = words(written, return_tensors="pt", add_special_tokens=False)
        with torch.no_grad():
            assert rate == pytest.approx(model.eval()(**ids).logits.item(), abs=1e-4)


def test_reward_models_that_are_none_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"--judge\.model"):
        RewardModelSettings().open(JudgeContext())
    with pytest.raises(UserError, match=r"no config\.json in it"):
        RewardModelSettings(model=str(tmp_path)).open(JudgeContext())
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="can't be loaded"):
        RewardModelSettings(model=str(tmp_path)).open(JudgeContext())


def test_the_head_is_the_minimum_of_the_loss():
    """Against plain gradient descent in numpy, on the loss written out again."""
    random_ = numpy.random.default_rng(0)
    data = random_.normal(0.3, 1.0, (60, 4)) * numpy.array([1.0, 10.0, 0.1, 2.0])
    size = numpy.sqrt((data**2).mean(0))
    scaled, weights = data / size, numpy.zeros(4)
    for _ in range(20000):
        wrong = 1 / (1 + numpy.exp(scaled @ weights))
        weights -= 0.1 * (-(wrong[:, None] * scaled).mean(0) + 0.05 * weights)
    assert fit(torch.from_numpy(data), 0.05).numpy() == pytest.approx(weights / size, rel=1e-4)


def make_pairs(pictures, count):
    """Chosen sides speak of forks, rejected ones of dogs: something that a linear head can learn."""
    rng = random.Random(0)
    tails = (" on the table.", " in the park.", " and a cup.", " next to a tree.", ".")
    return [
        Pair(
            f"p{i}", f"r{i}", (pictures[i % 3],), plain.DESCRIBE,
            f"There is a fork{rng.choice(tails)}", f"There is a dog{rng.choice(tails)}",
            Provenance("test", "test", {}, 0, ""),
        )
        for i in range(count)
    ]  # fmt: skip


def test_training_a_reward_and_judging_with_it(tmp_path, llava_folder, pictures, capsys):
    from veridical.pairs.dataset import write_build
    from veridical.vlm.load import load

    pairs = make_pairs(pictures, 60)
    write_build(tmp_path / "pairs", pairs)
    config = ProbeConfig(pairs=tmp_path / "pairs", out=tmp_path / "reward", model=str(llava_folder), device="cpu")
    run(config)
    about = json.loads((config.out / "reward.json").read_text())
    held_out = [pair for pair in pairs if is_held_out(pair.record_id, 0.2, 0)]
    assert about["held_out"]["pairs"] == len(held_out) == 60 - about["train"]["pairs"]
    assert about["held_out"]["accuracy"] > 0.8
    assert f"{100 * about['held_out']['accuracy']:.1f} %" in capsys.readouterr().out

    judge = RewardModelSettings(model=str(config.out), device="cpu").open(JudgeContext())
    records = [Record(pair.record_id, pair.images, pair.prompt) for pair in held_out]
    found = judge.compare([Compare(r, r.prompt, p.chosen, p.rejected) for r, p in zip(records, held_out, strict=True)])
    assert sum(one.better == "first" for one in found) == round(about["held_out"]["accuracy"] * len(held_out))

    # The reward is the head times the last hidden state of a plain forward over prompt and answer.
    vlm = load(llava_folder, device="cpu")
    turns = (*records[0].prompt, Message("assistant", held_out[0].chosen))
    inputs = plain.prompt_inputs(vlm, plain.Context((Image.open(records[0].images[0].path),), turns))
    with torch.no_grad():
        state = vlm.model(**inputs, output_hidden_states=True).hidden_states[-1][0, -1]
    [rate] = judge.rate([Rate(records[0], records[0].prompt, held_out[0].chosen)])
    assert rate == pytest.approx(float(state @ judge.weights), abs=1e-3)

    before = (config.out / "head.safetensors").stat().st_mtime_ns
    run(config)
    assert (config.out / "head.safetensors").stat().st_mtime_ns == before
    with pytest.raises(UserError, match="other settings"):
        run(replace(config, penalty=1.0))
    with pytest.raises(UserError, match="no pairs"):
        run(replace(config, pairs=tmp_path / "nowhere", out=tmp_path / "other"))
