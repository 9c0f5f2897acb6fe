"""Loads any Hugging Face image-text-to-text model, by name or folder, with or without an adapter."""

from __future__ import annotations

import hashlib
import html
import json
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from veridical.errors import DataWarning, UserError, panics_as_errors
from veridical.vlm.model import load_options
from veridical.vlm.model.load_options import LoadOptions
from veridical.vlm.model.weights import KEEP_FLOAT32, files_of, hash_in_memory, hash_of_adapter, hash_of_files
from veridical.world.bundled import bundled_model_path, is_bundled

if TYPE_CHECKING:
    import torch

    from veridical.vlm.model.families import Traits
    from veridical.vlm.model.image_limits import ImageLimits

_DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True, slots=True)
class Sharing:
    """Whether prefixes are shared: `reason` is empty if so, and says why not otherwise.

    `tested` is true for the families that the tests compare with separate forwards; for others `difference`
    is what a probe found when the model was loaded: the largest difference of a token's log-probability.
    """

    tested: bool
    reason: str = ""
    difference: float | None = None


@dataclass(frozen=True)
class Vlm:
    """A loaded model with its processor. `name` is what the user called it; `family` its transformers model type.

    `fingerprint` is the SHA-256 of weights (as loaded), adapter, processor configuration and chat template:
    two models with the same fingerprint give the same numbers. `sharing` says whether prefixes are shared,
    and how that is known. `invocation_tokens` are the token ids from which on the adapter acts, if it acts on answers
    only.
    `weights` is the SHA-256 of the base model's weights alone. `limits` are those that the processor was set to.
    """

    name: str
    model: Any = field(repr=False)
    processor: Any = field(repr=False)
    tokenizer: Any = field(repr=False)
    family: str
    fingerprint: str
    traits: Traits
    sharing: Sharing
    invocation_tokens: tuple[int, ...] = ()
    weights: str = field(default="", repr=False)
    limits: ImageLimits | None = None

    def __repr__(self) -> str:
        size = sum(weight.numel() for weight in self.model.parameters())
        kind, adapted = str(self.model.dtype).removeprefix("torch."), hasattr(self.model, "peft_config")
        return (
            f"Vlm({self.name}: {self.family}, {_rounded(size)} parameters{' with an adapter' * adapted}, {kind} on "
            f"{self.model.device}, {'prefixes separate' if self.sharing.reason else 'prefixes shared'})"
        )

    def _repr_html_(self) -> str:
        limits = str(self.limits) if self.limits else "the model's own"
        sharing = self.sharing.reason or "yes"
        rows = {"family": self.family, "fingerprint": self.fingerprint[:12], "shares prefixes": sharing}
        cells = "".join(f"<tr><th>{name}</th><td>{html.escape(said)}</td></tr>" for name, said in rows.items())
        return f"<p>{html.escape(repr(self))}</p><table>{cells}<tr><th>image limits</th><td>{limits}</td></tr></table>"


def _rounded(count: int) -> str:
    """A number of parameters as people say it: 950k, 1.6M, 7.1B."""
    for size, letter in ((1_000_000_000, "B"), (1_000_000, "M"), (1_000, "k")):
        if count >= size:
            return f"{count / size:.3g}{letter}"
    return str(count)


@dataclass(frozen=True)
class Loaded:
    """A model in evaluation mode, its processor, and the hash of its weights."""

    model: Any
    processor: Any
    weights: str


