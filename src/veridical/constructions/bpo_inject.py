"""BPO, error injection: Bootstrapped Preference Optimization, arXiv 2403.08730, section 3.2 (LLM bias injection), and
both its kinds of negatives together.

A language model puts plausible errors into the reference: in a description it adds, takes away or changes objects and
their looks; of an answer to a question it imagines what it would be for a similar but other image. In the paper it is
the model's own language backbone, which sees neither image nor annotations; that is the default writer (`--writer.name
backbone`) for every model that can be told what to write, so not for the bundled one. Every record thus
has completions with scores: the reference 1, the injected one 0, the one sampled from the weakened image 0. As in the
released code all completions of different scores become pairs, and a record is left out as soon as one of its
completions is too long. Asking the writer again where its text is the same as the reference is ours.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Literal

from veridical.abilities import Ability
from veridical.bounds import Natural, Positive
from veridical.constructions import text_filters
from veridical.constructions.bpo_image import BpoImageSettings, bpo_image
from veridical.constructions.injection import injected, mode_of
from veridical.constructions.protocol import Rejected, Steps, make_pair
from veridical.judges.interface import Corruption, Detect, Inject, Kind
from veridical.records import Pair, Record

NAME = "bpo-inject"


@dataclass(frozen=True)
class BpoInjectSettings:
    """Which errors are put in, and whether the weakened image's answer makes a pair, too."""

    mode: Literal["auto", "description", "question"] = "auto"
    """How the writer is asked: to alter a description, or to answer a question about a similar but other image. Auto
    is the latter for prompts that end in a question mark."""
    kind: Corruption = "any"
    """What to get wrong: objects, attributes, counts, relations, a conclusion, or whatever is most plausible."""
    errors: Natural = 1
    """Errors in a text."""
    negatives: Literal["both", "injected"] = "both"
    """Rejected answers of a record: the injected one and the one sampled from the weakened image, each in a pair of its
    own; or the injected one alone."""
    image: BpoImageSettings = field(default_factory=BpoImageSettings)
    """How the other rejected answer is sampled from the weakened image."""
    tries: Positive = 2
    """How often the writer is asked for a text that differs from the reference."""
    verify: bool = False
    """Keep an injected text only if the judge finds something wrong with it."""
    max_words: Positive = 350
    """Records with a longer completion are rejected, as in the released code."""


def model_needs(settings: BpoInjectSettings) -> frozenset[Ability]:
    """What is asked of the model."""
    from veridical.constructions import bpo_image as weakened

    return weakened.model_needs(settings.image) if settings.negatives == "both" else frozenset()


def judge_needs(settings: BpoInjectSettings) -> tuple[Kind, ...]:
    """What is asked of the judges."""
    from veridical.constructions import bpo_image as weakened

    others = weakened.judge_needs(settings.image) if settings.negatives == "both" else ()
    return (Inject, *((Detect,) if settings.verify else ()), *others)


def bpo_inject(record: Record, settings: BpoInjectSettings, seed: int) -> Steps:
    """Chosen: the reference.

    Rejected: the reference with errors put in, and the model's answer to a weakened image. Needs: a reference.
    """
    remedy = "give it a caption or an answer to put errors into"
    reference = text_filters.fit_reference(record, settings.max_words, remedy)
    pairs: list[Pair] = []
    first: Rejected | None = None
    for negatives in _negatives(record, reference, settings, seed):
        try:
            pairs += yield from negatives
        except Rejected as why:
            if why.reason.endswith("too-long"):
                raise
            first = first or why
    if first and not pairs:
        raise first
    return pairs


def _negatives(record: Record, reference: str, settings: BpoInjectSettings, seed: int) -> list[Steps]:
    """What makes pairs of the record, one kind of rejected answer each."""
    own = [_injected(record, reference, settings, seed)]
    return own if settings.negatives == "injected" else [*own, _weakened(record, settings, seed)]


def _injected(record: Record, reference: str, settings: BpoInjectSettings, seed: int) -> Steps:
    mode = mode_of(record, settings.mode)
    faults = text_filters.Faults("rejected", settings.max_words)
    injection = yield from injected(
        record,
        reference,
        (settings.kind,),
        faults,
        key=(seed, record.id, NAME),
        errors=settings.errors,
        mode=mode,
        tries=settings.tries,
        verify=settings.verify,
    )
    if injection is None:
        raise faults.rejected()
    rejected = injection.text, f"reference with errors injected ({mode} mode)"
    return [make_pair(record, "injected", (reference, "reference"), rejected, attempts=injection.attempt)]


def _weakened(record: Record, settings: BpoInjectSettings, seed: int) -> Steps:
    image = replace(settings.image, max_words=min(settings.max_words, settings.image.max_words))
    pairs = yield from bpo_image(record, image, seed)
    return [_of_group(pair, "image", image) for pair in pairs]


def _of_group(pair: Pair, name: str, settings: BpoImageSettings) -> Pair:
    """The pair with its parameters as a group of that name among this construction's."""
    parameters = {name: {**asdict(settings), **pair.provenance.parameters}}
    return replace(pair, provenance=replace(pair.provenance, parameters=parameters))
