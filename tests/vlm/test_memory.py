"""What is worked out about memory, against published sizes and against what torch really holds."""

from __future__ import annotations

import weakref

import PIL.Image
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from veridical.records import Message
from veridical.vlm.generation.generate import generate
from veridical.vlm.generation.params import Branch, SamplingParams
from veridical.vlm.inputs.context import Context
from veridical.vlm.load import assemble, attach_lora
from veridical.vlm.memory import Load, adapter_parameters, announce, plan, published, shape_of
from veridical.vlm.model.adapters import LoraSettings, unfreeze
from veridical.vlm.prefix.encode import encode
from veridical.vlm.scores.scoring import score


class Held(TorchDispatchMode):
    """The bytes of all tensors that were made and still live, and the most there ever were."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self.known:
                    self.known.add(storage._cdata)
                    self.now += storage.nbytes()
                    self.most = max(self.most, self.now)
                    weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())
        return made

    def _gone(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size


def contexts(count: int = 8) -> list[Context]:
    prompt = (Message("user", "There is a fork and a knife on the table. " * 40),)
    return [Context((PIL.Image.new("RGB", (60, 60), (i * 9, 0, 0)),), prompt, key=(i,)) for i in range(count)]


@pytest.fixture(scope="module")
def deep(llava_folder):
    """A model of many layers, beside whose prefixes what one layer holds for a moment is little."""
    config = AutoConfig.from_pretrained(llava_folder)
    config.text_config.num_hidden_layers = 24
    model = AutoModelForImageTextToText.from_config(config).eval().requires_grad_(False)
    return assemble("deep", model, AutoProcessor.from_pretrained(llava_folder))


def keys_and_values(prefix) -> int:
    return sum(layer.keys.nbytes + layer.values.nbytes for layer in prefix.past)


@pytest.mark.parametrize("answers", [1, 4])
def test_scores_hold_the_prefixes_once(deep, answers):
    with torch.no_grad(), Held() as held:
        prefix = encode(deep, contexts())
        held.most = held.now
        score(deep, prefix, [["Yes."] * answers] * len(prefix))
    one_layer = keys_and_values(prefix) / len(prefix.past)
    # Of one layer: each answer's rows as they are read, with the answer behind them, and as attention repeats heads.
    assert held.most < 1.4 * keys_and_values(prefix) + 4 * (answers - 1) * one_layer


def test_sampling_holds_the_prefixes_twice(deep):
    with Held() as held:
        prefix = encode(deep, contexts())
        held.most = held.now
        branches = [Branch(i) for i in range(len(prefix))]
        generate(deep, prefix, branches, SamplingParams(max_new_tokens=8, temperature=0))
    assert held.most < 2.25 * keys_and_values(prefix)


@pytest.mark.parametrize(
    ("work", "attention"),
    [("lora", "sdpa"), ("answers", "sdpa"), ("full", "sdpa"), ("lora", "eager"), ("answers", "eager")],
)
@pytest.mark.parametrize(
    ("layers", "hidden", "intermediate", "heads", "key_value"), [(6, 128, 344, 4, 4), (4, 192, 768, 4, 1)]
)
def test_the_plan_is_near_what_a_training_step_holds(
    llava_folder, work, attention, layers, hidden, intermediate, heads, key_value
):
    config = AutoConfig.from_pretrained(llava_folder)
    text = config.text_config
    text.num_hidden_layers, text.hidden_size, text.intermediate_size = layers, hidden, intermediate
    text.num_attention_heads, text.num_key_value_heads, text.head_dim = heads, key_value, hidden // heads
    model = AutoModelForImageTextToText.from_config(config, attn_implementation=attention).requires_grad_(False)
    vlm = assemble("shape", model, AutoProcessor.from_pretrained(llava_folder))
    acts_on = "answers" if work == "answers" else "everything"
    vlm = unfreeze(vlm, False) if work == "full" else attach_lora(vlm, LoraSettings(acts_on=acts_on), 0)
    vlm.model.train()
    held = Held()
    held.known |= {one.untyped_storage()._cdata for one in (*vlm.model.parameters(), *vlm.model.buffers())}
    with held:
        prefix = encode(vlm, contexts(2))
        scores = score(vlm, prefix, [["There is a fork. " * 12, "I can see two cups. " * 12]] * 2)
        sum(answer.sum() for answers in scores for answer in answers).backward()
    answer = max(len(answer) for answers in scores for answer in answers)
    expected = plan(shape_of(vlm), work, Load(2, 4, prefix.prepared[0].length, answer))
    gradients = sum(one.grad.nbytes for one in vlm.model.parameters() if one.grad is not None)
    measured = held.most - (gradients if work != "full" else 0)  # in full, they come as activations go
    assert 0.9 < (expected.prefixes + expected.activations + expected.logits) / measured < 1.45


@pytest.mark.parametrize(
    ("name", "billions"),
    [("LLaVA-1.5-7B", 7.06), ("LLaVA-1.5-13B", 13.35), ("Qwen2.5-VL-3B", 3.75), ("Qwen2.5-VL-7B", 8.29)],
)
def test_published_models_have_their_published_sizes(name, billions):
    shape, _ = published()[name]
    assert (shape.language + shape.rest) / 1e9 == pytest.approx(billions, rel=0.02)


def test_keys_and_values_of_llava_are_half_a_mebibyte_a_token():
    shape, _ = published()["LLaVA-1.5-7B"]
    assert plan(shape, "reference", Load(1, 0, 1, 0)).prefixes == 2**19
    # Rank 16 on all linear layers of a 7B Llama: 40.0 million, as PEFT prints.
    assert adapter_parameters(shape, 16) == 39_976_960


def test_the_shape_of_a_loaded_model_is_counted(llava, capsys):
    shape = shape_of(llava)
    assert shape.language + shape.rest == sum(p.numel() for p in llava.model.parameters())
    assert announce(llava, "build", 4, contexts(1)[0]) == 4
    assert "memory for build, 4 at a time: about" in capsys.readouterr().err
    more = plan(shape, "full", Load(4, 8, 100, 20)).total
    assert more > plan(shape, "lora", Load(4, 8, 100, 20)).total > plan(shape, "answers", Load(4, 8, 100, 20)).total
    assert (
        plan(shape, "lora", Load(4, 8, 100, 20), checkpointing=True).total
        < plan(shape, "lora", Load(4, 8, 100, 20)).total
    )


def test_the_plan_knows_what_else_trains_and_who_shares(llava_folder):
    shape, tokens = published()["LLaVA-1.5-7B"]
    load = Load(1, 2, tokens, 128)
    alone, shared = (plan(shape, "full", load, shards=processes) for processes in (1, 8))
    ends = 2 * shape.vocabulary * shape.hidden
    assert shared.optimizer == (shape.language - ends) // 8 * 12 + ends * 12
    assert shared.weights < alone.weights / 5
    assert shared.activations == alone.activations
    model = AutoModelForImageTextToText.from_pretrained(llava_folder).requires_grad_(False)
    vlm = assemble("projector", model, AutoProcessor.from_pretrained(llava_folder))
    assert shape_of(vlm).projector == 0
    unfrozen = shape_of(unfreeze(vlm, projector=True))
    assert unfrozen.projector == sum(p.numel() for p in model.model.multi_modal_projector.parameters()) > 0


def test_many_answers_over_a_large_vocabulary_take_no_more_for_logits():
    shape, tokens = published()["Qwen2.5-VL-7B"]
    few, many = (plan(shape, "lora", Load(1, rows, tokens, 256)).logits for rows in (2, 64))
    # What grows are the first tokens' logits, one an answer.
    assert many - few == 62 * shape.vocabulary * 12
    assert many < 1.1 * 2**30 / 2
