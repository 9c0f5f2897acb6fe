"""BPO, image weakening: Bootstrapped Preference Optimization, arXiv 2403.08730, section 3.2 (image-weakened
prompting).

The rejected answer is the model's own, sampled from a noised image: the less it sees, the more its language
prior speaks. This is the paper's procedure. (The released code contrasts the noised with the clean image
instead, with the sign that *reduces* hallucination; that is another construction.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from veridical.constructions import checks
from veridical.constructions.protocol import Answer, Request, Sample, Steps, make_pair
from veridical.judges.interface import Detect, Findings, Kind, Name
from veridical.judges.lexicon import Mention
from veridical.records import Record, Reject
from veridical.vlm.inputs import Context
from veridical.vlm.sampling import Sampling
from veridical.vlm.views import Noise, describe

NAME = "bpo-image"
RELEASED_STEP = 900
WORLD_STEP = 450


@dataclass(frozen=True)
class BpoImageSettings:
    """How answers are drawn from the weakened image, and which are kept."""

    noise_step: int | None = None
    """How strong the noise is, 0 to 999. Left out, it is 900 as in the released code, and 450 for records
    of the picture world, whose small model says nothing sensible beyond 600."""
    noise_space: Literal["normalised", "pixels"] = "normalised"
    """What the noise is added to: the pixels as the model's processor normalises them (the released code),
    or pixels in [0, 1], where the same step is several times as strong."""
    temperature: float = 0.2
    """Sampling temperature; 0.2 in the released code."""
    candidates: int = 1
    """Answers drawn for each record; the first that qualifies is kept."""
    max_new_tokens: int = 512
    """Longest answer in tokens; 1024 in the released code."""
    max_words: int = 350
    """Records with a longer text on either side are rejected, as in the released code."""
    match_objects: bool = False
    """Keep a candidate only if it names as many kinds of objects as the chosen caption (needs a lexicon)."""
    only_invented: bool = False
    """Keep a candidate only if it names an object that is not there (needs annotations and a lexicon)."""
    without_reference: Literal["own-caption", "reject"] = "own-caption"
    """What stands on the chosen side where a record has no reference: the model's own greedy caption of the
    clean image, or nothing, and the record is rejected."""
    keep_unfinished: bool = False
    """Keep answers that were cut off at max_new_tokens, as the released code does."""


def judge_needs(settings: BpoImageSettings) -> tuple[Kind, ...]:
    """What is asked of the judge: only what the filters need."""
    return (Detect,) * settings.only_invented + (Name,) * settings.match_objects


def bpo_image(record: Record, settings: BpoImageSettings, seed: int) -> Steps:
    """Chosen: the reference. Rejected: what the model says about the noised image."""
    if settings.only_invented and record.annotations is None:
        return Reject(record.id, "no-annotations", "annotate the objects, or switch only_invented off")
    if record.reference is None and settings.without_reference == "reject":
        return Reject(record.id, "no-reference", "give it a caption, or set without_reference to own-caption")
    chosen, source = Answer(record.reference or "", finished=True), "reference"
    if record.reference is None:
        [chosen], source = (yield _greedy(record, settings)), "own greedy caption"
    wrong = checks.fault(chosen, settings.max_words, settings.keep_unfinished)
    if wrong:
        return checks.reject(record.id, "chosen", Counter([wrong]))

    view = _view(record, settings)
    candidates: list[Answer] = yield Sample(
        Context(record.images, record.prompt, view, key=(seed, record.id, "noise")),
        keys=tuple((seed, record.id, "candidate", index) for index in range(settings.candidates)),
        sampling=Sampling(settings.max_new_tokens, settings.temperature),
    )
    faults: Counter[str] = Counter()
    for attempt, candidate in enumerate(candidates, start=1):
        wrong = yield from _fault(record, candidate, chosen.text, settings)
        if wrong is None:
            return [
                make_pair(
                    record,
                    NAME,
                    "noise",
                    (chosen.text, source),
                    (candidate.text, f"sampled from {describe(view)}"),
                    parameters=asdict(settings) | {"noise_step": view.step},
                    seed=seed,
                    attempts=attempt,
                )
            ]
        faults[wrong] += 1
    return checks.reject(record.id, "rejected", faults)


def _view(record: Record, settings: BpoImageSettings) -> Noise:
    default = WORLD_STEP if record.source.startswith("world") else RELEASED_STEP
    return Noise(default if settings.noise_step is None else settings.noise_step, settings.noise_space)


def _greedy(record: Record, settings: BpoImageSettings) -> Sample:
    context = Context(record.images, record.prompt, key=(record.id,))
    return Sample(context, keys=((record.id,),), sampling=Sampling(settings.max_new_tokens, 0.0))


def _fault(
    record: Record, candidate: Answer, chosen: str, settings: BpoImageSettings
) -> Generator[Request, Any, str | None]:
    wrong = checks.fault(candidate, settings.max_words, settings.keep_unfinished)
    if wrong:
        return wrong
    if checks.same(candidate.text, chosen):
        return "same-as-chosen"
    if settings.only_invented:
        findings: Findings = yield Detect(record, candidate.text)
        if not findings.invented:
            return "nothing-invented"
    if settings.match_objects:
        theirs: list[Mention] = yield Name(candidate.text)
        ours: list[Mention] = yield Name(chosen)
        if len({mention.name for mention in theirs}) != len({mention.name for mention in ours}):
            return "other-object-count"
    return None