def read_model(
    model: str | Path, dtype: str, device: str, allow_remote_code: bool, options: LoadOptions | None = None
) -> Loaded:
    """A model with all weights frozen, on its device, and its processor; as `vlm.load.load` says."""
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor
    from transformers.utils import cached_file

    from veridical.vlm.model import devices

    if dtype not in _DTYPES:
        raise UserError(f"dtype {dtype!r} is unknown. Choose one of {', '.join(_DTYPES)}.")
    options = options or LoadOptions()
    load_options.check(options, device)
    load_options.silence_kernel_advice(options.quantise == "none")
    place = devices.choose("auto" if device == load_options.SPREAD else device)
    source = str(source_of(model))
    files = files_of(Path(source)) if Path(source).is_dir() else []
    try:
        if files and not allow_remote_code:
            _refuse_larger(model, Path(source), files)
        number = getattr(torch, dtype) if dtype != "auto" else automatic_dtype(Path(source), place)
        with panics_as_errors():
            processor = AutoProcessor.from_pretrained(source, trust_remote_code=allow_remote_code)
        with without_bars(source):
            loaded, outcome = AutoModelForImageTextToText.from_pretrained(
                source,
                dtype=number,
                use_safetensors=True,
                trust_remote_code=allow_remote_code,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                **load_options.arguments(options, device, place, number),
            )
    except UserError:
        raise
    except Exception as error:  # a stranger's files: whatever is wrong with them gets a sentence
        raise UserError(
            f"The model {str(model)!r} can't be loaded: {_first_lines(error)}. Give a folder or a hub name of an "
            "image-text-to-text model with safetensors weights, and its processor beside it."
        ) from error
    _refuse_made_up(model, outcome)
    folder = Path(source) if Path(source).is_dir() else Path(str(cached_file(source, "config.json"))).parent
    if getattr(loaded, "hf_device_map", None) is None:
        loaded.to(place)
    loaded.requires_grad_(False).eval()
    _refuse_not_finite(model, loaded)
    if options.compile:
        load_options.compile_language_model(loaded)
    return Loaded(loaded, processor, hash_of_files(folder, f"{number}{options.changes_numbers}"))


def automatic_dtype(folder: Path, place: torch.device) -> torch.dtype:
    """What weights are loaded as where nothing is asked for: bfloat16 on a GPU, else float32.

    A whole model that an alignment wrote is float32 on a GPU too: rounding would undo most of what a small learning
    rate changed.
    """
    import torch

    config = folder / "config.json"
    if place.type != "cuda" or (config.is_file() and json.loads(config.read_text("utf-8")).get(KEEP_FLOAT32)):
        return torch.float32
    return torch.bfloat16


def check_files(model: str | Path, allow_remote_code: bool = False) -> None:
    """Raise UserError where `read_model` would fail for a file that is absent or damaged.

    Reads no weights, and imports neither torch nor transformers, which takes seconds; what only they can tell shows
    when the model is loaded.
    """
    source = source_of(model)
    config = _model_file(model, source, "config.json")
    if not config.get("model_type") and not (allow_remote_code and config.get("auto_map")):
        raise UserError(f"The model {str(model)!r} can't be loaded: its config.json names no model_type. {_REMEDY}")
    if not isinstance(source, Path):
        return
    if not any((source / name).is_file() for name in _PROCESSORS):
        raise UserError(
            f"The model {str(model)!r} can't be loaded: it has no processor ({' or '.join(_PROCESSORS)}). {_REMEDY}"
        )
    for name in (*_PROCESSORS, "tokenizer_config.json"):
        if (source / name).is_file():
            _model_file(model, source, name)
    if not files_of(source):
        raise UserError(f"{source} holds no weights: there is no model.safetensors in it, and no index of several.")


_PROCESSORS = ("processor_config.json", "preprocessor_config.json")
_REMEDY = (
    "Give a folder or a hub name of an image-text-to-text model with safetensors weights, and its processor beside it."
)


def _model_file(model: str | Path, source: str | Path, name: str) -> dict[str, Any]:
    """A JSON file of a model, in a folder or on the hub. Raises UserError where it is absent or damaged."""
    try:
        if isinstance(source, Path):
            path = source / name
        else:
            from huggingface_hub import hf_hub_download

            path = Path(hf_hub_download(source, name))
        content = json.loads(path.read_text(encoding="utf-8"))
    except Exception as error:  # a stranger's files
        raise UserError(f"The model {str(model)!r} can't be loaded: {_first_lines(error)}. {_REMEDY}") from error
    if not isinstance(content, dict):
        raise UserError(f"The model {str(model)!r} can't be loaded: {name} is no JSON object. {_REMEDY}")
    return content


