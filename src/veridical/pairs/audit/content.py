"""What the sides say: languages, how far they differ, and which objects they invent or leave out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from veridical.judges.lexicon import Lexicon
from veridical.judges.similarity import token_f1
from veridical.pairs.audit.finding import Finding
from veridical.pairs.checks import check_pairs
from veridical.pairs.language import language_of
from veridical.records import Pair

_LOOKED_AT = 2000


def check_content(
    pairs: Sequence[Pair], lexicon: Lexicon | None = None, present: Mapping[str, frozenset[str]] | None = None
) -> Iterator[Finding]:
    """What a build warns of, and numbers about languages, distance and objects.

    `present` holds, for a record's id, the objects that are known to be in its images.
    """
    for warning in check_pairs(pairs):
        yield Finding(warning.kind, "warning", warning.found, warning.remedy)
    looked_at = pairs[:: max(1, len(pairs) // _LOOKED_AT)]
    if looked_at:
        yield _languages(looked_at)
        yield _distance(looked_at)
    if lexicon is not None:
        yield from _objects(pairs, lexicon, present or {})


def _languages(pairs: Sequence[Pair]) -> Finding:
    languages = Counter(language_of(text) or "?" for pair in pairs for text in (pair.chosen, pair.rejected))
    shares = {name: round(100 * count / languages.total(), 1) for name, count in languages.most_common(5)}
    return Finding(
        "languages", "note", "languages: " + ", ".join(f"{n} {s} %" for n, s in shares.items()), numbers=shares
    )


def _distance(pairs: Sequence[Pair]) -> Finding:
    alike = sorted(token_f1(pair.chosen, pair.rejected) for pair in pairs)
    low, middle, high = (alike[int(share * (len(alike) - 1))] for share in (0.1, 0.5, 0.9))
    text = (
        f"the sides share words to {middle:.2f} (token F1, median; a tenth below {low:.2f}, a tenth above {high:.2f})"
    )
    return Finding("distance", "note", text, numbers={"p10": low, "median": middle, "p90": high})


def _objects(pairs: Sequence[Pair], lexicon: Lexicon, present: Mapping[str, frozenset[str]]) -> Iterator[Finding]:
    known = [pair for pair in pairs if pair.record_id in present]
    if not known:
        named = [(len(lexicon.names(pair.chosen)), len(lexicon.names(pair.rejected))) for pair in pairs]
        chosen, rejected = (sum(side) / max(len(named), 1) for side in zip(*named, strict=True)) if named else (0, 0)
        text = f"objects named: {chosen:.2f} a chosen answer, {rejected:.2f} a rejected one (none of them checked)"
        yield Finding("objects", "note", text, numbers={"chosen": chosen, "rejected": rejected})
        return
    sides = ("chosen", "rejected")
    wrong, recall = dict.fromkeys(sides, 0), dict.fromkeys(sides, 0.0)
    upside_down = []
    for pair in known:
        there = present[pair.record_id]
        said = {side: set(lexicon.names(getattr(pair, side))) for side in sides}
        invented = {side: len(said[side] - there) for side in sides}
        for side in sides:
            wrong[side] += invented[side] > 0
            recall[side] += len(said[side] & there) / len(there) if there else 1.0
        if invented["chosen"] > invented["rejected"]:
            upside_down.append(pair.id)
    shares = {side: 100 * count / len(known) for side, count in wrong.items()}
    told = {side: 100 * named_objects / len(known) for side, named_objects in recall.items()}
    text = (
        f"{shares['chosen']:.1f} % of chosen and {shares['rejected']:.1f} % of rejected answers name an absent object; "
        f"they name {told['chosen']:.1f} % and {told['rejected']:.1f} % of what is there"
    )
    numbers = {**shares, **{f"{side}_recall": share for side, share in told.items()}}
    yield Finding("invented", "note", text, numbers=numbers)
    if upside_down:
        text = f"in {len(upside_down)} pairs the chosen answer invents more objects than the rejected one"
        remedy = "look at these pairs: they teach the opposite of what is wanted"
        yield Finding("upside-down", "warning", text, remedy, tuple(upside_down), frozenset(upside_down))
