"""Reward models: their head, gradients and loss against plain forwards and a plain loop; what is saved judges alike."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.align.conftest import make_pairs
from tests.families.catalogue import FAMILIES
from tests.families.tiny import random_model

from veridical.align.checks import prepare
from veridical.align.final_metrics import BOTH
from veridical.align.inputs import BatchEncoder
from veridical.align.logps import views_of
from veridical.errors import UserError
from veridical.judge_training.reward import RewardConfig, run
from veridical.judge_training.reward_trainer import attach_head, bradley_terry, head_of, rewards
from veridical.judges.interface import Compare, Rate
from veridical.judges.registry import JudgeContext
from veridical.judges.reward_model import RewardModelSettings
from veridical.pairs.dataset import write_build
from veridical.records import Record
from veridical.vlm.images.files import open_image
from veridical.vlm.load import load
from veridical.vlm.model.adapters import LoraSettings
from vlm import plain

LORA = LoraSettings(rank=4, alpha=8)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    import numpy
    from tests.align.conftest import picture

    folder, random = tmp_path_factory.mktemp("pictures"), numpy.random.default_rng(0)
    return [picture(folder / f"{index}.png", random) for index in range(4)]


@pytest.fixture(scope="module")
def pairs(pictures):
    return [replace(pair, record_id=pair.id) for pair in make_pairs(pictures, 12)]


@pytest.fixture(scope="module")
def build(tmp_path_factory, pairs):
    return write_build(tmp_path_factory.mktemp("build"), pairs)


def plain_reward(vlm, images, prompt, text, weights):
    """The head times the last hidden state of a plain forward over prompt, answer and the end of the turn."""
    context = plain.Context(tuple(open_image(image) for image in images), prompt)
    ids = plain.answer_ids(vlm, text)
    inputs = plain.extended(vlm, plain.prompt_inputs(vlm, context), ids)
    return vlm.model(**inputs, output_hidden_states=True, use_cache=False).hidden_states[-1][0, -1] @ weights


@pytest.mark.parametrize("shared", [True, False])
def test_rewards_and_gradients_are_those_of_plain_forwards(llava_folder, pairs, shared):
    from tests.align.conftest import adapted

    vlm = adapted(llava_folder, perturb=True)
    if not shared:
        vlm = replace(vlm, sharing=replace(vlm.sharing, tested=False, reason="for the test"))
    attach_head(vlm, seed=0)
    trained = [p for p in vlm.model.parameters() if p.requires_grad]
    assert head_of(vlm).requires_grad
    examples = prepare(pairs[:4], vlm, 512, "shorten").examples
    encoder = BatchEncoder(vlm, 0)
    chosen, rejected = rewards(encoder, encoder.load(examples, views_of(BOTH)))
    bradley_terry(chosen, rejected)[0].backward()
    found = [p.grad.clone() for p in trained]
    for parameter in trained:
        parameter.grad = None
    plainly = [
        torch.stack([plain_reward(vlm, e.images, e.prompt, getattr(e, side).text, head_of(vlm)) for e in examples])
        for side in ("chosen", "rejected")
    ]
    assert torch.allclose(chosen, plainly[0], atol=1e-5)
    assert torch.allclose(rejected, plainly[1], atol=1e-5)
    (-torch.nn.functional.logsigmoid(plainly[0] - plainly[1]).mean()).backward()
    whole = torch.cat([p.grad.flatten() for p in trained])
    assert (torch.cat([one.flatten() for one in found]) - whole).norm() < 1e-5 * whole.norm()


def test_the_loss_is_bradley_and_terrys_with_trl_s_centering():
    chosen, rejected = torch.tensor([1.0, -0.5, 3.0]), torch.tensor([0.5, 0.5, -4.0])
    loss, metrics = bradley_terry(chosen, rejected, centering=0.01)
    expected = -torch.log(torch.sigmoid(chosen - rejected)).mean() + 0.01 * ((chosen + rejected) ** 2).mean()
    assert float(loss) == pytest.approx(float(expected), abs=1e-6)
    assert float(metrics["rewards/accuracies"]) == pytest.approx(2 / 3)
    assert float(metrics["rewards/margins"]) == pytest.approx((0.5 - 1 + 7) / 3, abs=1e-6)


def settings(build, model, out, **more) -> RewardConfig:
    given = {"epochs": 6, "batch_size": 4, "learning_rate": 1e-2, "held_out": 0.3, "workers": 0, "lora": LORA}
    return RewardConfig(pairs=build, out=out, model=str(model), device="cpu", **given | more)


@pytest.mark.parametrize("train", ["adapter", "language"])
def test_what_was_trained_is_what_judges(llava_folder, build, pairs, tmp_path, capsys, train):
    rate = {"learning_rate": 1e-3} if train == "language" else {}
    config = settings(build, llava_folder, tmp_path / "reward", train=train, **rate)
    run(config)
    about = json.loads((config.out / "reward.json").read_text())
    assert about["train"]["pairs"] + about["held_out"]["pairs"] == len(pairs)
    assert about["train"]["accuracy"] > 0.7
    assert f"{100 * about['held_out']['accuracy']:.1f} %" in capsys.readouterr().out
    rows = [json.loads(line) for line in (config.out / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert {"rewards/accuracies", "rewards/margins"} <= rows[0].keys()

    # Loaded anew, it gives the same margins as at the end of the training, and those of plain forwards.
    judge = RewardModelSettings(model=str(config.out), device="cpu").open(JudgeContext())
    from veridical.judge_training.reward_probe import is_held_out

    held_out = [pair for pair in pairs if is_held_out(pair.record_id, config.held_out, config.seed)]
    records = [Record(pair.record_id, pair.images, pair.prompt) for pair in held_out]
    rates = judge.rate(
        [Rate(r, r.prompt, t) for r, p in zip(records, held_out, strict=True) for t in (p.chosen, p.rejected)]
    )
    margins = [a - b for a, b in zip(rates[::2], rates[1::2], strict=True)]
    assert sum(margins) / len(margins) == pytest.approx(about["held_out"]["margin"], abs=1e-3)
    found = judge.compare([Compare(r, r.prompt, p.chosen, p.rejected) for r, p in zip(records, held_out, strict=True)])
    assert [one.margin > 0 for one in found] == [margin > 0 for margin in margins]
    adapter = config.out / "adapter" if train == "adapter" else None
    vlm = load(llava_folder if adapter else config.out / "model", adapter=adapter, device="cpu")
    weights = load_file(config.out / "head.safetensors")["weights"]
    with torch.no_grad():
        expected = plain_reward(vlm, held_out[0].images, held_out[0].prompt, held_out[0].chosen, weights)
    assert rates[0] == pytest.approx(float(expected), abs=1e-4)
    assert "reward_head" not in "".join(p.name for p in config.out.rglob("*"))

    before = (config.out / "head.safetensors").stat().st_mtime_ns
    run(config)
    assert (config.out / "head.safetensors").stat().st_mtime_ns == before
    with pytest.raises(UserError, match="other settings"):
        run(replace(config, epochs=1))


def test_interrupted_it_ends_at_the_same_weights(llava_folder, build, tmp_path, monkeypatch):
    from veridical.align.callbacks import StopOnSignal

    whole = settings(build, llava_folder, tmp_path / "whole", epochs=2, save_every=1)
    run(whole)
    broken = replace(whole, out=tmp_path / "broken")

    def stop(self, args, state, control, **_):
        self.stopped = state.global_step == 2
        control.should_training_stop = control.should_save = self.stopped

    with monkeypatch.context() as patched:
        patched.setattr(StopOnSignal, "on_step_end", stop)
        with pytest.raises(KeyboardInterrupt):
            run(broken)
    run(replace(broken, micro_batch=2))
    for name in ("head.safetensors", "adapter/adapter_model.safetensors"):
        ends = [load_file(folder / name) for folder in (whole.out, broken.out)]
        assert all(torch.allclose(ends[0][key], ends[1][key], atol=1e-6) for key in ends[0])


@pytest.mark.parametrize(
    ("folder", "dialogue"),
    [
        ("llava_folder", "<|user|><image>Describe this image.<|end|><|assistant|>There is a fork.<|end|>"),
        # Here the template writes a line break behind the end of a turn, and that is where the value is read.
        (
            "qwen2_vl_folder",
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
            "<|vision_start|><|image_pad|><|vision_end|>Describe this image.<|im_end|>\n"
            "<|im_start|>assistant\nThere is a fork.<|im_end|>\n",
        ),
    ],
)
def test_a_published_value_head_reads_where_the_template_ends(folder, dialogue, request, pictures, tmp_path):
    """As TRL and LLaMA-Factory save one, beside the model."""
    model = request.getfixturevalue(folder)
    published = shutil.copytree(model, tmp_path / "published")
    head = {"v_head.summary.weight": torch.randn(1, 48), "v_head.summary.bias": torch.tensor([0.7])}
    save_file(head, published / "value_head.safetensors")
    judge = RewardModelSettings(model=str(published), device="cpu").open(JudgeContext())
    record = Record("r", (pictures[0],), plain.DESCRIBE)
    [rate] = judge.rate([Rate(record, plain.DESCRIBE, "There is a fork.")])
    vlm = load(model, device="cpu")
    inputs = vlm.processor(images=[open_image(pictures[0])], text=[dialogue], return_tensors="pt")
    with torch.no_grad():
        state = vlm.model(**inputs, output_hidden_states=True).hidden_states[-1][0, -1]
    assert rate == pytest.approx(float(state @ head["v_head.summary.weight"][0]) + 0.7, abs=1e-3)
    save_file({"other": torch.zeros(1)}, published / "value_head.safetensors")
    with pytest.raises(UserError, match=r"no v_head\.summary\.weight"):
        RewardModelSettings(model=str(published), device="cpu").open(JudgeContext())


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A Gemma 3 with a head of three outputs, as transformers writes and loads one."""
    from transformers import AutoModelForSequenceClassification

    folder, tiny = tmp_path_factory.mktemp("gemma3"), FAMILIES["gemma3"]()
    config = random_model(tiny).config
    config.id2label = {0: "helpfulness", 1: "honesty", 2: "harmlessness"}
    config.label2id = {name: number for number, name in config.id2label.items()}
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.25)
    model.save_pretrained(folder)
    tiny.processor.save_pretrained(folder)
    return folder


