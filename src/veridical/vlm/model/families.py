"""What has to be known of a model's family to share a prefix: positions, features, and how it counts."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from veridical.vlm.model.chat import ChatFormat
from veridical.vlm.model.generation_settings import GenerationSettings

# Families that see the image through cross-attention or before the prompt, not as tokens of it.
IMAGE_OUTSIDE_THE_PROMPT = frozenset({"git", "mllama"})
# Families whose prompts have room for a single image.
ONE_IMAGE = frozenset({"blip-2", "instructblip"})
_PLACEHOLDER_FIELDS = ("image_token_id", "image_token_index", "video_token_id", "audio_token_id")
_IMAGE_FIELDS = _PLACEHOLDER_FIELDS[:2]


@dataclass(frozen=True, slots=True)
class Traits:
    """Facts about a loaded model that the engine reads again and again.

    `end_ids` end an answer; `stop_ids` end decoding; `placeholder_ids` stand for features and have no place
    in a text; `takes_features` says that the model accepts image features computed earlier, `demands_image` that
    it can't be called without any; `max_length` is its length limit. `control_ids` are special tokens that have no
    place in a text; `chat` is what the chat template does; `generation` what the model's own settings ask of decoding.
    """

    image_id: int | None
    placeholder_ids: frozenset[int]
    end_ids: tuple[int, ...]
    stop_ids: frozenset[int]
    takes_features: bool
    max_length: int | None
    demands_image: bool = False
    control_ids: frozenset[int] = frozenset()
    chat: ChatFormat = field(default_factory=ChatFormat)
    generation: GenerationSettings = field(default_factory=GenerationSettings)


def base_model(model: Any) -> Any:
    """The transformers model inside a PEFT wrapper (its adapter layers included), or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def text_config(model: Any) -> Any:
    """Configuration of the language model inside."""
    return base_model(model).config.get_text_config(decoder=True)


def cache_argument(model: Any) -> str:
    """What `forward` calls its cache: `past_key_values` before transformers 5.24."""
    accepted = inspect.signature(base_model(model).get_decoder().forward).parameters
    return "cache" if "cache" in accepted else "past_key_values"


def attends_fully(model: Any) -> bool:
    """Whether every layer of the language model attends to all that comes before, however far back."""
    config = text_config(model)
    kinds = getattr(config, "layer_types", None) or ()
    # A window counts tokens, where the configuration does not say layer by layer which have one.
    window = None if kinds else getattr(config, "sliding_window", None)
    return set(kinds) <= {"full_attention"} and not window


def image_id(config: Any) -> int | None:
    """Id of the token that holds an image feature's place, or None where there is none."""
    ids = (getattr(config, field, None) for field in _IMAGE_FIELDS)
    return next((int(value) for value in ids if value is not None), None)


def placeholder_ids(config: Any) -> frozenset[int]:
    """Ids of all tokens that hold the place of image, video or sound features."""
    ids = (getattr(config, field, None) for field in _PLACEHOLDER_FIELDS)
    return frozenset(int(value) for value in ids if value is not None)


def takes_features(model: Any) -> bool:
    """Whether `forward` accepts image features in place of pixels."""
    base = base_model(model)
    accepted = "mm_encoder_outputs" in inspect.signature(base.forward).parameters
    encoder = image_encoder(model)
    if not accepted or encoder is None:
        return False
    # A Q-Former that reads the prompt makes other features of the same image for another prompt.
    return "qformer_input_ids" not in inspect.signature(encoder).parameters


def image_encoder(model: Any) -> Any:
    """What makes features of images: a method of the model, or of the one inside (Perception LM); None without one."""
    base = base_model(model)
    return getattr(base, "get_image_features", None) or getattr(
        getattr(base, "model", None), "get_image_features", None
    )


def demands_image(model: Any) -> bool:
    """Whether `forward` can't do without an image, so that further text goes to the language model inside."""
    base = base_model(model)
    pixels = inspect.signature(base.forward).parameters.get("pixel_values")
    required = pixels is not None and pixels.default is inspect.Parameter.empty
    return required or base.config.model_type == "kosmos-2"


def language_model(model: Any) -> Any:
    """The language model inside one that requires an image, for text that follows the image."""
    base = base_model(model)
    return base.text_model if base.config.model_type == "kosmos-2" else base.language_model


def decoder_name(model: Any) -> str:
    """Full name of the language model inside the transformers model, such as `model.language_model`."""
    base = base_model(model)
    decoder = base.get_decoder()
    return str(next(name for name, module in base.named_modules() if module is decoder))


def positions(model: Any, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Position ids of left-padded rows, [rows, length] or [3, rows, length] with M-RoPE, and each row's next
    one.
    """
    mask = batch["attention_mask"]
    inner = getattr(base_model(model), "model", None)
    if hasattr(inner, "get_rope_index"):
        places = _rope_positions(inner, batch)
        return places, places.masked_fill(mask == 0, 0).amax(dim=(0, 2)) + 1
    first = _first_position(base_model(model).config)
    places = (mask.cumsum(-1) - 1 + first).clamp(min=first)
    return places, places[:, -1] + 1


def _first_position(config: Any) -> int:
    if config.model_type == "kosmos-2":
        return int(config.text_config.pad_token_id) + 1
    return 1 if config.model_type == "paligemma" else 0


def _rope_positions(inner: Any, batch: Mapping[str, Tensor]) -> Tensor:
    accepted = inspect.signature(inner.get_rope_index).parameters
    positions: Tensor = inner.get_rope_index(**{name: batch[name] for name in accepted if name in batch})[0]
    return positions


def later_positions(first: Tensor, length: int, like: Tensor) -> Tensor:
    """Positions of `length` text tokens from each row's `first` [rows], in as many dimensions as `like` has."""
    places = first[:, None] + torch.arange(length, device=first.device)
    return places.expand(like.shape[0], *places.shape) if like.dim() == 3 else places


def answer_value(model: Any, key: str) -> int:
    """What a per-token input other than the ids holds at answer tokens: seen, and of the kind of text answers
    are.
    """
    if key == "attention_mask":
        return 1
    # PaliGemma marks its bidirectional prompt with 0 and its causal answer with 1; elsewhere 0 is text.
    causal_is_one = base_model(model).config.model_type == "paligemma" and key == "token_type_ids"
    return 1 if causal_is_one else 0


def beside_answers(model: Any, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What the answer pass is given for each token beside its id and mask: [contexts, 1, ...] by name.

    Most families take nothing. Mllama's answers see the images that the prompt's last token sees; Molmo wants to
    be told that they are text.
    """
    kept = {key: tensor[:, -1:] for key, tensor in batch.items() if key == "cross_attention_mask"}
    if base_model(model).config.model_type == "molmo2" and "mm_token_type_ids" in batch:
        kept["mm_token_type_ids"] = torch.zeros_like(batch["mm_token_type_ids"][:, -1:])
    return kept


def repeated(beside: Mapping[str, Tensor], length: int) -> dict[str, Tensor]:
    """The same for each of `length` tokens."""
    return {key: tensor.expand(-1, length, *tensor.shape[2:]) for key, tensor in beside.items()}


def batch_obstacle(model: Any, batch: Mapping[str, Tensor], images: Sequence[int]) -> str:
    """Why contexts with these numbers of images can't be batched, or an empty string where they can."""
    if len(set(images)) > 1 and "cross_attention_mask" in batch:
        return "images are read by cross-attention and the contexts of this batch hold different numbers of them"
    return ""
