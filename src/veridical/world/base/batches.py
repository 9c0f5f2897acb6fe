"""Training batches: one prefix (a picture, a picture told in words, or nothing) and many questions on it.

The base model is trained as veridical trains: the prefix is read once, the questions branch off it in the same
row, and a mask keeps each branch from seeing the others.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerBase

from veridical.world.base.architecture import GRID, PATCHES
from veridical.world.drawing import label_map
from veridical.world.scenes import CANVAS, Scene
from veridical.world.vocabulary import CLASSES

IGNORED = -100


@dataclass(frozen=True, slots=True)
class Continuation:
    """A question and its answer."""

    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class PrefixRow:
    """What one row of a batch holds: the ids of its prefix, and its branches."""

    prefix: tuple[int, ...]
    branches: tuple[Continuation, ...]


@dataclass(frozen=True, slots=True)
class TrainingBatch:
    """Packed rows. All tensors are [rows, length] but `mask`, which is [rows, 1, length, length] and additive."""

    ids: Tensor
    positions: Tensor
    labels: Tensor
    weights: Tensor
    mask: Tensor


def patch_labels(scene: Scene) -> np.ndarray:
    """What each patch of a picture shows, [PATCHES]: class index plus one, 0 for background.

    Every object that is visible at all owns at least the patch that shows most of it.
    """
    side = CANVAS // GRID
    pixels = np.asarray(label_map(scene)).reshape(GRID, side, GRID, side).transpose(0, 2, 1, 3).reshape(PATCHES, -1)
    counts = np.stack([np.bincount(patch, minlength=len(CLASSES) + 1) for patch in pixels])
    counts[:, 0] = 0
    labels = np.where(counts.max(1) >= 0.12 * side * side, counts.argmax(1), 0)
    for label in np.flatnonzero(counts.sum(0)):
        if label not in labels:
            labels[counts[:, label].argmax()] = label
    return labels


def patch_numbers(scene: Scene) -> np.ndarray:
    """How many of what each patch shows there are in the picture, [PATCHES], 0 for background."""
    return np.array([scene.counts[CLASSES[label - 1]] if label else 0 for label in patch_labels(scene)])


def pack(rows: Sequence[PrefixRow], tokenizer: PreTrainedTokenizerBase, word_weights: Tensor) -> TrainingBatch:
    """Lay rows out as tensors. `word_weights` is the loss weight of each token id, [vocabulary]."""
    user_end = tokenizer.convert_tokens_to_ids("<|assistant|>")
    end = tokenizer.eos_token_id
    laid: list[tuple[list[int], list[int], list[int], list[int]]] = []
    for row in rows:
        ids, segments, positions = list(row.prefix), [0] * len(row.prefix), list(range(len(row.prefix)))
        labels = [IGNORED] * len(ids)
        for number, branch in enumerate(row.branches, start=1):
            question = [*tokenizer.encode(branch.question), user_end]
            answer = [*tokenizer.encode(branch.answer), end]
            ids += question + answer
            segments += [number] * (len(question) + len(answer))
            positions += range(len(row.prefix), len(row.prefix) + len(question) + len(answer))
            # The label at a position is the token that comes next.
            labels += [IGNORED] * (len(question) - 1) + answer + [IGNORED]
        laid.append((ids, segments, positions, labels))
    length = max(len(ids) for ids, *_ in laid)

    def padded(column: int, value: int) -> Tensor:
        return torch.tensor([item[column] + [value] * (length - len(item[0])) for item in laid])

    targets, branch_of = padded(3, IGNORED), padded(1, -1)
    weights = word_weights[targets.clamp(min=0)] * (targets != IGNORED)
    return TrainingBatch(padded(0, tokenizer.pad_token_id), padded(2, 0), targets, weights, _branch_mask(branch_of))


def _branch_mask(segments: Tensor) -> Tensor:
    """Each token sees the prefix and what came before it in its own branch."""
    length = segments.shape[1]
    own = segments[:, :, None] == segments[:, None, :]
    prefix = segments[:, None, :] == 0
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    seen = ((own | prefix) & causal) | torch.eye(length, dtype=torch.bool)
    return torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)[:, None]


def loss(model: LlavaForConditionalGeneration, batch: TrainingBatch, features: Tensor | None = None) -> Tensor:
    """Weighted cross-entropy of the answers.

    `features` are projected image features [rows, PATCHES, width] that take the places of the image tokens.
    """
    # bfloat16 products are half again as fast. The context must end with the step: while it lasts, autocast goes on
    # using the weights as they were when it first saw them.
    with torch.autocast("cpu", torch.bfloat16):
        embeddings = model.get_input_embeddings()(batch.ids)
        if features is not None:
            places = (batch.ids == model.config.image_token_index)[..., None]
            embeddings = embeddings.masked_scatter(places, features.to(embeddings.dtype))
        hidden = model.model.language_model(
            inputs_embeds=embeddings, attention_mask=batch.mask, position_ids=batch.positions, use_cache=False
        ).last_hidden_state
    wanted = batch.labels != IGNORED
    logits = model.lm_head(hidden[wanted]).float()
    losses = torch.nn.functional.cross_entropy(logits, batch.labels[wanted], reduction="none")
    weights = batch.weights[wanted]
    return (losses * weights).sum() / weights.sum()


def shuffled(count: int, seed: str) -> list[int]:
    """The numbers below `count` in a seeded order."""
    order = list(range(count))
    random.Random(seed).shuffle(order)
    return order
