"""Mirrored counterfactual pairs: each of two images that differ in one thing prefers its own text to the other's.

Image A prefers text a to b, image B prefers b to a. Since each text is chosen once and rejected once, nothing but the
image tells which is right: a model can't lower the loss by what texts are like (SymMPO, arXiv 2506.11712; IC-VCO,
arXiv 2605.31312, say why mDPO's image term alone doesn't cancel that). The picture world draws such images
(`world:counterfactual`); your own edited images are named by `counterfactual_image` and `counterfactual_text` in a
record. Our own procedure; the papers retrieve or edit their second images.

Each pair also brings the other image, of which its chosen text is not true: `svco`, `re-align` and `mdpo` with
`view own` compare the two, other objectives ignore it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from veridical.abilities import Ability
from veridical.bounds import Positive
from veridical.constructions import text_filters
from veridical.constructions.protocol import Answer, Rejected, Steps, make_pair
from veridical.records import FurtherAnswer, Pair, Record


@dataclass(frozen=True)
class CounterfactualSettings:
    """Whether both images are learnt from."""

    mirrored: bool = True
    """Make the second pair as well. Without it, the other image's text is a plain rejected answer."""
    other_image: bool = True
    """Let each pair bring the other image, for objectives that compare images."""
    max_words: Positive = 350
    """Records with a longer text on either side are rejected."""


def model_needs(settings: CounterfactualSettings) -> frozenset[Ability]:
    """Nothing is asked of the model."""
    return frozenset()


def counterfactual(record: Record, settings: CounterfactualSettings, seed: int) -> Steps:
    """Chosen: a caption of an image.

    Rejected: that of the same image with one thing changed; and mirrored. Needs: an altered image with its caption.
    """
    yield from ()  # A construction is a generator, also one that asks nothing.
    other = record.counterfactual
    if record.reference is None or other is None:
        raise Rejected(
            "no-counterfactual",
            "give the record a `text`, and `counterfactual_image` and `counterfactual_text` for the changed image",
        )
    for text in (record.reference, other.reference):
        if wrong := text_filters.fault(Answer(text, finished=True), settings.max_words):
            raise Rejected(wrong, "shorten or correct the texts")
    if text_filters.same(record.reference, other.reference):
        raise Rejected("same-text", "describe what differs between the two images")
    mine, its = (record.reference, "reference"), (other.reference, "reference of the changed image")
    changed = replace(record, images=other.images)
    pairs = [_brings(make_pair(record, "image", mine, its), changed, settings)]
    if settings.mirrored:
        pairs.append(_brings(make_pair(changed, "changed image", its, mine), record, settings))
    return pairs


def _brings(pair: Pair, other: Record, settings: CounterfactualSettings) -> Pair:
    """A pair with the image of which its chosen text is not true."""
    if not settings.other_image:
        return pair
    return replace(pair, others=(FurtherAnswer(pair.chosen, "reference of the other image", images=other.images),))
