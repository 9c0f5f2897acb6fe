"""Rewards that are heads on a vision-language model: our own, trained on pairs, and published value heads.

- A *reward model* of `veridical judge train reward`: a scalar head at the end of the answer, the model below it trained
  with it. The answers about one image share what was read of it.
- A *reward probe* of `veridical judge train reward-probe`: a linear head on a frozen model's states.
- A *value head* as TRL and LLaMA-Factory write it, `value_head.safetensors` with `v_head.summary.weight` beside a model
  (Skywork-VL-Reward) or an adapter: read at the last token that the chat template writes, as its authors do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from veridical.errors import UserError
from veridical.files import read_state
from veridical.judges.interface import Compare, JudgeError, Preference, Rate
from veridical.judges.rewards import Scorable, each, preference
from veridical.records import ImageFile, Message
from veridical.runs import INCIDENTAL

if TYPE_CHECKING:
    from torch import Tensor

    from veridical.vlm.model.loading import Vlm

REWARD = "reward.json"
HEAD = "head.safetensors"
SCALAR_HEAD = "scalar-head"
"""What reward.json calls a reward model; a probe is called nothing."""
VALUE_HEAD = "value_head.safetensors"
_SUMMARY = "v_head.summary"


@dataclass(frozen=True)
class ScalarReward:
    """A reward model: a scalar head on the last hidden state at the end of an answer."""

    name: str
    vlm: Vlm = field(repr=False)
    weights: Tensor = field(repr=False)
    """[width]."""
    bias: float = 0.0
    closing: tuple[int, ...] | None = None
    """The token ids after an answer's text, at the last of which the head reads; by default the end of its turn."""
    batch_size: int = field(default=8, metadata=INCIDENTAL)

    def rate(self, requests: Sequence[Rate]) -> list[float | JudgeError]:
        """The reward of each answer; only differences between answers to the same prompt mean anything."""
        return each([Scorable.of(request) for request in requests], self._together, self.batch_size)

    def compare(self, requests: Sequence[Compare]) -> list[Preference | JudgeError]:
        """The probability that the first is better, by Bradley and Terry, from -1 to 1."""
        return preference(requests, self.rate)

    def _together(self, batch: Sequence[Scorable]) -> list[float]:
        import torch

        from veridical.vlm.inputs.context import Context
        from veridical.vlm.prefix.encode import encode
        from veridical.vlm.scores.final_states import final_states

        by_context: dict[tuple[tuple[ImageFile, ...], tuple[Message, ...]], list[int]] = {}
        for place, request in enumerate(batch):
            by_context.setdefault((request.images, request.prompt), []).append(place)
        contexts = [
            Context(images, prompt, key=("reward", batch[places[0]].record_id))
            for (images, prompt), places in by_context.items()
        ]
        texts = [[batch[place].text for place in places] for places in by_context.values()]
        with torch.no_grad():
            hidden = final_states(self.vlm, encode(self.vlm, contexts), texts, self.closing)
        rewards = [0.0] * len(batch)
        for places, states in zip(by_context.values(), hidden, strict=True):
            for place, state in zip(places, states, strict=True):
                rewards[place] = float(state.cpu() @ self.weights) + self.bias
        return rewards


@dataclass(frozen=True)
class ProbeReward:
    """A linear head on a frozen model's state after image, prompt and answer."""

    name: str
    vlm: Vlm = field(repr=False)
    weights: Tensor = field(repr=False)
    """[width], for hidden states as they are."""
    layer: int = -1
    batch_size: int = field(default=8, metadata=INCIDENTAL)

    def rate(self, requests: Sequence[Rate]) -> list[float | JudgeError]:
        """The reward of each answer; only differences between answers to the same prompt mean anything."""
        return each([Scorable.of(request) for request in requests], self._together, self.batch_size)

    def compare(self, requests: Sequence[Compare]) -> list[Preference | JudgeError]:
        """The probability that the first is better, by Bradley and Terry, from -1 to 1."""
        return preference(requests, self.rate)

    def _together(self, batch: Sequence[Scorable]) -> list[float]:
        rewards: list[float] = (states_after(self.vlm, batch, self.layer) @ self.weights).tolist()
        return rewards


