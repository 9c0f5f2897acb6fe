"""LoRA on the language model: attached, switched off, and saved so that plain PEFT loads it."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Lt

from veridical.bounds import Positive
from veridical.errors import UserError
from veridical.files import read_json, read_state, whole_folder, write_json
from veridical.vlm.model import image_limits
from veridical.vlm.model.load_options import is_quantised
from veridical.vlm.model.weights import KEEP_FLOAT32

if TYPE_CHECKING:
    from veridical.vlm.model.loading import Vlm

_TOWER = re.compile(r"^((?:model\.)?vision_tower\.)((?:embeddings|encoder|post_layernorm|pre_layrnorm|head)\..+)$")
"""Weights of a CLIP or SigLIP tower without the name of the model inside."""
_PROJECTORS = ("multi_modal_projector", "connector", "modality_projection", "visual.merger", "mm_projector")


@dataclass(frozen=True)
class LoraSettings:
    """A low-rank adapter on the language model. The vision tower is never touched."""

    rank: Positive = 16
    """Rank of the update of each weight matrix."""
    alpha: Positive = 32
    """The update is scaled by alpha / rank."""
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Share of the adapter's inputs that are dropped while training."""
    targets: Literal["language", "attention"] = "language"
    """`language`: every linear layer of the language model, the experts of a mixture too (but not where
    it acts on answers); `attention`: only those in its attention."""
    acts_on: Literal["everything", "answers"] = "everything"
    """`answers`: the adapter acts from the invocation tokens on, and image and prompt are read by the frozen
    base model (activated LoRA). Cheaper to train: no gradient flows through the prefix, which may be kept. vLLM can't
    serve it and it can't be merged; where that is wanted, take everything."""
    train_projector: bool = False
    """Also train the projector between tower and language model, in full."""


def attach(
    vlm: Vlm, settings: LoraSettings, seed: int, invocation_tokens: tuple[int, ...], start: Path | None = None
) -> Vlm:
    """Add a trainable adapter, in float32, to the model; the base stays frozen.

    The adapter is a new one, whose first weights depend on `seed` only, or has the weights of the one in `start`, a
    folder in PEFT's layout. The model given shares its weights with the one returned and must not be used afterwards.
    Raises `UserError` where no layer fits the settings, or the adapter in `start` has other ones.
    """
    import torch
    from peft import LoraConfig, get_peft_model

    from veridical.vlm.model.loading import fingerprint, peft_quiet
    from veridical.vlm.model.precision import train_in_float32

    if hasattr(vlm.model, "peft_config"):
        raise UserError(f"{vlm.name} has an adapter already. Merge it into the model or start from the base.")
    # PEFT's activated LoRA can't act on parameters, so adapters for answers leave the experts out.
    experts = expert_parameters(vlm.model) if settings.targets == "language" and not invocation_tokens else []
    if experts and settings.dropout:
        raise UserError(
            f"{vlm.name} is a mixture of experts, and LoRA on experts takes no dropout; set lora.dropout to 0, or "
            "lora.targets to attention."
        )
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=target_pattern(vlm.model, settings.targets),
        target_parameters=experts or None,
        modules_to_save=[projector_name(vlm.model)] if settings.train_projector else None,
    )
    with torch.random.fork_rng(), peft_quiet():
        torch.manual_seed(seed)
        model = get_peft_model(vlm.model, config)
    train_in_float32(model)
    if start is not None:
        take_weights(model, settings, start)
    model.eval()
    return dataclasses.replace(
        vlm,
        model=model,
        fingerprint=fingerprint(vlm.weights, model, vlm.processor, invocation_tokens),
        invocation_tokens=invocation_tokens,
    )


