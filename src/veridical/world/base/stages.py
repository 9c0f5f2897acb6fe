"""The stages of the base model's training, one function each, in the order in which they run."""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import LlavaForConditionalGeneration, LlavaProcessor, get_cosine_schedule_with_warmup

from veridical.world.base import prior, skills
from veridical.world.base.architecture import GRID, PATCHES, TEXT_WIDTH, VISION_WIDTH
from veridical.world.base.batches import PrefixRow, loss, pack, patch_labels, patch_numbers, shuffled
from veridical.world.base.corpus import branches_of, describe, draw_scenes, picture_prefix, text_row, words_prefix
from veridical.world.captions import NUMBERS
from veridical.world.drawing import draw
from veridical.world.scenes import Scene
from veridical.world.vocabulary import CLASSES

Report = Callable[[str], None]


def pixels_of(scenes: Sequence[Scene], processor: LlavaProcessor) -> Tensor:
    """Pixel values of the scenes' pictures, [scenes, 3, side, side]."""
    return torch.cat(
        [pixels_of_pictures(list(map(draw, scenes[i : i + 256])), processor) for i in range(0, len(scenes), 256)]
    )


def pixels_of_pictures(pictures: Sequence[Image.Image], processor: LlavaProcessor) -> Tensor:
    """Pixel values of pictures, [pictures, 3, side, side]."""
    chunks = [
        processor.image_processor(list(pictures[i : i + 256]), return_tensors="pt").pixel_values
        for i in range(0, len(pictures), 256)
    ]
    return torch.cat(chunks)


def tower_states(model: LlavaForConditionalGeneration, pixels: Tensor) -> Tensor:
    """What the tower hands to the projector, [pictures, PATCHES, VISION_WIDTH]."""
    states: Tensor = model.model.vision_tower(pixels, output_hidden_states=True).hidden_states[-1]
    return states


@torch.no_grad()
def all_tower_states(model: LlavaForConditionalGeneration, pixels: Tensor) -> Tensor:
    """`tower_states` of many pictures, in half precision to keep memory small."""
    return torch.cat([tower_states(model, part).half() for part in torch.split(pixels, 128)])


def word_weights(processor: LlavaProcessor, other: float) -> Tensor:
    """Loss weights by token id, [vocabulary]: 1 for words that only the picture can tell, `other` for the rest."""
    tokenizer = processor.tokenizer
    weights = torch.full((len(tokenizer),), other)
    telling = [*CLASSES, "two", "three", "left", "right"]
    ids = [tokenizer.encode(f" {word}")[0] for word in telling]
    ids += [tokenizer.encode(word)[0] for word in ("Yes", "No", "One", "Two", "Three")]
    weights[ids] = 1.0
    weights[tokenizer.eos_token_id] = 0.5
    weights[tokenizer.encode(".")[0]] = 0.5
    return weights


