"""How much memory a piece of work takes, worked out from the model's shape before it starts.

An estimate: temporary buffers of one layer at a time are assumed, and attention kernels that keep no matrix of weights,
unless attention is eager.
How much a layer keeps for its backward pass was measured on the CPU in float32, on three shapes of LLaVA: the plan is
up to 8 % above what a training step holds beyond weights and gradients, with LoRA, on answers only and in full; up to
40 % above where many heads share one head of keys.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from veridical.errors import UserError
from veridical.vlm.scores.output_layer import IN_FLOAT

if TYPE_CHECKING:
    from veridical.vlm.inputs.context import Context
    from veridical.vlm.model.loading import Vlm

Work: TypeAlias = Literal["build", "eval", "reference", "lora", "answers", "full"]
"""What is done: sampling for pairs or for a protocol, the reference's scores, training of LoRA, of an adapter that acts
on answers only, or of the whole language model."""

GIB = 2**30
MOMENTS = {"adamw": 8, "adamw-8bit": 2, "rmsprop": 4}
"""Bytes of an optimiser's moments for each weight that trains."""
_FLOAT = 4
_SHARE = 0.9
"""Of what is free, how much a plan may fill: allocators lose some of it between blocks."""


@dataclass(frozen=True)
class Shape:
    """What of a model decides about memory; `rest` counts the parameters outside the language model."""

    layers: int
    hidden: int
    intermediate: int
    query: int
    key_value: int
    """Width of a token's keys in one layer; its values are as wide."""
    vocabulary: int
    language: int
    """Parameters of the language model, embeddings and output layer included."""
    rest: int
    bytes: int = 2
    """Of a number of the weights as loaded."""
    loaded: int = 0
    """Bytes of all weights as loaded, where these are quantised; 0 means `bytes` for each."""
    heads: int = 0
    """Of attention, where it is eager and keeps a matrix of weights for each; else 0."""
    projector: int = 0
    """Parameters of the projector, of `rest`, where it trains."""


@dataclass(frozen=True)
class Load:
    """What is worked on at a time: contexts of `prefix` tokens, and `rows` answers in all, of `answer` tokens each."""

    contexts: int
    rows: int
    prefix: int
    answer: int


@dataclass(frozen=True)
class Plan:
    """Bytes by what they are for."""

    weights: int
    prefixes: int
    activations: int
    logits: int
    optimizer: int = 0
    """Gradients, moments, and float32 copies of what trains."""

    @property
    def total(self) -> int:
        """All together."""
        return sum(asdict(self).values())

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {size / GIB:.1f}" for name, size in asdict(self).items() if size)
        return f"about {self.total / GIB:.1f} GiB ({parts})"