def take_weights(model: Any, settings: LoraSettings, folder: Path) -> None:
    """Give a model's adapter the weights of another of the same settings."""
    from peft import load_peft_weights, set_peft_model_state_dict

    if not (folder / "adapter_config.json").is_file():
        raise UserError(f"{folder} holds no adapter: there is no adapter_config.json in it. Give a PEFT folder.")
    saved = read_state(folder / "adapter_config.json", remedy="give an adapter as PEFT writes it")
    acts_on = "answers" if saved.get("alora_invocation_tokens") else "everything"
    if (saved.get("lora_alpha"), acts_on) != (settings.alpha, settings.acts_on):
        raise UserError(
            f"The adapter in {folder} has alpha {saved.get('lora_alpha')} and acts on {acts_on}. "
            "Give the lora settings that it was trained with."
        )
    weights = load_peft_weights(str(folder), device="cpu")
    try:
        outcome = set_peft_model_state_dict(model, weights)
        absent = [name for name in outcome.missing_keys if "lora_" in name]
    except KeyError as error:  # a projector that the settings train and the adapter has not
        absent = [str(error.args[0])]
    except RuntimeError as error:
        raise UserError(f"The adapter in {folder} has another shape than the settings: {error}") from error
    if different := absent or outcome.unexpected_keys:
        raise UserError(
            f"The adapter in {folder} is on other layers than the settings say (for one: {different[0]}). "
            "Give the lora settings that it was trained with."
        )


def load_adapter(model: Any, adapter: Path) -> tuple[Any, tuple[int, ...]]:
    """Load an adapter onto a model; returns it with the invocation tokens of an answer-only adapter, else none."""
    from peft import PeftConfig, PeftModel

    from veridical.vlm.model.loading import peft_quiet

    if not (adapter / "adapter_config.json").is_file():
        raise UserError(f"{adapter} holds no adapter: there is no adapter_config.json in it. Give a PEFT folder.")
    if not (adapter / "adapter_model.safetensors").is_file():
        raise UserError(
            f"{adapter} has no adapter_model.safetensors. Weights in other files (such as adapter_model.bin, which can "
            "run code when it is read) are refused; save the adapter with PEFT's save_pretrained again."
        )
    try:
        config = PeftConfig.from_pretrained(str(adapter))
        invocation_tokens = tuple(getattr(config, "alora_invocation_tokens", None) or ())
        # The engine itself switches such an adapter on at the invocation tokens: see `vlm/model/alora.py`.
        config.alora_invocation_tokens = None
        with peft_quiet():
            adapted = PeftModel.from_pretrained(model, str(adapter), config=config).eval()
            # Once more, for what PEFT found: the first time it would warn, leave weights as they are, and continue.
            outcome = adapted.load_adapter(str(adapter), adapted.active_adapter, is_trainable=False)
    except Exception as error:  # a stranger's files: whatever is wrong with them gets a sentence
        raise UserError(f"The adapter in {adapter} doesn't fit the model: {error}") from error
    added = re.compile(r"lora_|\.modules_to_save\.|trainable_tokens")
    different = sorted({*outcome.unexpected_keys, *(name for name in outcome.missing_keys if added.search(name))})
    if different:
        raise UserError(
            f"The adapter in {adapter} doesn't fit the model: {len(different)} weights have no counterpart, "
            f"{different[0]} for one. Load the base model that it was trained on."
        )
    broken = [name for name, weight in adapted.named_parameters() if added.search(name) and not weight.isfinite().all()]
    if broken:
        raise UserError(
            f"The adapter in {adapter} is broken: {len(broken)} of its weights hold NaN or infinity ({broken[0]} for "
            "one), as after a training that diverged. Train it again with a lower learning rate, or fetch it again."
        )
    return adapted.eval(), invocation_tokens