def test_a_classifier_that_sees_gives_the_output_that_was_chosen(classifier, pictures):
    from transformers import AutoModelForSequenceClassification, AutoProcessor

    with pytest.raises(UserError, match=r"3 outputs; choose one with --judge\.output: 0 \(helpfulness\)"):
        RewardModelSettings(model=str(classifier), device="cpu").open(JudgeContext())
    with pytest.raises(UserError, match="no such output; there is helpfulness, honesty"):
        RewardModelSettings(model=str(classifier), output="humour", device="cpu").open(JudgeContext())
    judges = {
        name: RewardModelSettings(model=str(classifier), output=name, device="cpu").open(JudgeContext())
        for name in ("honesty", "2")
    }
    asked = [
        Rate(Record(str(place), (image,), plain.DESCRIBE), plain.DESCRIBE, text)
        for place, (image, text) in enumerate(zip(pictures, ("Yes.", "There is a fork.", "No.", "Yes."), strict=True))
    ]
    rates = {name: judge.rate(asked) for name, judge in judges.items()}
    model = AutoModelForSequenceClassification.from_pretrained(classifier).eval()
    processor = AutoProcessor.from_pretrained(classifier)
    for place, request in enumerate(asked):
        messages = [
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": plain.DESCRIBE[0].text}]},
            {"role": "assistant", "content": [{"type": "text", "text": request.text}]},
        ]
        text = processor.apply_chat_template(messages)
        inputs = processor(images=[open_image(request.record.images[0])], text=[text], return_tensors="pt")
        with torch.no_grad():
            logits = model(**inputs).logits[0]
        assert rates["honesty"][place] == pytest.approx(float(logits[1]), abs=1e-4)
        assert rates["2"][place] == pytest.approx(float(logits[2]), abs=1e-4)
    # The same answer to another image is rated otherwise.
    assert abs(rates["honesty"][0] - rates["honesty"][3]) > 1e-3
