"""What is suspicious about a set of pairs, said before hours are spent on training with them.

Pure functions over pairs, wherever they come from. Each looks for one thing that makes training teach something else
than to see better, and says with numbers what it found and what to do.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from veridical.judges.tokens import chunks, words
from veridical.pairs.language import language_of
from veridical.records import Pair

LENGTH_RATIO = 1.5
LENGTH_GAP = 3.0
"""Words by which the sides must differ on average beside the ratio."""
FEW = 0.05
"""Share of the pairs below which a fault is not worth a warning."""
_LOOKED_AT = 2000
_MARKS_AND_ARTICLES = frozenset(("a", "an", "the"))
_FILE_NAME = re.compile(r"\S+\.(?:jpe?g|png|webp|gif|bmp|tiff?|heic)|(?:IMG|DSC|DCIM|PXL)[_-]?\d\S*|\S*\d{4,}\S*", re.I)
_MOST_OF_ONE_IMAGE = 20


@dataclass(frozen=True, slots=True)
class PairWarning:
    """Something suspicious about pairs: `kind` is a stable slug, `found` holds the numbers, `remedy` what to do."""

    kind: str
    found: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.found}. {self.remedy}."


def check_pairs(pairs: Sequence[Pair]) -> list[PairWarning]:
    """Everything suspicious about pairs; pairs of a yes and a no are looked at for repeated images only."""
    texts = [pair for pair in pairs if not _is_yes_no(pair)]
    warnings = [_lengths(texts), _hardly_differ(texts), _not_captions(texts), _languages(texts), _repeated_image(pairs)]
    return [warning for warning in warnings if warning is not None]


def length_matched(pairs: Sequence[Pair], tolerance: float = 0.05) -> list[Pair]:
    """Leave out as few pairs as it takes for both sides to be equally long: the mean of log(words chosen / words
    rejected) comes within `tolerance` of 0.

    Those that lean most towards what is longer on the whole go first. Pairs of a yes and a no stay.
    """
    lean = {
        place: math.log(max(len(chunks(pair.chosen)), 1) / max(len(chunks(pair.rejected)), 1))
        for place, pair in enumerate(pairs)
        if not _is_yes_no(pair)
    }
    total = math.fsum(lean.values())
    order = sorted(lean, key=lambda place: (lean[place] * (1 if total < 0 else -1), place))
    left_out: set[int] = set()
    for place in order:
        kept = len(lean) - len(left_out)
        if abs(total) <= tolerance * kept:
            break
        left_out.add(place)
        total -= lean[place]
    return [pair for place, pair in enumerate(pairs) if place not in left_out]


def _lengths(pairs: Sequence[Pair]) -> PairWarning | None:
    chosen = _mean([len(chunks(pair.chosen)) for pair in pairs])
    rejected = _mean([len(chunks(pair.rejected)) for pair in pairs])
    long, short = max(chosen, rejected), min(chosen, rejected)
    if long < LENGTH_RATIO * short or long - short < LENGTH_GAP:
        return None
    shorter = "shorter" if chosen < rejected else "longer"
    return PairWarning(
        "lengths",
        f"chosen answers have {chosen:.1f} words on average and rejected ones {rejected:.1f}: such pairs teach to "
        f"answer {shorter}, whatever the image shows",
        "Ask a prompt that fits the references' length, lower max_new_tokens, leave the references out so that the "
        "chosen side is the model's own, or build with --length-matched",
    )


def _hardly_differ(pairs: Sequence[Pair]) -> PairWarning | None:
    alike = sum(_content(pair.chosen) == _content(pair.rejected) for pair in pairs)
    if alike <= FEW * len(pairs):
        return None
    return PairWarning(
        "alike",
        f"in {alike} of {len(pairs)} pairs the sides differ in case, marks or articles only: there is nothing to learn "
        "from them but style",
        "Weaken the image more, raise the temperature, or take a construction that checks what is wrong",
    )


def _not_captions(pairs: Sequence[Pair]) -> PairWarning | None:
    given = [pair.chosen for pair in pairs if not pair.provenance.chosen_source.startswith("own")]
    bad = [text for text in given if is_file_name(text) or is_tags(text)]
    if len(bad) <= FEW * len(given):
        return None
    return PairWarning(
        "not-captions",
        f"{len(bad)} of {len(given)} chosen answers are file names or tags rather than sentences, such as "
        f"{bad[0][:60]!r}: the model will learn to answer so",
        "Leave such captions out, so that the model's own stand on the chosen side, or write sentences",
    )


def _languages(pairs: Sequence[Pair]) -> PairWarning | None:
    step = max(1, len(pairs) // _LOOKED_AT)
    looked_at = pairs[::step]
    others: Counter[tuple[str, str]] = Counter()
    for pair in looked_at:
        asked = language_of(pair.prompt[-1].text)
        for said in (language_of(pair.chosen), language_of(pair.rejected)):
            if asked is not None and said is not None and said != asked:
                others[asked, said] += 1
                break
    count = others.total()
    if count <= FEW * len(looked_at):
        return None
    asked, said_most = others.most_common(1)[0][0]
    return PairWarning(
        "language",
        f"in {count} of {len(looked_at)} pairs a side is in another language than the prompt (mostly {said_most!r} to "
        f"a prompt in {asked!r}): the model will learn to switch",
        "Ask in the language of the references with --prompt, or translate one of them",
    )


def _repeated_image(pairs: Sequence[Pair]) -> PairWarning | None:
    counts = Counter(image.sha256 for pair in pairs for image in pair.images)
    if not counts:
        return None
    mean = len(pairs) / len(counts)
    most = counts.most_common(1)[0][1]
    if most < 10 or (most <= 5 * mean and mean <= _MOST_OF_ONE_IMAGE):
        return None
    return PairWarning(
        "one-image",
        f"{len(pairs)} pairs show {len(counts)} different images, one of them {most} times: the model will learn these "
        "by heart",
        "Bring more images, remove copies, or keep fewer pairs an image",
    )


def is_file_name(text: str) -> bool:
    """Whether a text is the name of a file rather than a caption, such as "IMG_2041" or "cat-3.jpg"."""
    return re.search(r"\s", text.strip()) is None and _FILE_NAME.fullmatch(text.strip()) is not None


def is_tags(text: str) -> bool:
    """Whether a text is a list of tags: three or more short parts between commas or semicolons, and no sentence."""
    parts = [part.split() for part in re.split(r"[,;|]", text)]
    short = all(1 <= len(part) <= 3 for part in parts)
    return len(parts) >= 3 and short and re.search(r"[.!?:]|\band\b", text) is None


def _content(text: str) -> list[str]:
    return [word for word in words(text.lower()) if word not in _MARKS_AND_ARTICLES]


def _is_yes_no(pair: Pair) -> bool:
    return {pair.chosen.rstrip(".").lower(), pair.rejected.rstrip(".").lower()} == {"yes", "no"}


def _mean(values: Sequence[int]) -> float:
    return sum(values) / len(values) if values else 0.0