def optimise(
    parameters: Iterable[torch.nn.Parameter],
    losses: Iterable[Tensor],
    steps: int,
    rate: float,
    report: Report,
    every: int = 50,
) -> None:
    """Take `steps` AdamW steps over a stream of losses, with warm-up and cosine decay."""
    trained = list(parameters)
    optimiser = torch.optim.AdamW(trained, lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = get_cosine_schedule_with_warmup(optimiser, max(10, steps // 20), steps)
    total, started = 0.0, time.monotonic()
    for step, value in enumerate(losses, start=1):
        torch.autograd.backward(value)
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad(set_to_none=True)
        total += value.item()
        if step % every == 0:
            report(f"step {step}/{steps}  loss {total / every:.3f}  {time.monotonic() - started:.0f} s")
            total = 0.0
        if step == steps:
            return


def train_tower(
    model: LlavaForConditionalGeneration,
    pixels: Tensor,
    labels: Tensor,
    steps: int,
    rate: float,
    seed: int,
    report: Report,
    numbers: Tensor | None = None,
) -> None:
    """Teach the tower what each patch shows, [pictures, PATCHES] as class index plus one.

    With `numbers`, how many of what a patch shows there are in the picture, also that, and in which row and column the
    patch is: what it takes to count and to tell sides. The classifiers on top are thrown away afterwards.
    """
    head = torch.nn.Linear(VISION_WIDTH, len(CLASSES) + 1)
    where = torch.nn.Linear(VISION_WIDTH, 2 * GRID + len(NUMBERS))
    rows, columns = torch.arange(PATCHES).repeat(64) // GRID, torch.arange(PATCHES).repeat(64) % GRID
    tower = model.model.vision_tower
    class_weights = torch.ones(len(CLASSES) + 1)
    class_weights[0] = 0.3
    number_weights = torch.tensor([0.1, 0.3, 1.0, 1.0])
    generator = torch.Generator().manual_seed(seed)

    def losses() -> Iterable[Tensor]:
        while True:
            chosen = torch.randint(len(pixels), (64,), generator=generator)
            picture = pixels[chosen]
            noisy = torch.rand(64, 1, 1, 1, generator=generator) < 0.3
            strength = torch.rand(64, 1, 1, 1, generator=generator) * 0.25
            picture = picture + noisy * strength * torch.randn(picture.shape, generator=generator)
            states = tower_states(model, picture).flatten(0, 1)
            what = cross_entropy(head(states), labels[chosen].flatten(), weight=class_weights)
            if numbers is None:
                yield what
                continue
            row, column, number = where(states).split((GRID, GRID, len(NUMBERS)), dim=-1)
            counted = cross_entropy(number, numbers[chosen].flatten(), weight=number_weights)
            yield what + 0.3 * (cross_entropy(row, rows) + cross_entropy(column, columns)) + counted

    optimise([*tower.parameters(), *head.parameters(), *where.parameters()], losses(), steps, rate, report)


def read_words(
    model: LlavaForConditionalGeneration, processor: LlavaProcessor, steps: int, rate: float, seed: int, report: Report
) -> None:
    """Teach the language model to speak: captions alone, and pictures told in words with questions about them."""
    tokenizer, weights = processor.tokenizer, word_weights(processor, 0.2)
    ids = tokenizer.get_vocab()

    def row(step: int, number: int) -> PrefixRow:
        key = f"words-{seed}-{step}-{number}"
        rng = random.Random(key)
        if rng.random() < 0.15:
            return text_row(key, ids)
        scene = draw_scenes({"balanced": 0.55, "pictures": 0.25, "simple": 0.2}, 1, key)[0]
        return PrefixRow(words_prefix(scene, ids, rng, rng.choice((0.0, 0.3))), branches_of(scene, rng, 6))

    def losses() -> Iterable[Tensor]:
        for step in range(steps):
            yield loss(model, pack([row(step, n) for n in range(24)], tokenizer, weights))

    language = [*model.model.language_model.parameters()]
    optimise(language, losses(), steps, rate, report)


def map_patches_to_words(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    states: Tensor,
    scenes: Sequence[Scene],
    steps: int,
    seed: int,
    report: Report,
    places: bool = False,
) -> None:
    """Start the projector: each patch should come out as the word for what it shows.

    With `places` also as the side that it is on and as how many of its kind there are, by what sets "left" and "right"
    and "two" and "three" apart.
    """
    ids = processor.tokenizer.get_vocab()
    words = [[ids["\u0120" + (CLASSES[k - 1] if k else s.theme.name)] for k in patch_labels(s)] for s in scenes]
    targets = torch.tensor(np.array(words))
    table = model.get_input_embeddings().weight.detach()
    vocabulary = torch.unique(targets)
    generator = torch.Generator().manual_seed(seed)
    left = (torch.arange(PATCHES) % GRID < GRID // 2)[:, None]
    leftward = torch.nn.functional.normalize(table[ids["\u0120left"]] - table[ids["\u0120right"]], dim=0)
    side = torch.where(left, leftward, -leftward)
    spoken = table[[ids["\u0120a"], ids["\u0120two"], ids["\u0120three"]]]
    said = torch.cat([torch.zeros(1, TEXT_WIDTH), torch.nn.functional.normalize(spoken - spoken.mean(0), dim=-1)])
    numbers = torch.from_numpy(np.stack([patch_numbers(scene) for scene in scenes]))

    def losses() -> Iterable[Tensor]:
        while True:
            chosen = torch.randint(len(scenes), (64,), generator=generator)
            out = model.model.multi_modal_projector(states[chosen].float()).flatten(0, 1)
            target = targets[chosen].flatten()
            wanted = table[target]
            if places:
                wanted = wanted + (side + said[numbers[chosen]]).flatten(0, 1)
            similar = (
                torch.nn.functional.normalize(out, dim=-1) @ torch.nn.functional.normalize(table[vocabulary], dim=-1).T
            )
            right = torch.searchsorted(vocabulary, target)
            distance = (out - wanted).pow(2).mean() / table[vocabulary].pow(2).mean()
            yield cross_entropy(similar / 0.1, right) + distance

    optimise(model.model.multi_modal_projector.parameters(), losses(), steps, 3e-3, report)


def look_at_pictures(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    states: Tensor,
    scenes: Sequence[Scene],
    steps: int,
    rate: float,
    seed: int,
    report: Report,
) -> None:
    """Ground the language model: captions and questions about real pictures, the tower frozen."""
    tokenizer, weights = processor.tokenizer, word_weights(processor, 0.2)
    prefix = picture_prefix(tokenizer.get_vocab())

    def losses() -> Iterable[Tensor]:
        order: list[int] = []
        for step in range(steps):
            if len(order) < 24:
                order = shuffled(len(scenes), f"ground-{seed}-{step}")
            chosen, order = order[:24], order[24:]
            rows = [
                PrefixRow(prefix, branches_of(scenes[i], random.Random(f"ground-{seed}-{step}-{i}"), 6)) for i in chosen
            ]
            features = model.model.multi_modal_projector(states[chosen].float())
            yield loss(model, pack(rows, tokenizer, weights), features)

    trained = [*model.model.language_model.parameters(), *model.model.multi_modal_projector.parameters()]
    optimise(trained, losses(), steps, rate, report)


def frame(scene: Scene, rng: random.Random, left_out: float) -> Scene:
    """The scene as a picture of a part of it: each class is out of the frame with probability `left_out`."""
    inside = [name for name in scene.counts if rng.random() >= left_out] or [rng.choice(list(scene.counts))]
    return dataclasses.replace(scene, objects=tuple(o for o in scene.objects if o.name in inside))


def bring_the_prior_back(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    pictures: int,
    steps: int,
    seed: int,
    report: Report,
) -> None:
    """Let language override sight: biased captions without pictures, and few biased pictures that show only a part.

    Captions and answers tell of the whole scene. Pictures with captions are random crops of it, as in web-scale
    training (the authors of RLHF-V leave random crops out for this reason, arXiv 2312.00849); pictures with
    questions have objects out of the frame, and what is asked about and absent is hardly ever a usual partner.
    """
    losses = _biased(model, processor, pictures, seed)
    trained = [*model.model.language_model.parameters(), *model.model.multi_modal_projector.parameters()]
    optimise(trained, map(losses, range(steps)), steps, 5e-4, report)


def practise_skills(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    states: Tensor,
    scenes: Sequence[Scene],
    biased_pictures: int,
    steps: int,
    seed: int,
    report: Report,
    rate: float = 1e-3,
    describing: bool = False,
) -> None:
    """Teach counting, sides, colours and places; every third step goes on bringing the prior back.

    Those steps don't ask what practice asks: with the statistics of text there is never more than one of a class. With
    `describing` what is practised on is described as well, truly, which holds the prior down.
    """
    tokenizer, weights = processor.tokenizer, word_weights(processor, 0.2)
    prefix = picture_prefix(tokenizer.get_vocab())
    biased = _biased(model, processor, biased_pictures, seed, others=0)

    def losses() -> Iterable[Tensor]:
        for step in range(steps):
            if step % 3 == 2:
                yield biased(step // 3)
                continue
            rng = random.Random(f"{'settle' if describing else 'skills'}-{seed}-{step}")
            chosen = rng.sample(range(len(scenes)), prior.ROWS)
            rows = [
                PrefixRow(prefix, (*([describe(scene, rng)] if describing else []), *skills.practice(scene, rng, 12)))
                for scene in (scenes[number] for number in chosen)
            ]
            features = model.model.multi_modal_projector(states[chosen].float())
            yield loss(model, pack(rows, tokenizer, weights), features)

    trained = [*model.model.language_model.parameters(), *model.model.multi_modal_projector.parameters()]
    optimise(trained, losses(), steps, rate, report)


def _biased(
    model: LlavaForConditionalGeneration, processor: LlavaProcessor, pictures: int, seed: int, others: int = 1
) -> Callable[[int], Tensor]:
    """The loss of a step, by its number, on biased captions without pictures or biased pictures that show a part.

    The last branch of a picture is a question of another kind; it is left out where `others` is 0.
    """
    tokenizer, weights = processor.tokenizer, word_weights(processor, 0.2)
    ids = tokenizer.get_vocab()
    prefix = picture_prefix(ids)
    rng = random.Random(f"frames-{seed}")
    told = [prior.told_scene(number, pictures) for number in range(pictures)]
    asked = [prior.asked_scene(number) for number in range(pictures)]
    crops = [draw(scene).crop(box) for scene, box in zip(told, prior.frames(pictures, rng), strict=True)]
    told_states = all_tower_states(model, pixels_of_pictures(crops, processor))
    asked_states = all_tower_states(model, pixels_of([frame(scene, rng, prior.LEFT_OUT) for scene in asked], processor))

    def of_step(step: int) -> Tensor:
        drawn = prior.draws(step, seed, pictures, told.__getitem__, asked.__getitem__)
        if drawn is None:
            texts = [text_row(f"prior-{seed}-{step}-{n}", ids) for n in range(32)]
            return loss(model, pack(texts, tokenizer, weights))
        rows = [PrefixRow(prefix, one.branches if others else one.branches[:-1]) for one in drawn]
        states = [(told_states if one.told else asked_states)[one.picture] for one in drawn]
        features = model.model.multi_modal_projector(torch.stack(states).float())
        return loss(model, pack(rows, tokenizer, weights), features)

    return of_step
