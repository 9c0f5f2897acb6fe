"""Reward models: Hugging Face sequence classifiers, which read; and our own, which see.

Our own is a linear head on the hidden state of a frozen vision-language model after the image, the prompt and the
answer. `veridical judge train reward-probe` trains it on pairs with the loss of Bradley and Terry.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from veridical.bounds import Positive
from veridical.errors import UserError
from veridical.files import read_json
from veridical.judges.interface import Compare, JudgeError, Preference, Rate
from veridical.judges.rewards import Scorable, each, preference
from veridical.records import Message
from veridical.runs import BY_CONTENT, INCIDENTAL

if TYPE_CHECKING:
    from torch import Tensor

    from veridical.judges.registry import Setting
    from veridical.vlm.model.loading import Vlm

REWARD = "reward.json"
HEAD = "head.safetensors"


@dataclass(frozen=True)
class TextReward:
    """A sequence classifier with one output. It reads the prompt and the answer, and sees no image."""

    name: str
    model: Any = field(repr=False)
    tokenizer: Any = field(repr=False)
    batch_size: int = field(default=8, metadata=INCIDENTAL)

    def rate(self, requests: Sequence[Rate]) -> list[float | JudgeError]:
        """The classifier's logit for each answer."""
        return each([Scorable.of(request) for request in requests], self._together, self.batch_size)

    def compare(self, requests: Sequence[Compare]) -> list[Preference | JudgeError]:
        """By the difference of the two logits."""
        return preference(requests, self.rate)

    def _together(self, batch: Sequence[Scorable]) -> list[float]:
        import torch

        inputs = self._tokenised(batch).to(self.model.device)
        longest = getattr(self.model.config, "max_position_embeddings", None)
        if longest is not None and inputs["input_ids"].shape[1] > longest:
            raise UserError(f"{batch[0].record_id}: prompt and answer exceed the {longest} tokens of {self.name}.")
        with torch.inference_mode():
            scores: list[float] = self.model(**inputs).logits[:, 0].float().tolist()
        return scores

    def _tokenised(self, batch: Sequence[Scorable]) -> Any:
        """Conversations where the tokenizer has a chat template, else prompt and answer as two segments."""
        if not self.tokenizer.chat_template:
            prompts = ["\n".join(turn.text for turn in one.prompt) for one in batch]
            return self.tokenizer(prompts, [one.text for one in batch], padding=True, return_tensors="pt")
        conversations = [
            [{"role": turn.role, "content": turn.text} for turn in (*one.prompt, Message("assistant", one.text))]
            for one in batch
        ]
        return self.tokenizer.apply_chat_template(
            conversations, padding=True, return_tensors="pt", return_dict=True, tokenize=True
        )


@dataclass(frozen=True)
class VisionReward:
    """A linear head on what a vision-language model holds after an answer."""

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
        Context(one.images, (*one.prompt, Message("assistant", one.text)), key=("reward", one.record_id))
        for one in answers
    ]
    return hidden_states(vlm, contexts)[:, layer].cpu()


@dataclass(frozen=True)
class RewardModelSettings:
    """Judge by a reward model."""

    name: Literal["reward-model"] = "reward-model"
    """Which judge: a reward model, which rates answers and compares by its rates."""
    model: str = field(default="", metadata=BY_CONTENT)
    """A run folder of `veridical judge train reward-probe`, or a Hugging Face sequence classifier by folder or name."""
    batch_size: Positive = field(default=8, metadata=INCIDENTAL)
    """Answers scored at a time."""
    device: str = field(default="auto", metadata=INCIDENTAL)
    """Where it runs: auto, cpu, cuda, ...."""

    def open(self, setting: Setting) -> TextReward | VisionReward:
        """The judge. Raises UserError where it can't be had."""
        if not self.model:
            raise UserError("judge.name reward-model: give --judge.model, a trained reward or a sequence classifier.")
        folder = Path(self.model).expanduser()
        if (folder / REWARD).is_file():
            return load_reward(folder, self.device, self.batch_size)
        return _load_classifier(self.model, self.device, self.batch_size)


def load_reward(folder: Path, device: str = "auto", batch_size: int = 8) -> VisionReward:
    """The reward in the run folder of a training. Raises UserError where its model is not the one it was trained on."""
    from safetensors.torch import load_file

    from veridical.vlm.load import load

    about = read_json(folder / REWARD)
    vlm = load(about["model"], device=device)
    if vlm.fingerprint != about["fingerprint"]:
        raise UserError(f"{folder}: was trained on another {about['model']}; give that model back, or train anew.")
    weights = load_file(folder / HEAD)["weights"]
    return VisionReward(f"reward:{about['sha256'][:12]}", vlm, weights, about["layer"], batch_size)


def _load_classifier(model: str, device: str, batch_size: int) -> TextReward:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from veridical.vlm.model.loading import source_of, without_bars

    place = device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    source = str(source_of(model))
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
        with without_bars(source):
            loaded = AutoModelForSequenceClassification.from_pretrained(source, use_safetensors=True)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise UserError(
            f"The reward model {model!r} can't be loaded: {error}. Give a run folder of `veridical judge train "
            "reward-probe`, or a sequence classifier by folder or hub name."
        ) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if loaded.config.get_text_config().pad_token_id is None:
        loaded.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    if loaded.config.num_labels != 1:
        raise UserError(f"{model}: has {loaded.config.num_labels} outputs; a reward model has one.")
    loaded.to(place).requires_grad_(False).eval()
    return TextReward(model, loaded, tokenizer, batch_size)