def target_pattern(model: Any, targets: Literal["language", "attention"]) -> str:
    """A regular expression that matches the full names of the language model's linear layers and no others.

    Short names would also hit the vision tower, whose layers are often called the same.
    """
    from torch.nn import Linear

    from veridical.vlm.model.families import base_model, decoder_name

    decoder = decoder_name(model)
    modules = dict(base_model(model).named_modules())
    # GIT's language model holds its vision tower.
    towers = [name for name, module in modules.items() if getattr(module, "main_input_name", "") == "pixel_values"]
    towers = [name for name in towers if name.startswith(f"{decoder}.")]
    inside = re.compile(re.escape(decoder) + r"\.((?:.*\.)?layers?)\.\d+\.(.+)")
    stacks, layers = set(), set()
    for name, module in modules.items():
        match = inside.fullmatch(name)
        fits = targets == "language" or "attn" in name or "attention" in name
        if match and fits and isinstance(module, Linear) and not name.startswith(tuple(f"{one}." for one in towers)):
            stacks.add(re.escape(match[1]))
            layers.add(re.sub(r"\\\.\d+\\\.", r"\\.\\d+\\.", re.escape(match[2])))
    if not layers:
        raise UserError(f"No linear layer fits targets={targets!r} under {decoder}; LoRA can't be attached.")
    return rf"{re.escape(decoder)}\.(?:{'|'.join(sorted(stacks))})\.\d+\.(?:{'|'.join(sorted(layers))})"


def expert_parameters(model: Any) -> list[str]:
    """Full names of the matrices that a mixture's experts share one tensor for, [experts, in, out]; they are no linear
    layers, and PEFT adapts them as parameters."""
    from veridical.vlm.model.families import base_model, decoder_name

    decoder = decoder_name(model)
    inside = re.compile(re.escape(decoder) + r"\.(?:.*\.)?layers\.\d+\..*experts.*")
    return [name for name, p in base_model(model).named_parameters() if p.ndim == 3 and inside.fullmatch(name)]


def projector_name(model: Any) -> str:
    """The full name of the module between vision tower and language model."""
    from veridical.vlm.model.families import base_model

    names = [name for name, _ in base_model(model).named_modules()]
    for ending in _PROJECTORS:
        for name in names:
            if name == ending or name.endswith(f".{ending}"):
                return str(name)
    raise UserError("The model's projector wasn't found, so it can't be trained; set train_projector to false.")


def projector_parameters(model: Any) -> list[Any]:
    """The weights of that module, the copy that an adapter trains among them; none where there is no such module."""
    from veridical.vlm.model.families import base_model

    try:
        module = base_model(model).get_submodule(projector_name(model))
    except UserError:
        return []
    return list(module.parameters())


def has_adapter(vlm: Vlm) -> bool:
    """Whether the model carries an adapter that can be switched off."""
    return hasattr(vlm.model, "disable_adapter")


@contextmanager
def adapters_off(vlm: Vlm) -> Iterator[None]:
    """The exact base model while this lasts, a trained projector taken back too; nothing to do without an
    adapter.
    """
    if not has_adapter(vlm):
        yield
        return
    with vlm.model.disable_adapter():
        yield


@contextmanager
def reading_prompts(vlm: Vlm) -> Iterator[None]:
    """How images and prompts are read: by the base model without gradients if the adapter acts on answers only."""
    import torch

    if not vlm.invocation_tokens:
        yield
        return
    with torch.no_grad(), adapters_off(vlm):
        yield


def merged(vlm: Vlm) -> Vlm:
    """Add the adapter to the weights, where these are float32: the same answers but for rounding, and no extra passes.

    In half precision most of a small update would be rounded away, so there the model is returned as it is, as it is
    with quantised weights and with an adapter that acts on answers only. The fingerprint tells a merged model. The
    model given must not be used afterwards.
    """
    import torch

    halves = any(p.dtype in (torch.bfloat16, torch.float16) for p in vlm.model.parameters())
    if vlm.invocation_tokens or halves or is_quantised(vlm.model) or not hasattr(vlm.model, "merge_and_unload"):
        return vlm
    model = vlm.model.merge_and_unload(safe_merge=True).eval().requires_grad_(False)
    return dataclasses.replace(vlm, model=model, fingerprint=f"{vlm.fingerprint}-merged")


