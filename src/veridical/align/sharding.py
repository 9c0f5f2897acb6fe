"""FSDP2: the language model's layers are split over the processes of a training, each of which holds its share.

Tower, projector, embeddings and output layer are whole in every process: the engine calls them apart from the layers.
What follows is that all processes must pass through the layers equally often, so one without pairs in a pass takes
another's pair and counts it for nothing. DeepSpeed is left out: it wraps a model whose one forward pass it owns, and a
step here is several passes of parts of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from veridical.align import distributed
from veridical.errors import UserError
from veridical.objectives.base import compares_pairs

if TYPE_CHECKING:
    from veridical.align.config import AlignConfig
    from veridical.vlm.model.loading import Vlm

_OPTIMISER = "optimizer-{}-of-{}.safetensors"


def check(config: AlignConfig) -> None:
    """Raise UserError for settings that can't be sharded, before anything is loaded."""
    if not config.shard:
        return
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        raise UserError("shard splits the model over processes, and there is one; start them with torchrun.")
    if config.quantise != "none":
        raise UserError("shard and quantise: split weights can't be quantised ones; leave one of them out.")
    if compares_pairs(config.objective):
        raise UserError(
            f"shard and objective {config.objective.name}: it compares all pairs of a step in passes of its own, in "
            "which processes would fall out of step; train without shard, or by another objective."
        )
    if config.watch.records or config.kl.weight or config.auxiliary.data is not None:
        raise UserError(
            "shard and watch, kl or auxiliary: their passes through the model are others in each process, which would "
            "fall out of step; leave them out, or train without shard."
        )
    if config.train == "adapter" and config.lora.acts_on == "answers":
        raise UserError(
            "shard and lora.acts_on answers: prefixes that are kept are not read again, so processes would fall out of "
            "step; such an adapter trains without shard, in far less memory."
        )


def shard(vlm: Vlm) -> None:
    """Split the language model's layers over all processes, in place. Raises UserError for a model without such."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    from veridical.vlm.model.families import base_model

    base = base_model(vlm.model)
    decoder = base.get_decoder()
    layers = getattr(decoder, "layers", None)
    if not isinstance(layers, torch.nn.ModuleList) or vlm.sharing.reason:
        why = vlm.sharing.reason or "its language model's layers weren't found"
        raise UserError(f"{vlm.name} can't be sharded: {why}. Leave shard out.")
    mesh = init_device_mesh(vlm.model.device.type, (distributed.count(),))
    for layer in layers:
        fully_shard(layer, mesh=mesh)
    inside = {id(parameter) for layer in layers for parameter in layer.parameters()}
    # The engine looks tokens up by itself, outside of the decoder's forward pass.
    whole = {parameter for parameter in decoder.parameters() if id(parameter) not in inside}
    fully_shard(decoder, mesh=mesh, ignored_params=whole)
    for module in (decoder, *layers):
        # A process's loss is its share of the step's sum, not a mean.
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)


def whole_parameters(parameters: Iterable[torch.nn.Parameter]) -> list[torch.nn.Parameter]:
    """Those that every process holds whole, and whose gradients are therefore still to be summed."""
    from torch.distributed.tensor import DTensor

    return [parameter for parameter in parameters if not isinstance(parameter, DTensor)]


def gathered(model: torch.nn.Module) -> dict[str, Tensor]:
    """The weights that train, by name, each whole and on the CPU. All processes must call it."""
    return {name: _whole(p.detach()).cpu() for name, p in model.named_parameters() if p.requires_grad}


def take(model: torch.nn.Module, weights: dict[str, Tensor]) -> None:
    """Give a model, sharded or not, the weights that `gathered` returned."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            weight = weights[name].to(parameter.device, parameter.dtype)
            if isinstance(parameter, DTensor):
                weight = distribute_tensor(weight, parameter.device_mesh, parameter.placements)
            parameter.copy_(weight)


def save_optimiser(optimiser: torch.optim.Optimizer, folder: Path) -> None:
    """Write this process's share of an optimiser's state."""
    from safetensors.torch import save_file

    state = {
        f"{place}/{name}": _local(value).detach().cpu().contiguous().clone()
        for place, parameter in enumerate(_parameters(optimiser))
        for name, value in optimiser.state.get(parameter, {}).items()
        if isinstance(value, Tensor)
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(state, folder / _OPTIMISER.format(distributed.index(), distributed.count()))


def load_optimiser(optimiser: torch.optim.Optimizer, folder: Path) -> None:
    """Read it back. Raises UserError where another number of processes wrote it."""
    from safetensors.torch import load_file
    from torch.distributed.tensor import DTensor

    path = folder / _OPTIMISER.format(distributed.index(), distributed.count())
    if not path.exists():
        before = next((one.stem.rpartition("-")[2] for one in folder.glob("optimizer-0-of-*.safetensors")), "no")
        raise UserError(
            f"{folder}: was written by {before} processes that shared the model, and there are {distributed.count()}. "
            "Continue with as many."
        )
    parameters = _parameters(optimiser)
    for key, value in load_file(path).items():
        place, _, name = key.partition("/")
        parameter = parameters[int(place)]
        own: Any = value if name == "step" else value.to(parameter.device)
        if isinstance(parameter, DTensor) and name != "step":
            own = DTensor.from_local(
                own, parameter.device_mesh, parameter.placements, shape=parameter.shape, stride=parameter.stride()
            )
        optimiser.state[parameter][name] = own


def _parameters(optimiser: torch.optim.Optimizer) -> list[torch.nn.Parameter]:
    return [parameter for group in optimiser.param_groups for parameter in group["params"]]


def _whole(tensor: Tensor) -> Tensor:
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _local(tensor: Tensor) -> Tensor:
    from torch.distributed.tensor import DTensor

    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