def _refuse_larger(model: str | Path, folder: Path, files: Sequence[Path]) -> None:
    """Refuse a configuration of a far larger model than its files hold, before transformers makes up what is missing:
    a LLaVA without `text_config` is one of 7B."""
    import torch
    from safetensors import safe_open
    from transformers import AutoConfig, AutoModelForImageTextToText

    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    if getattr(config, "quantization_config", None) is not None:
        return  # several weights in one number
    held = 0
    for path in files:
        with safe_open(path, "pt") as file:
            held += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    with torch.device("meta"):
        wanted = sum(weight.numel() for weight in AutoModelForImageTextToText.from_config(config).parameters())
    if wanted > 2 * held:
        raise UserError(
            f"The model {str(model)!r} can't be loaded: its config.json is of a model of {wanted:,} weights, its files "
            f"hold {held:,}. Fetch it again, or give one whose configuration fits."
        )


def _refuse_made_up(model: str | Path, outcome: Mapping[str, Any]) -> None:
    """Refuse weights that the files lack or that don't fit: transformers would give the model random ones instead."""
    lacking = sorted({*outcome.get("missing_keys", ()), *(str(one[0]) for one in outcome.get("mismatched_keys", ()))})
    if lacking:
        raise UserError(
            f"The model {str(model)!r} can't be loaded: {len(lacking)} of its weights are missing from its files or "
            f"have another shape there ({lacking[0]} for one). Fetch it again, or give one whose configuration fits."
        )


def _refuse_not_finite(model: str | Path, loaded: Any) -> None:
    """Refuse weights that are no numbers: every answer would be made up of one token, and every score be NaN."""
    broken = [
        name
        for name, weight in loaded.named_parameters()
        # Numbers of 8 bits are a quantiser's own, and torch can't ask them.
        if weight.is_floating_point() and weight.itemsize > 1 and not weight.is_meta and not weight.isfinite().all()
    ]
    if broken:
        raise UserError(
            f"The model {str(model)!r} can't be used: {len(broken)} of its weights hold NaN or infinity ({broken[0]} "
            "for one), as after a training that diverged, or in float16 where they are too large for it. Fetch it "
            "again, or give another dtype."
        )


def _first_lines(error: Exception) -> str:
    """What an exception says, shortened: transformers' can fill pages."""
    text = " ".join(str(error).split()) or type(error).__name__
    return (text if len(text) <= 400 else f"{text[:400]}...").rstrip(".")