def unfreeze(vlm: Vlm, projector: bool) -> Vlm:
    """Make the language model trainable, and with `projector` that too; the vision tower stays frozen. All weights
    become float32.

    The model given shares its weights with the one returned and must not be used afterwards.
    """
    from veridical.vlm.model.families import base_model

    if is_quantised(vlm.model):
        raise UserError(f"{vlm.name} is quantised, and such weights can't train; train an adapter, or load it in full.")
    base = base_model(vlm.model)
    base.get_decoder().requires_grad_(True)
    base.get_output_embeddings().requires_grad_(True)
    if projector:
        base.get_submodule(projector_name(vlm.model)).requires_grad_(True)
    # The tower too: many models take the number type of one of their weights for that of all.
    base.float()
    return vlm


def save_trained(vlm: Vlm, folder: Path) -> None:
    """Write what was trained, whole or not at all: an adapter in PEFT's layout (`PeftModel.from_pretrained(model,
    folder)` loads it), or else the model with its processor, as `from_pretrained` reads them.
    """
    with whole_folder(folder) as fresh:
        _save(vlm, fresh)
        give_usual_rights(fresh)


def give_usual_rights(folder: Path) -> None:
    """Let others read the files of a folder as the user's other new files; safetensors writes such as nobody may."""
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(0o666 & ~_umask())


def _umask() -> int:
    """What the user takes from the rights of new files; it can only be read by setting it."""
    found = os.umask(0)
    os.umask(found)
    return found


def _save(vlm: Vlm, folder: Path) -> None:
    if not hasattr(vlm.model, "peft_config"):
        save_whole(vlm.model, vlm.processor, folder, keep_float32=True)
        return
    # "auto" would ask the hub about the base model's vocabulary.
    vlm.model.save_pretrained(str(folder), save_embedding_layers=False)
    image_limits.store(vlm.limits, folder)
    if vlm.invocation_tokens:
        _name_invocation_tokens(folder / "adapter_config.json", vlm.invocation_tokens)


def save_whole(model: Any, processor: Any, folder: Path, *, keep_float32: bool) -> None:
    """Write a model with its processor, under the names that published ones have; with `keep_float32`, `auto` loads it
    in float32 on a GPU too."""
    model.save_pretrained(str(folder))
    processor.save_pretrained(str(folder))
    name_as_others_do(folder)
    if keep_float32:
        config = folder / "config.json"
        write_json(config, {**read_json(config), KEEP_FLOAT32: True})


def name_as_others_do(folder: Path) -> None:
    """Give a LLaVA's tower the names that its weights have in published models, `vision_tower.vision_model.…`.

    transformers 5.24 reads both, and leaves the middle out when it writes; older versions and vLLM want it.
    """
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    from veridical.vlm.model.weights import files_of

    renamed: dict[str, str] = {}
    for file in files_of(folder):
        with safe_open(file, "pt") as weights:
            metadata, names = weights.metadata(), list(weights.keys())
        found = {name: _TOWER.sub(r"\1vision_model.\2", name) for name in names}
        if any(old != new for old, new in found.items()):
            tensors = {found[name]: tensor for name, tensor in load_file(file).items()}
            save_file(tensors, file, metadata=metadata)
            renamed |= found
    index = folder / "model.safetensors.index.json"
    if renamed and index.is_file():
        listed = read_json(index)
        listed["weight_map"] = {renamed.get(name, name): file for name, file in listed["weight_map"].items()}
        write_json(index, listed)


def _name_invocation_tokens(path: Path, invocation_tokens: tuple[int, ...]) -> None:
    """Tell PEFT from which tokens on the adapter acts."""
    write_json(path, {**read_json(path), "alora_invocation_tokens": list(invocation_tokens)})
