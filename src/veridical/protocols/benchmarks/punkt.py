"""Splits lower-case English text into sentences as NLTK's word_tokenize does.

The algorithm is NLTK's own class for Punkt (Kiss and Strunk 2006, Computational Linguistics 32). Its parameters for
English are NLTK's data, which pip doesn't bring. What of them can matter in lower-case text is below: the
abbreviations, the pairs of words that a period doesn't separate, and the few words that were seen at the beginning of
a sentence in lower case and never in capitals.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

_ABBREVIATIONS = """
a.a a.c a.d a.g a.h a.m a.m.e a.s a.t adm ala ariz aug ave b.f b.v bros c c.i.t c.o.m.b c.v calif chg cie co col
colo conn corp cos ct d d.c d.h d.w dec dr e e.f e.h e.l e.m f f.g f.j feb fla fri ft g g.d g.f g.k ga gen h h.c
h.f h.m i.m.s ill inc j.b j.c j.j j.k j.p j.r jan jr k kan ky l l.a l.f l.p lt ltd m m.b.a m.d.c m.j maj messrs mg
mich minn mr mrs ms n n.c n.d n.h n.j n.m n.v n.y nev nov oct ok okla ore p p.a.m p.m pa ph.d prof r r.a r.h r.i
r.j r.k r.t rep reps s s.a s.a.y s.c s.g s.p.a s.s sen sep sept sr st sw t t.j tenn tues u.k u.n u.s u.s.a u.s.s.r
v va vs vt w w.c w.r w.va w.w wash wed wis yr
"""
ABBREVIATIONS = frozenset({*_ABBREVIATIONS.split(), ". . "})
_AFTER_NUMBERS = """
abreast aes business cbot colgate commodities cooper corrections credit dividend financing genentech
henley insider international leisure letters notable pay-fone pegasus pepper review rj wedgestone
who zimmer
"""
PAIRS = {
    "##number##": _AFTER_NUMBERS.split(),
    "b": ["edelman", "levine", "smith", "stewart", "wigton"],
    "i": ["magnin", "toussie"],
    "j": ["aron", "fialka", "walter"],
    "o": ["ludcke"],
}
"""By first word, the second words; ##number## is any number."""
BEGINNERS = ("administrators", "b-week", "r-revised", "z-holiday")


def sentences(text: str) -> list[tuple[int, int]]:
    """Where each sentence of a lower-case text starts and ends."""
    return list(_splitter().span_tokenize(text))


def breaks(context: str) -> bool:
    """Whether a sentence ends inside a stretch of text: a word with its period, and what follows."""
    return bool(_splitter().text_contains_sentbreak(context))


@cache
def period_context() -> re.Pattern[str]:
    """The pattern of a character that may end a sentence, with what follows it."""
    # Compiled again: NLTK's object guards every search with a timer, which takes longer than the search.
    return re.compile(_splitter()._lang_vars.period_context_re().pattern, re.VERBOSE)


@cache
def realignment() -> Any:
    """The pattern of closing marks that move to the sentence before."""
    return _splitter()._lang_vars.re_boundary_realignment


@cache
def _splitter() -> Any:
    from nltk.tokenize.punkt import _ORTHO_BEG_LC, PunktParameters, PunktSentenceTokenizer

    parameters = PunktParameters()
    parameters.abbrev_types = set(ABBREVIATIONS)
    parameters.collocations = {(first, second) for first, seconds in PAIRS.items() for second in seconds}
    parameters.ortho_context.update(dict.fromkeys(BEGINNERS, _ORTHO_BEG_LC))
    return PunktSentenceTokenizer(parameters)
