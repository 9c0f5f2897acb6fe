"""`veridical judge train reward-probe`: a linear reward on the hidden states of a frozen model, from pairs.

The loss is Bradley and Terry's, -log sigmoid(r(chosen) - r(rejected)). The model underneath stays frozen; what is
trained is a linear head on its hidden state after image, prompt and answer, so that the loss is convex and the result
the same whatever the batch. What the reward is worth is said on pairs of records that it was not trained on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge, Gt, Lt

from veridical import runs
from veridical.align.run_folder import pairs_digest
from veridical.bounds import NotNegative, Positive, Seed
from veridical.errors import UserError
from veridical.files import naming, read_state, whole, write_json
from veridical.intervals import wilson
from veridical.judges.reward_heads import HEAD, REWARD, states_after
from veridical.judges.rewards import Scorable
from veridical.progress import Line
from veridical.records import Pair
from veridical.runs import INCIDENTAL
from veridical.vlm.seeds import generator

if TYPE_CHECKING:
    from torch import Tensor

    from veridical.vlm.model.loading import Vlm


COMMAND = "judge train reward-probe"


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """Train a linear reward on a frozen model's hidden states, from the pairs of a build."""

    pairs: Path = field(metadata=INCIDENTAL)
    """The run folder of a build."""
    out: Path = field(metadata=INCIDENTAL)
    """The folder to write; give it as --judge.model to judge with the reward."""
    model: str = "bundled"
    """The vision-language model whose hidden states are read; it stays as it is."""
    layer: Annotated[int, Ge(-10_000), Lt(10_000)] = -1
    """Which of its layers is read, as Python counts; -1 is the last."""
    held_out: Annotated[float, Gt(0), Lt(1)] = 0.2
    """Share of the records whose pairs are kept for measuring the reward."""
    penalty: NotNegative = 0.01
    """Weight of the squared length of the head, for hidden states of unit variance."""
    batch_size: Positive = field(default=16, metadata=INCIDENTAL)
    """Answers read at a time."""
    seed: Seed = 0
    """Picks the records that are held out."""
    dtype: str = "auto"
    """Number format of the model: auto, float32, bfloat16 or float16."""
    device: str = field(default="auto", metadata=INCIDENTAL)
    """Where the model runs: auto, cpu, cuda, ...."""


def run(config: ProbeConfig) -> Path:
    """Train the head, print its accuracy on held-out pairs, and return the folder. A finished one is only shown.

    Raises UserError for pairs that are not there or too few, and for a folder with something else in it.
    """
    from veridical.pairs.dataset import read_pairs

    digest = pairs_digest(config.pairs)
    if (config.out / REWARD).exists():
        inputs = runs.check(config.out, COMMAND, config).get("inputs", {})
        runs.refuse_changes(config.out, inputs, {"pairs": digest}, "inputs")
    else:
        pairs = read_pairs(config.pairs)
        with runs.opened(config.out, COMMAND, config) as folder:
            folder.settle({"pairs": digest})
            _train(config, pairs)
    about = read_state(config.out / REWARD, {"held_out": dict, "train": dict})
    with naming(config.out / REWARD, "delete it, and run the same command again"):
        low, high = about["held_out"]["interval"]
        print(
            f"{config.out}: on {about['held_out']['pairs']} held-out pairs the chosen side has the higher reward in "
            f"{100 * about['held_out']['accuracy']:.1f} % [{100 * low:.1f}, {100 * high:.1f}]; "
            f"on the {about['train']['pairs']} it was trained on in {100 * about['train']['accuracy']:.1f} %."
        )
    return config.out


def _train(config: ProbeConfig, pairs: Sequence[Pair]) -> None:
    from safetensors.torch import save_file

    from veridical.vlm.load import load

    split = [is_held_out(pair.record_id, config.held_out, config.seed) for pair in pairs]
    if all(split) or not any(split):
        raise UserError(f"{config.pairs}: {len(pairs)} pairs are too few to train on some and measure on others.")
    vlm = load(config.model, dtype=config.dtype, device=config.device)
    differences = _differences(vlm, pairs, config)
    train = [index for index, out in enumerate(split) if not out]
    rest = [index for index, out in enumerate(split) if out]
    weights = fit(differences[train], config.penalty)
    with whole(config.out / HEAD) as partial:
        save_file({"weights": weights}, partial)
    write_json(
        config.out / REWARD,
        {
            "model": config.model,
            "fingerprint": vlm.fingerprint,
            "layer": config.layer,
            "sha256": hashlib.sha256((config.out / HEAD).read_bytes()).hexdigest(),
            "train": _accuracy(differences[train] @ weights),
            "held_out": _accuracy(differences[rest] @ weights),
        },
    )


def is_held_out(record_id: str, share: float, seed: int) -> bool:
    """Whether a record is kept for measuring: all of its pairs are, or none."""
    return bool(generator("held out", (seed, record_id)).random() < share)


def _differences(vlm: Vlm, pairs: Sequence[Pair], config: ProbeConfig) -> Tensor:
    """Hidden state after the chosen answer minus that after the rejected one, [pairs, width]."""
    import torch

    differences = []
    with Line("read answers", len(pairs)) as line:
        for start in range(0, len(pairs), config.batch_size):
            batch = pairs[start : start + config.batch_size]
            sides = [[Scorable(p.images, p.prompt, text, p.id) for p, text in side] for side in _sides(batch)]
            chosen, rejected = (states_after(vlm, side, config.layer) for side in sides)
            differences.append(chosen - rejected)
            line.advance(len(batch))
    return torch.cat(differences)


def _sides(pairs: Sequence[Pair]) -> tuple[list[tuple[Pair, str]], list[tuple[Pair, str]]]:
    return [(pair, pair.chosen) for pair in pairs], [(pair, pair.rejected) for pair in pairs]


def fit(differences: Tensor, penalty: float) -> Tensor:
    """The head [width] that minimises mean -log sigmoid(w d) + penalty/2 |w s|^2, s the size of each coordinate of d.

    `differences` are [pairs, width]. Solved in double precision by L-BFGS, until it stands still.
    """
    import torch
    from torch.nn.functional import softplus

    data = differences.double()
    size = data.square().mean(0).sqrt().clamp_min(1e-8)
    scaled = data / size
    weights = torch.zeros(data.shape[1], dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([weights], max_iter=500, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        solver.zero_grad()
        value: Tensor = softplus(-scaled @ weights).mean() + penalty / 2 * weights.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    solver.step(loss)  # type: ignore[no-untyped-call]
    return (weights.detach() / size).float()


def _accuracy(margins: Tensor) -> dict[str, Any]:
    """The share of pairs whose chosen side has the higher reward, with its 95 % interval by Wilson."""
    right, count = int((margins > 0).sum()), len(margins)
    return {"pairs": count, "accuracy": round(right / count, 4), "interval": wilson(right, count)}