def states_after(vlm: Vlm, answers: Sequence[Scorable], layer: int) -> Tensor:
    """Hidden states (fp32, on the CPU) [answers, width] of one layer after image, prompt and answer."""
    from veridical.vlm.inputs.context import Context
    from veridical.vlm.scores.hidden_states import hidden_states

    contexts = [
        Context(answer.images, (*answer.prompt, Message("assistant", answer.text)), key=("reward", answer.record_id))
        for answer in answers
    ]
    return hidden_states(vlm, contexts)[:, layer].cpu()


def load_reward(folder: Path, device: str = "auto", batch_size: int = 8) -> ScalarReward | ProbeReward:
    """The reward in the run folder of a training. Raises UserError where its model is not the one it was trained on."""
    from safetensors.torch import load_file

    from veridical.vlm.load import load

    about = read_state(folder / REWARD, {"model": str}, "train it again")
    try:
        weights = load_file(folder / HEAD)["weights"]
    except Exception as error:  # whatever a damaged file raises
        raise UserError(f"{folder / HEAD}: is missing or damaged ({error}); train the reward model again.") from error
    if about.get("kind") == SCALAR_HEAD:
        vlm = _load_trained(folder, about, device)
        return ScalarReward(f"reward:{_digest(folder, vlm)}", vlm, weights, batch_size=batch_size)
    vlm = load(about["model"], device=device)
    if vlm.fingerprint != about["fingerprint"]:
        raise _other_model(folder, about["model"])
    return ProbeReward(f"reward:{about['sha256'][:12]}", vlm, weights, about["layer"], batch_size)


def _load_trained(folder: Path, about: dict[str, Any], device: str) -> Vlm:
    from veridical.vlm.load import load
    from veridical.vlm.model.image_limits import ImageLimits

    limits = ImageLimits(about["max_pixels"], about["max_image_tokens"])
    if about["result"] == "model":
        return load(folder / "model", device=device)
    vlm = load(about["model"], adapter=folder / "adapter", device=device, limits=limits)
    if vlm.weights != about["weights"]:
        raise _other_model(folder, about["model"])
    return vlm


def _other_model(folder: Path, model: str) -> UserError:
    return UserError(f"{folder}: was trained on another {model}; give that model, or train again.")


def _digest(folder: Path, vlm: Vlm) -> str:
    import hashlib

    return hashlib.sha256(f"{vlm.fingerprint} ".encode() + (folder / HEAD).read_bytes()).hexdigest()[:12]


def find_value_head(model: str) -> Path | None:
    """The file of a published value head, in a folder or on the hub; None where there is none."""
    from transformers.utils import cached_file

    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder / VALUE_HEAD if (folder / VALUE_HEAD).is_file() else None
    try:
        path = cached_file(model, VALUE_HEAD, _raise_exceptions_for_missing_entries=False)
    except (OSError, ValueError):
        return None
    return Path(path) if path else None


def load_value_head(model: str, head: Path, device: str, batch_size: int) -> ScalarReward:
    """A published reward: a vision-language model, or an adapter on one, and its value head. Raises UserError."""
    import torch
    from safetensors.torch import load_file

    from veridical.vlm.load import load
    from veridical.vlm.model.chat import closing_ids

    tensors = load_file(head)
    weights = tensors.get(f"{_SUMMARY}.weight")
    if weights is None or weights.ndim != 2 or weights.shape[0] != 1:
        raise UserError(f"{head}: holds no {_SUMMARY}.weight of one output; it has {', '.join(sorted(tensors))}.")
    folder = Path(model).expanduser()
    if (folder / "adapter_config.json").is_file():
        base = read_state(folder / "adapter_config.json", remedy="give an adapter as PEFT writes it").get(
            "base_model_name_or_path"
        )
        vlm = load(str(base), adapter=folder, device=device)
    else:
        vlm = load(model, device=device)
    bias = tensors.get(f"{_SUMMARY}.bias", torch.zeros(1))
    closing = closing_ids(vlm.processor, vlm.tokenizer, vlm.traits.chat)
    return ScalarReward(model, vlm, weights[0].float(), float(bias[0]), closing, batch_size)