def plan(
    shape: Shape,
    work: Work,
    load: Load,
    rank: int = 16,
    checkpointing: bool = False,
    optimiser: str = "adamw",
    shards: int = 1,
) -> Plan:
    """What a piece of work takes of each process; `rank` is that of LoRA, `shards` how many processes share layers."""
    tokens, answers = load.contexts * load.prefix, load.rows * load.answer
    per_token = 2 * shape.key_value * shape.bytes
    one_layer = (6 * shape.hidden + 2 * shape.key_value + 3 * shape.intermediate) * shape.bytes
    layers = _layers(shape)
    ends = shape.language - layers
    weights = shape.loaded or (layers // shards + ends + shape.rest) * shape.bytes
    if work in ("build", "eval"):
        # The prefixes, and their rows with room for what is decoded.
        kept = shape.layers * per_token * (tokens + load.rows * (load.prefix + load.answer))
        passing = tokens * one_layer + _matrices(shape, load, "prefix") * (2 * shape.bytes + _FLOAT)
        return Plan(weights, kept, passing, load.rows * shape.vocabulary * (shape.bytes + 2 * _FLOAT))
    # Logits and their gradient, with their copies in fp32, of some tokens at a time; of first tokens and the hidden
    # states of the others, of all.
    at_a_time = min(answers * shape.vocabulary, IN_FLOAT)
    firsts = load.rows * shape.vocabulary if answers * shape.vocabulary > IN_FLOAT else 0
    logits = (at_a_time + firsts) * (2 * shape.bytes + 2 * _FLOAT)
    matrices = _matrices(shape, load, "answers" if work == "answers" else "all")
    rows = per_token * load.rows * (load.prefix + load.answer)
    if work == "reference":
        passing = max(tokens, answers) * one_layer + matrices * (2 * shape.bytes + _FLOAT)
        return Plan(weights, shape.layers * per_token * tokens + rows, passing, logits)
    if work == "full":
        trained, weights = layers // shards + ends, (layers // shards + ends) * _FLOAT + shape.rest * shape.bytes
        optimizer = (trained + shape.projector) * (_FLOAT + MOMENTS[optimiser])
    else:
        trained = adapter_parameters(shape, rank) // shards + shape.projector
        optimizer = trained * (2 * _FLOAT + MOMENTS[optimiser])
    # Every layer keeps what its backward pass reads, the keys and values that rows attend to among it, repeated for
    # every head; unless that is computed again.
    attended = int(1.3 * 2 * shape.query * shape.bytes * load.rows * (load.prefix + load.answer))
    kept = shape.layers * per_token * tokens + (1 if checkpointing else shape.layers) * attended
    passed = answers if work == "answers" else tokens + answers
    saved = int((3 * shape.hidden + 2 * shape.key_value + 4.9 * shape.intermediate) * shape.bytes)
    held = shape.layers * shape.hidden * shape.bytes + saved if checkpointing else shape.layers * saved
    # The weights of attention in fp32, and once more as they are multiplied.
    attention = (
        matrices * (_FLOAT + (shape.bytes if shape.bytes < _FLOAT else 0)) * (1 if checkpointing else shape.layers)
    )
    return Plan(weights, kept, passed * held + attention + matrices * 2 * shape.bytes, logits, optimizer)


def _matrices(shape: Shape, load: Load, of: Literal["prefix", "answers", "all"]) -> int:
    """Weights of eager attention in one layer: each token's to all before it, head by head."""
    prefixes = load.contexts * load.prefix**2 if of != "answers" else 0
    branches = load.rows * load.answer * (load.prefix + load.answer) if of != "prefix" else 0
    return shape.heads * (prefixes + branches)


def _layers(shape: Shape) -> int:
    """Parameters of the language model's layers, without embeddings and output layer."""
    attention = 2 * shape.hidden * shape.query + 2 * shape.hidden * shape.key_value
    return min(shape.language, shape.layers * (attention + 3 * shape.hidden * shape.intermediate))


def adapter_parameters(shape: Shape, rank: int) -> int:
    """Parameters of LoRA on every linear layer of the language model."""
    hidden, ends = shape.hidden, 0
    ends += 2 * (hidden + shape.query) + 2 * (hidden + shape.key_value) + 3 * (hidden + shape.intermediate)
    return shape.layers * rank * ends


def shape_of(vlm: Vlm) -> Shape:
    """The shape of a loaded model, and of what trains in it besides the language model."""
    from veridical.vlm.model import families
    from veridical.vlm.model.adapters import projector_parameters
    from veridical.vlm.model.load_options import is_quantised

    base, text = families.base_model(vlm.model), families.text_config(vlm.model)
    inside = {id(p): p.numel() for p in base.get_decoder().parameters()}
    inside |= {id(p): p.numel() for p in base.get_output_embeddings().parameters()}
    every = {id(p): p.numel() for p in base.parameters()}
    heads = int(text.num_attention_heads)
    width = int(getattr(text, "head_dim", None) or text.hidden_size // heads)
    return Shape(
        layers=int(text.num_hidden_layers),
        hidden=int(text.hidden_size),
        intermediate=int(getattr(text, "intermediate_size", None) or 4 * text.hidden_size),
        query=heads * width,
        key_value=int(getattr(text, "num_key_value_heads", None) or heads) * width,
        vocabulary=int(text.vocab_size),
        language=sum(inside.values()),
        rest=sum(every.values()) - sum(inside.values()),
        bytes=int(vlm.model.dtype.itemsize),
        loaded=sum(int(p.nbytes) for p in base.parameters()) if is_quantised(vlm.model) else 0,
        heads=heads if getattr(text, "_attn_implementation", None) == "eager" else 0,
        projector=sum(p.numel() for p in projector_parameters(vlm.model) if p.requires_grad),
    )


def available(vlm: Vlm) -> int:
    """Bytes that the model's device, or all that it is spread over, has for all of this work, the loaded weights
    included; 0 where nobody knows."""
    import torch

    device = vlm.model.device
    loaded = sum(int(p.nbytes) for p in vlm.model.parameters())
    if device.type == "cuda":
        devices = {p.device for p in vlm.model.parameters() if p.device.type == "cuda"}
        return sum(int(torch.cuda.mem_get_info(one)[0]) for one in devices) + loaded
    if device.type == "cpu":
        import psutil

        free = psutil.virtual_memory().available
        return int(free) + loaded
    return 0


def announce(
    vlm: Vlm,
    work: Work,
    size: int,
    like: Context,
    *,
    rows: int = 1,
    answer: int = 256,
    rank: int = 16,
    checkpointing: bool = False,
    optimiser: str = "adamw",
    shards: int = 1,
) -> int:
    """Print what `size` contexts like this one take at a time, each with `rows` answers, and return how many fit.

    The size itself where they fit or nobody knows what is free; never less than 1.
    """
    from veridical.vlm.inputs.prepare import prepare

    try:
        length = prepare(vlm, like).length
    except UserError:  # whoever works on this context will say what is wrong with it
        return size
    shape = shape_of(vlm)

    def of(contexts: int) -> Plan:
        load = Load(contexts, contexts * rows, length, answer)
        return plan(shape, work, load, rank, checkpointing, optimiser, shards)

    room, fitting = available(vlm), size
    while room and fitting > 1 and of(fitting).total > _SHARE * room:
        fitting //= 2
    has = f" of {room / GIB:.1f} GiB" if room else ""
    fewer = "" if fitting == size else f"; {size} at a time would take {of(size).total / GIB:.1f} GiB"
    print(f"memory for {work}, {fitting} at a time: {of(fitting)}{has} on {vlm.model.device}{fewer}", file=sys.stderr)
    return fitting


def _published(**widths: Any) -> Shape:
    """A shape from a model's published configuration."""
    shape = Shape(language=0, query=widths["hidden"], **widths)
    layer = 2 * shape.hidden * shape.query + 2 * shape.hidden * shape.key_value + 3 * shape.hidden * shape.intermediate
    ends = shape.vocabulary * shape.hidden * (1 if shape.hidden <= 2048 else 2)  # small ones tie their embeddings
    return Shape(**{**asdict(shape), "language": shape.layers * layer + ends})


def published() -> dict[str, tuple[Shape, int]]:
    """Shapes of well-known models in bfloat16, and the tokens of an image of theirs with a short prompt."""
    qwen = {"vocabulary": 152_064, "rest": 676_000_000}
    return {
        "Qwen2.5-VL-3B": (_published(layers=36, hidden=2048, intermediate=11_008, key_value=256, **qwen), 1100),
        "LLaVA-1.5-7B": (
            _published(
                layers=32, hidden=4096, intermediate=11_008, key_value=4096, vocabulary=32_064, rest=325_000_000
            ),
            640,
        ),
        "Qwen2.5-VL-7B": (_published(layers=28, hidden=3584, intermediate=18_944, key_value=512, **qwen), 1100),
        "LLaVA-1.5-13B": (
            _published(
                layers=40, hidden=5120, intermediate=13_824, key_value=5120, vocabulary=32_064, rest=335_000_000
            ),
            640,
        ),
        "Qwen2.5-VL-32B": (_published(layers=64, hidden=5120, intermediate=27_648, key_value=1024, **qwen), 1100),
        "Qwen2.5-VL-72B": (_published(layers=80, hidden=8192, intermediate=29_568, key_value=1024, **qwen), 1100),
    }


METHODS: dict[str, tuple[Work, Load, bool]] = {
    "build, 32 at a time": ("build", Load(32, 32, 0, 256), False),
    "eval, 32 at a time": ("eval", Load(32, 32, 0, 128), False),
    "LoRA, 4 pairs": ("lora", Load(4, 8, 0, 128), False),
    "LoRA, 1 pair, checkpointed": ("lora", Load(1, 2, 0, 128), True),
    "answers only, 4 pairs": ("answers", Load(4, 8, 0, 128), False),
    "whole model, 4 pairs, checkpointed": ("full", Load(4, 8, 0, 128), True),
}


def table() -> dict[str, dict[str, float]]:
    """GiB that each method takes with each well-known model."""
    return {
        name: {
            method: plan(shape, work, Load(load.contexts, load.rows, tokens, load.answer), 16, checkpointed).total / GIB
            for method, (work, load, checkpointed) in METHODS.items()
        }
        for name, (shape, tokens) in published().items()
    }
