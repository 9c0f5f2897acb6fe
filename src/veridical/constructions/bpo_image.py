"""BPO, image weakening: Bootstrapped Preference Optimization, arXiv 2403.08730, section 3.2 (image-weakened
prompting).

The rejected answer is the model's own, sampled from a weakened image: the less it sees, the more its language prior
speaks. `noisy-image` is the paper's procedure. The released code contrasts the noised with the clean image instead,
(1 + a) clean - a noised among tokens that are plausible on the clean one; `contrast` does that, each image with a cache
of its own (the released script shares one, so that its noise reaches the first token only). With a = 1, as released,
that moves *away* from what the noise brings out; a = -1, the default here, is the noised image's prediction among
plausible tokens.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Literal

from veridical.abilities import Ability
from veridical.bounds import Finite, NotNegative, Positive, Share
from veridical.constructions import text_filters
from veridical.constructions.chosen import WithoutReference, check_view, chosen_side, view_for, view_needs
from veridical.constructions.protocol import Answer, Request, Sample, Steps, make_pair
from veridical.decoding.vcd import Vcd
from veridical.judges.interface import Detect, ExtractObjects, Findings, Kind
from veridical.judges.lexicon import Mention
from veridical.records import Record
from veridical.vlm.generation.params import SamplingParams
from veridical.vlm.images.views import Clean, parse
from veridical.vlm.inputs.context import Context

RELEASED_VIEW = "noise:900"
WORLD_VIEW = "noise:450"


@dataclass(frozen=True)
class BpoImageSettings:
    """How answers are drawn from the weakened image, and which are kept."""

    variant: Literal["noisy-image", "contrast"] = "noisy-image"
    """Sample from the weakened image (the paper), or from its contrast with the clean one (the released code)."""
    alpha: Finite = -1.0
    """Of the contrast: -1 takes the weakened image's prediction, 1 is the released command's, away from it."""
    plausibility: Share = 0.2
    """Of the contrast: tokens less likely than this share of the likeliest one on the clean image are left out; 0.2 in
    the released code, 0 keeps all."""
    view: str | None = None
    """How the image is weakened: noise:STEP, token-mask:RHO, blur:PERCENT, crop, none.... Left out, it is noise:900
    as in the released code, and noise:450 for records of the picture world, whose small model says nothing sensible
    beyond 600. `noise:STEP:pixels` adds the noise to pixels in [0, 1], where a step is several times as strong."""
    temperature: NotNegative = 0.2
    """Sampling temperature; 0.2 in the released code."""
    candidates: Positive = 1
    """Answers drawn for each record; the first that qualifies is kept."""
    max_new_tokens: Positive = 512
    """Longest answer in tokens; 1024 in the released code, whose 350 words of most take fewer than 512 to say."""
    max_words: Positive = 350
    """Records with a longer text on either side are rejected, as in the released code."""
    match_objects: bool = False
    """Keep a candidate only if it names as many kinds of objects as the chosen caption (needs a lexicon)."""
    only_invented: bool = False
    """Keep a candidate only if it names an object that is not in the image (needs annotations and a lexicon)."""
    without_reference: WithoutReference = "own-caption"
    """What stands on the chosen side where a record has no reference: the model's own greedy caption of the
    clean image, or nothing, and the record is rejected."""
    keep_unfinished: bool = False
    """Keep answers that were cut off at max_new_tokens, as the released code does."""

    def __post_init__(self) -> None:
        check_view(self.view)


def model_needs(settings: BpoImageSettings) -> frozenset[Ability]:
    """What is asked of the model."""
    if settings.variant == "contrast":
        return frozenset({Ability.TEXTS, Ability.LOGITS})
    return frozenset({Ability.TEXTS}) | view_needs(settings.view or RELEASED_VIEW)


def judge_needs(settings: BpoImageSettings) -> tuple[Kind, ...]:
    """What is asked of the judge: only what the filters need."""
    return (Detect,) * settings.only_invented + (ExtractObjects,) * settings.match_objects


def bpo_image(record: Record, settings: BpoImageSettings, seed: int) -> Steps:
    """Chosen: the reference, or the model's own caption. Rejected: the model's answer to the weakened image."""
    view = view_for(settings.view, record, RELEASED_VIEW, WORLD_VIEW)
    chosen = yield from chosen_side(record, settings, settings.keep_unfinished)
    candidates: list[Answer] = yield _sample(record, settings, view, seed)
    faults = text_filters.Faults("rejected", settings.max_words, settings.keep_unfinished)
    for attempt, candidate in enumerate(candidates, start=1):
        if not faults.fits(candidate, chosen[0]):
            continue
        unwanted = yield from _unwanted(record, candidate, chosen[0], settings)
        if unwanted is None:
            how = "sampled from" if settings.variant == "noisy-image" else "contrast with"
            rejected = candidate.text, f"{how} {view}"
            parameters = {"view": view}
            return [make_pair(record, settings.variant, chosen, rejected, attempts=attempt, parameters=parameters)]
        faults.add(unwanted)
    raise faults.rejected()


def _sample(record: Record, settings: BpoImageSettings, view: str, seed: int) -> Sample:
    contrast = (
        None if settings.variant == "noisy-image" else Vcd(alpha=settings.alpha, beta=settings.plausibility, view=view)
    )
    shown = parse(view) if contrast is None else Clean()
    return Sample(
        Context(record.images, record.prompt, shown, key=(seed, record.id, "noise")),
        keys=tuple((seed, record.id, "candidate", index) for index in range(settings.candidates)),
        sampling=SamplingParams(settings.max_new_tokens, settings.temperature, decoding=contrast),
    )


def _unwanted(
    record: Record, candidate: Answer, chosen: str, settings: BpoImageSettings
) -> Generator[Request, Any, str | None]:
    """Why a candidate that is fit is not wanted by the filters that are on."""
    if settings.only_invented:
        findings: Findings = yield Detect(record, candidate.text)
        if not findings.invents:
            return "nothing-invented"
    if settings.match_objects:
        theirs: list[Mention] = yield ExtractObjects(candidate.text)
        ours: list[Mention] = yield ExtractObjects(chosen)
        if len({mention.name for mention in theirs}) != len({mention.name for mention in ours}):
            return "other-object-count"
    return None
