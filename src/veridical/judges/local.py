"""Local Hugging Face models as backends: language models, and vision-language models by way of `vlm/`."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from veridical.errors import UserError
from veridical.judges.interface import JudgeError
from veridical.judges.messages import Call, Reply, Usage

if TYPE_CHECKING:
    from veridical.vlm.model.loading import Vlm


@dataclass(frozen=True)
class LocalVision:
    """A vision-language model in this process."""

    vlm: Vlm = field(repr=False)
    batch_size: int = 8
    sees: bool = True

    @property
    def name(self) -> str:
        """The model, as the user called it."""
        return self.vlm.name

    @property
    def identity(self) -> Mapping[str, Any]:
        """The fingerprint of the weights."""
        return {"fingerprint": self.vlm.fingerprint}

    def answer(self, calls: Sequence[Call], usage: Usage, done: Callable[[int, Reply | JudgeError], None]) -> None:
        """Answer in batches of calls with the same sampling; a call that the model can't take fails alone."""
        groups: dict[tuple[int, float], list[int]] = {}
        for place, call in enumerate(calls):
            groups.setdefault((call.max_tokens, call.temperature), []).append(place)
        for places in groups.values():
            for start in range(0, len(places), self.batch_size):
                batch = places[start : start + self.batch_size]
                for place, reply in zip(batch, self._batch([calls[place] for place in batch]), strict=True):
                    if not isinstance(reply, JudgeError):
                        usage.prompt_tokens += reply.prompt_tokens
                        usage.completion_tokens += reply.completion_tokens
                    done(place, reply)

    def _batch(self, calls: Sequence[Call]) -> list[Reply | JudgeError]:
        try:
            return list(self._together(calls))
        except UserError as error:
            if len(calls) == 1:
                return [JudgeError(f"{self.name}: {error}", "judge-refused", "shorten the text or take another judge")]
        return [reply for call in calls for reply in self._batch([call])]

    def _together(self, calls: Sequence[Call]) -> list[Reply]:
        from veridical.vlm.generation.generate import generate
        from veridical.vlm.generation.params import Branch, SamplingParams
        from veridical.vlm.inputs.context import Context
        from veridical.vlm.prefix.encode import encode

        contexts = [Context(*_context(call), key=("judge", call.prompt)) for call in calls]
        prefix = encode(self.vlm, contexts)
        lengths = prefix.mask.sum(-1).tolist()
        branches = [Branch(place, ("judge", call.seed)) for place, call in enumerate(calls)]
        sampling = SamplingParams(calls[0].max_tokens, calls[0].temperature)
        sampled = generate(self.vlm, prefix, branches, sampling)
        sizes = [len(self.vlm.tokenizer(sample.text, add_special_tokens=False).input_ids) for sample in sampled]
        return [
            Reply(sample.text, int(length), size, _today(), sample.finished)
            for sample, length, size in zip(sampled, lengths, sizes, strict=True)
        ]


@dataclass(frozen=True)
class LocalLanguage:
    """A causal language model in this process, one call at a time."""

    name: str
    model: Any = field(repr=False)
    tokenizer: Any = field(repr=False)
    fingerprint: str = ""
    sees: bool = False

    @property
    def identity(self) -> Mapping[str, Any]:
        """The fingerprint of the weights."""
        return {"fingerprint": self.fingerprint}

    def answer(self, calls: Sequence[Call], usage: Usage, done: Callable[[int, Reply | JudgeError], None]) -> None:
        """Answer call by call."""
        for place, call in enumerate(calls):
            reply = self._one(call)
            usage.prompt_tokens += reply.prompt_tokens
            usage.completion_tokens += reply.completion_tokens
            done(place, reply)

    def _one(self, call: Call) -> Reply:
        import torch

        conversation = [{"role": message.role, "content": message.text} for message in call.messages]
        inputs = self.tokenizer.apply_chat_template(
            conversation, add_generation_prompt=True, return_tensors="pt", return_dict=True
        ).to(self.model.device)
        length = inputs["input_ids"].shape[1]
        sampled = {"do_sample": True, "temperature": call.temperature} if call.temperature else {"do_sample": False}
        with torch.random.fork_rng(), torch.inference_mode():
            torch.manual_seed(call.seed)
            output = self.model.generate(**inputs, max_new_tokens=call.max_tokens, **sampled)
        ids = output[0, length:]
        text = self.tokenizer.decode(ids, skip_special_tokens=True)
        return Reply(text, length, len(ids), _today(), finished=len(ids) < call.max_tokens)


def load_language_model(model: str, device: str = "auto", dtype: str = "auto") -> LocalLanguage:
    """Load a causal language model with a chat template by folder or hub name. Raises UserError for any other."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from veridical.vlm.model.loading import source_of, without_bars
    from veridical.vlm.model.weights import hash_in_memory

    place = device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    number = dtype if dtype != "auto" else "bfloat16" if place.startswith("cuda") else "float32"
    source = str(source_of(model))
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        with without_bars(source):
            loaded = AutoModelForCausalLM.from_pretrained(
                source, trust_remote_code=False, dtype=getattr(torch, number), use_safetensors=True
            )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise UserError(
            f"The language model {model!r} can't be loaded: {error}. Give a folder or a hub name."
        ) from error
    if not tokenizer.chat_template:
        raise UserError(f"{model}: its tokenizer has no chat template; take an instruction-tuned model.")
    loaded.to(place).requires_grad_(False).eval()
    return LocalLanguage(model, loaded, tokenizer, hash_in_memory(loaded))


def _context(call: Call) -> tuple[Any, Any]:
    """A call's images and turns, as a vision-language model takes them."""
    from veridical.records import Message

    images = tuple(image for message in call.messages for image in message.images)
    return images, tuple(Message(message.role, message.text) for message in call.messages)


def _today() -> str:
    return datetime.datetime.now(datetime.UTC).date().isoformat()
