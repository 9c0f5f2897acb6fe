"""Reward models that are Hugging Face sequence classifiers: those that read, and those that see.

A classifier with several outputs (helpfulness, honesty, ...) is a reward for each of them; which one is chosen by the
name that its configuration gives it, or by number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from veridical.errors import UserError, panics_as_errors
from veridical.judges.interface import Compare, JudgeError, Preference, Rate
from veridical.judges.rewards import Scorable, each, preference
from veridical.records import Message
from veridical.runs import INCIDENTAL

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Classifier:
    """A sequence classifier whose logit of one output is the reward."""

    name: str
    model: Any = field(repr=False)
    read: Callable[[Sequence[Scorable]], Any] = field(repr=False)
    """Prompts, answers and, where it sees, images as the model's inputs."""
    output: int = 0
    batch_size: int = field(default=8, metadata=INCIDENTAL)

    def rate(self, requests: Sequence[Rate]) -> list[float | JudgeError]:
        """The classifier's logit for each answer."""
        return each([Scorable.of(request) for request in requests], self._together, self.batch_size)

    def compare(self, requests: Sequence[Compare]) -> list[Preference | JudgeError]:
        """By the difference of the two logits."""
        return preference(requests, self.rate)

    def _together(self, batch: Sequence[Scorable]) -> list[float]:
        import torch

        inputs = self.read(batch)
        longest = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        if longest is not None and inputs["input_ids"].shape[1] > longest:
            raise UserError(f"{batch[0].record_id}: prompt and answer exceed the {longest} tokens of {self.name}.")
        with torch.inference_mode():
            logits = self.model(**inputs.to(self.model.device)).logits
        scores: list[float] = logits[:, self.output].float().tolist()
        return scores


def _read_texts(tokenizer: Any, batch: Sequence[Scorable]) -> Any:
    """Conversations where the tokenizer has a chat template, else prompt and answer as two segments."""
    if not tokenizer.chat_template:
        prompts = ["\n".join(turn.text for turn in request.prompt) for request in batch]
        return tokenizer(prompts, [request.text for request in batch], padding=True, return_tensors="pt")
    conversations = [
        [{"role": turn.role, "content": turn.text} for turn in (*request.prompt, Message("assistant", request.text))]
        for request in batch
    ]
    return tokenizer.apply_chat_template(
        conversations, padding=True, return_tensors="pt", return_dict=True, tokenize=True
    )


def _read_with_images(processor: Any, batch: Sequence[Scorable]) -> Any:
    """Conversations with their images, by the processor's chat template."""
    return processor.apply_chat_template(
        [_conversation(request) for request in batch],
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"padding": True},
    )


def _conversation(one: Scorable) -> list[dict[str, Any]]:
    """Images stand before the first user turn's text."""
    from veridical.vlm.images.files import open_image

    images = [{"type": "image", "image": open_image(image)} for image in one.images]
    turns = []
    for turn in (*one.prompt, Message("assistant", one.text)):
        shown, images = (images, []) if turn.role == "user" else ([], images)
        turns.append({"role": turn.role, "content": [*shown, {"type": "text", "text": turn.text}]})
    return turns


def load_classifier(model: str, output: str, device: str, batch_size: int) -> Classifier:
    """The classifier in a folder or on the hub. Raises UserError where it can't be loaded."""
    from veridical.vlm.model.loading import source_of

    source = source_of(model)
    try:
        loaded, reader, sees = _read(source, device)
    except Exception as error:  # a stranger's files: whatever is wrong with them gets a sentence
        raise UserError(
            f"The reward model {model!r} can't be loaded: {error}. Give a run folder of `veridical judge train "
            "reward` or `reward-probe`, a model with a value head, or a sequence classifier, by folder or hub name."
        ) from error
    chosen = choose_output(model, loaded.config, output)
    return Classifier(model, loaded, partial(_read_with_images if sees else _read_texts, reader), chosen, batch_size)


def _read(source: str | Path, device: str) -> tuple[Any, Any, bool]:
    """The model, what reads for it (a tokenizer or a processor), and whether it sees images."""
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoProcessor, AutoTokenizer
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    from veridical.vlm.model.loading import without_bars

    place = device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    sees = (
        AutoConfig.from_pretrained(source, trust_remote_code=False).model_type
        in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    )
    with panics_as_errors(), without_bars(str(source)):
        reader = (AutoProcessor if sees else AutoTokenizer).from_pretrained(source, trust_remote_code=False)
        loaded = AutoModelForSequenceClassification.from_pretrained(
            source, trust_remote_code=False, use_safetensors=True
        )
    tokenizer = reader.tokenizer if sees else reader
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if loaded.config.get_text_config().pad_token_id is None:
        loaded.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    loaded.to(place).requires_grad_(False).eval()
    return loaded, reader, sees


def choose_output(model: str, config: Any, output: str) -> int:
    """The number of the output called `output`, by name or number; the only one, if left out. Raises UserError."""
    names = {int(number): str(name) for number, name in config.id2label.items()}
    if not output:
        if config.num_labels == 1:
            return 0
        listed = ", ".join(f"{number} ({name})" for number, name in names.items())
        raise UserError(f"{model}: has {config.num_labels} outputs; choose one with --judge.output: {listed}.")
    place = next((number for number, name in names.items() if output in (name, str(number))), None)
    if place is None:
        raise UserError(f"--judge.output {output}: {model} has no such output; there is {', '.join(names.values())}.")
    return place