def assemble(
    name: str,
    model: Any,
    processor: Any,
    weights: str = "",
    invocation_tokens: tuple[int, ...] = (),
    limits: ImageLimits | None = None,
) -> Vlm:
    """A `Vlm` from a model and a processor in memory; families that no test covers are still to be probed.

    `weights` is the base's hash, worked out here if it isn't known; `invocation_tokens` and `limits` as in `Vlm`.
    """
    from veridical.vlm.model import chat, families, support
    from veridical.vlm.model.generation_settings import read_settings

    base = families.base_model(model)
    tokenizer = getattr(processor, "tokenizer", None)
    if not getattr(processor, "chat_template", None):
        processor.chat_template = getattr(tokenizer, "chat_template", None)
    if tokenizer is None or not processor.chat_template:
        raise UserError(f"The processor of {name!r} has no chat template. Save one with it: processor.chat_template.")
    text = base.config.get_text_config()
    if text.is_encoder_decoder:
        raise UserError(
            f"{name!r} reads with an encoder and writes with a decoder ({base.config.model_type}); veridical works "
            "with models whose answer follows the prompt. Choose such a model: `veridical models` lists families."
        )
    eos_ids = _eos_ids(base, tokenizer)
    style = chat.opened(processor, tokenizer)
    end_ids = chat.end_of_turn(processor, tokenizer, eos_ids, style.plain)
    generation, ignored = read_settings(getattr(base, "generation_config", None))
    traits = families.Traits(
        image_id=families.image_id(base.config),
        placeholder_ids=families.placeholder_ids(base.config),
        end_ids=end_ids,
        stop_ids=frozenset({*eos_ids, end_ids[-1]}),
        takes_features=families.takes_features(model),
        max_length=getattr(text, "max_position_embeddings", None),
        demands_image=families.demands_image(model),
        # A tokenizer writes the unknown token for characters that it lacks.
        control_ids=chat.special_ids(tokenizer) - {tokenizer.unk_token_id},
        chat=style,
        generation=generation,
    )
    if ignored:
        message = (
            f"{name}: its generation settings {', '.join(ignored)} are not followed; its answers may differ by that."
        )
        warnings.warn(message, DataWarning, stacklevel=2)
    family = str(base.config.model_type)
    sharing = Sharing(tested=family in support.shared_families())
    weights = weights or hash_in_memory(base)
    digest = fingerprint(weights, model, processor, invocation_tokens)
    return Vlm(name, model, processor, tokenizer, family, digest, traits, sharing, invocation_tokens, weights, limits)


def fingerprint(weights: str, model: Any, processor: Any, invocation_tokens: tuple[int, ...] = ()) -> str:
    """SHA-256, in hex, over a base model's weights (given as their hash), its adapter, the processor, the chat
    template, where an answer-only adapter begins, and generation settings that change answers."""
    from veridical.vlm.model.families import base_model
    from veridical.vlm.model.generation_settings import read_settings

    digest = hashlib.sha256(f"{weights} {hash_of_adapter(model)}\n".encode())
    digest.update(processor.to_json_string().encode())
    digest.update(str(processor.chat_template).encode())
    digest.update(repr(sorted(processor.tokenizer.get_vocab().items())).encode())
    digest.update(repr(invocation_tokens).encode() if invocation_tokens else b"")
    generation, _ = read_settings(getattr(base_model(model), "generation_config", None))
    digest.update(repr(generation).encode() if generation else b"")
    return digest.hexdigest()


@contextmanager
def without_bars(source: str) -> Iterator[None]:
    """No bars of transformers' while weights are read from a folder; a download keeps its own."""
    from transformers.utils import logging

    if not Path(source).is_dir() or not logging.is_progress_bar_enabled():
        yield
        return
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()


def source_of(model: str | Path) -> str | Path:
    """Where `model` is loaded from: a folder, or a name on the hub. Raises `UserError` for a path without a model."""
    if is_bundled(model):
        return bundled_model_path(str(model))
    looks_like_a_path = isinstance(model, Path) or str(model).startswith((".", "/", "~"))
    path = Path(model).expanduser()
    if looks_like_a_path and not (path / "config.json").is_file():
        raise UserError(f"{path} holds no model: there is no config.json in it. Give a model's folder or a hub name.")
    return path if path.is_dir() else model


def _eos_ids(base: Any, tokenizer: Any) -> set[int]:
    configured = getattr(getattr(base, "generation_config", None), "eos_token_id", None)
    found = configured if isinstance(configured, list) else [configured]
    if strange := [token for token in found if token is not None and not isinstance(token, int)]:
        raise UserError(
            f"The model's generation_config.json says that {strange[0]!r} ends an answer; it takes numbers of tokens."
        )
    return {int(token) for token in (*found, tokenizer.eos_token_id) if token is not None}


@contextmanager
def peft_quiet() -> Iterator[None]:
    """While PEFT wraps a model: what transformers tells it about renamed attributes is of no use to the user."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield
