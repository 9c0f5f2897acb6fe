"""What a user needs to judge pairs by: lengths, objects, partners, inventions, and how far the sides are apart."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from veridical.judges.lexicon import Lexicon
from veridical.judges.lexicon_sources import Words
from veridical.judges.oracle import invented
from veridical.judges.similarity import token_f1
from veridical.judges.tokens import chunks
from veridical.records import Annotations, Pair, Record

if TYPE_CHECKING:
    from rich.table import Table

_ROWS = (
    ("words", "words"),
    ("objects", "kinds of objects"),
    ("partners", "names a usual partner, %"),
    ("invented", "invented objects"),
    ("inventing", "invents something, %"),
)
BINS = 10


def summarise(pairs: Sequence[Pair], records: Iterable[Record], words: Words | None) -> dict[str, Any]:
    """Numbers about pairs: of all captions together, then of each variant.

    Means over the texts of a side: `words`; `objects`, the kinds of objects named; `partners`, the percentage of texts
    that name both an object and its usual partner; `invented`, the named kinds that aren't in it; `inventing`, the
    percentage of texts with one. Those that need a lexicon, partners or annotations are left out where there are none.
    `same_wording` says how alike in style the sides of a pair are: the token F1 of what is left of them when the named
    objects are taken out, 1 for the same words. `edit_distance` is the mean word-level Levenshtein distance between the
    sides, as a share of the longer one; `similarity` is the token F1 of the whole sides, its mean and a histogram of
    ten bins from 0 to 1. `attempts` counts pairs by how many tries they took. A construction whose chosen and rejected
    sides have the same `partners` trains the prior that it should weaken.
    """
    annotations = {record.id: record.annotations for record in records if record.annotations}
    captions = [pair for pair in pairs if not _is_question(pair)]
    groups: dict[str, list[Pair]] = {}
    for pair in pairs:
        groups.setdefault(pair.provenance.variant, []).append(pair)
    return {
        "pairs": len(pairs),
        "chosen_from": dict(Counter(pair.provenance.chosen_source for pair in pairs).most_common()),
        "questions": {
            "chosen_yes": sum(pair.chosen == "Yes." for pair in pairs),
            "chosen_no": sum(pair.chosen == "No." for pair in pairs),
        },
        "captions": _compare(captions, annotations, words),
        "variants": {variant: _compare(group, annotations, words) for variant, group in sorted(groups.items())},
    }


def table(summary: Mapping[str, Any]) -> Table:
    """The caption part of a summary as a table: a row a number, chosen beside rejected."""
    from rich.table import Table

    shown = Table("", "chosen", "rejected", title=f"{summary['captions']['pairs']} pairs of captions")
    captions = summary["captions"]
    for key, label in _ROWS:
        if key in captions.get("chosen", {}):
            shown.add_row(label, *(f"{captions[side][key]:.2f}" for side in ("chosen", "rejected")))
    if "same_wording" in captions:
        shown.add_row("same wording, objects aside", "", f"{captions['same_wording']:.2f}")
    if "edit_distance" in captions:
        shown.add_row("edit distance", "", f"{captions['edit_distance']:.2f}")
        shown.add_row("similarity (token F1)", "", f"{captions['similarity']['mean']:.2f}")
    return shown


def _is_question(pair: Pair) -> bool:
    return {pair.chosen, pair.rejected} == {"Yes.", "No."}


def _compare(pairs: Sequence[Pair], annotations: Mapping[str, Annotations], words: Words | None) -> dict[str, Any]:
    if not pairs:
        return {"pairs": 0}
    known = [annotations.get(pair.record_id) for pair in pairs]
    alike = [same_wording(pair.chosen, pair.rejected, words.lexicon) for pair in pairs] if words else []
    return {
        "pairs": len(pairs),
        "chosen": _side([pair.chosen for pair in pairs], known, words),
        "rejected": _side([pair.rejected for pair in pairs], known, words),
        "edit_distance": _mean([edit_distance(pair.chosen, pair.rejected) for pair in pairs]),
        "similarity": _similarity(pairs),
        "attempts": {str(n): count for n, count in sorted(Counter(p.provenance.attempts for p in pairs).items())},
        **({"same_wording": _mean(alike)} if alike else {}),
    }


def _similarity(pairs: Sequence[Pair]) -> dict[str, Any]:
    alike = [token_f1(pair.chosen, pair.rejected) for pair in pairs]
    bins = Counter(min(int(one * BINS), BINS - 1) for one in alike)
    return {"mean": _mean(alike), "histogram": [bins[place] for place in range(BINS)]}


def _side(texts: Sequence[str], known: Sequence[Annotations | None], words: Words | None) -> dict[str, float]:
    numbers = {"words": _mean([len(chunks(text)) for text in texts])}
    if words is None:
        return numbers
    named = [words.lexicon.names(text) for text in texts]
    numbers["objects"] = _mean([len(names) for names in named])
    if words.partner:
        both = [any(words.partner.get(name) in names for name in names) for names in named]
        numbers["partners"] = _percent(both)
    if all(annotations is not None for annotations in known):
        wrong = [
            len({mention.name for mention in invented(text, annotations, words.lexicon)})
            for text, annotations in zip(texts, known, strict=True)
            if annotations is not None
        ]
        numbers |= {"invented": _mean(wrong), "inventing": _percent([count > 0 for count in wrong])}
    return numbers


def same_wording(one: str, other: str, lexicon: Lexicon) -> float:
    """Token F1 of two texts without the objects that they name, 0 to 1: a measure of style, not of content."""
    return token_f1(_without_objects(one, lexicon), _without_objects(other, lexicon))


def _without_objects(text: str, lexicon: Lexicon) -> str:
    kept, end = [], 0
    for mention in lexicon.mentions(text):
        kept.append(text[end : mention.start])
        end = mention.end
    return "".join([*kept, text[end:]])


@functools.lru_cache(2**14)
def edit_distance(one: str, other: str) -> float:
    """Word-level Levenshtein distance as a share of the longer text's words, 0 to 1.

    A row of the table at a time: what comes from its left is the least before, one more for every word between.
    """
    import numpy

    a, b = chunks(one), chunks(other)
    numbers = {word: number for number, word in enumerate(dict.fromkeys([*a, *b]))}
    columns, steps = numpy.array([numbers[word] for word in b], dtype=int), numpy.arange(len(b) + 1)
    row = steps
    for place, word in enumerate(a, start=1):
        changed = numpy.minimum(row[1:] + 1, row[:-1] + (columns != numbers[word]))
        row = numpy.minimum.accumulate(numpy.concatenate(([place], changed)) - steps) + steps
    return float(row[-1]) / max(len(a), len(b), 1)


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 4) if values else 0.0


def _percent(values: Sequence[bool]) -> float:
    return round(100 * sum(values) / len(values), 2) if values else 0.0
