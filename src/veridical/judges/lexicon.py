"""Which objects a text names: a lexicon of surface forms, read with plurals, longest form first."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from veridical.errors import UserError

_OTHER = ""
_START = re.compile(r"(?<![\w-])(?:\w+|\S)")
"""Where a form may begin: a word, or a single other character."""


@dataclass(frozen=True, slots=True)
class Mention:
    """An object that a text names: its class and the span of characters [start, end)."""

    name: str
    start: int
    end: int


@dataclass(frozen=True)
class Lexicon:
    """Surface forms, singular and lower-case, to class names.

    Regular plurals of the last word are understood; `plurals` gives irregular ones (plural form -> singular
    form). `others` are forms that contain a word of the lexicon and name something else ("bus stop").
    """

    synonyms: Mapping[str, str]
    plurals: Mapping[str, str] = field(default_factory=dict)
    others: frozenset[str] = frozenset()

    def mentions(self, text: str) -> list[Mention]:
        """The objects named in `text`, in order and without overlap.

        Where several forms begin at the same place the longest counts. A form is a run of whole words, of
        any case; a word joined by a hyphen is another word ("hot-dog" names no dog), while "traffic-light"
        and "traffic light" are the same form.
        """
        mentions = []
        end = 0
        for word in _START.finditer(text):
            forms = self._by_start.get(word.group().lower())
            match = forms.match(text, word.start()) if forms and word.start() >= end else None
            if match:
                end = match.end()
                name = self._forms[_normal(match.group())]
                if name != _OTHER:
                    mentions.append(Mention(name, match.start(), end))
        return mentions

    def names(self, text: str) -> tuple[str, ...]:
        """The distinct classes named in `text`, in order of first mention."""
        return tuple(dict.fromkeys(mention.name for mention in self.mentions(text)))

    def plural(self, form: str) -> str:
        """The plural of a singular form: the given irregular one, else the regular one."""
        return self._irregular.get(_normal(form), next(_plurals(form)))

    def singular(self, form: str) -> str:
        """The singular of a form of this lexicon, which may be one already."""
        return self._singulars.get(_normal(form), form)

    @cached_property
    def _irregular(self) -> dict[str, str]:
        return {_normal(single): many for many, single in reversed(list(self.plurals.items()))}

    @cached_property
    def _singulars(self) -> dict[str, str]:
        regular = {many: form for form in self.synonyms for many in _plurals(_normal(form))}
        given = {_normal(form): form for form in self.synonyms}
        return {**regular, **given, **{_normal(many): single for many, single in self.plurals.items()}}

    @cached_property
    def _forms(self) -> dict[str, str]:
        forms = {_normal(form): _OTHER for form in self.others}
        forms |= {_normal(form): name for form, name in self.synonyms.items()}
        regular = {plural: name for form, name in forms.items() for plural in _plurals(form)}
        irregular = {
            _normal(many): forms[_normal(single)] for many, single in self.plurals.items() if _normal(single) in forms
        }
        # A form that is given says more than a plural that is guessed from another form.
        return {**regular, **irregular, **forms}

    @cached_property
    def _by_start(self) -> dict[str, re.Pattern[str]]:
        """The forms by their first word, which is quick to look up: few words of a text begin any form."""
        longest_first = sorted(self._forms, key=lambda form: (-len(form), form))
        starts: dict[str, list[str]] = {}
        for form in longest_first:
            start = _START.match(form)
            if start:
                starts.setdefault(start.group(), []).append(r"[\s-]+".join(map(re.escape, form.split(" "))))
        return {start: re.compile(rf"(?:{'|'.join(f)})(?![\w-])", re.IGNORECASE) for start, f in starts.items()}


def read_lexicon(path: Path) -> tuple[Lexicon, Mapping[str, str]]:
    """A lexicon and the usual partners of its classes out of a JSON file.

    The file holds {"synonyms": {form: class}, "plurals": {plural: form}, "others": [form], "partners": {class:
    class}}; all but the first may be left out. Raises UserError where the file is something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        parts = [content["synonyms"], content.get("plurals", {}), content.get("partners", {})]
        others = frozenset(content.get("others", ()))
        good = all(isinstance(text, str) for part in parts for item in part.items() for text in item)
        good = good and all(isinstance(form, str) for form in others)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f'{path}: no lexicon ({error}); it is JSON like {{"synonyms": {{"mug": "cup"}}}}.') from error
    if not good:
        raise UserError(f"{path}: a lexicon maps strings to strings.")
    return Lexicon(parts[0], parts[1], others), parts[2]


def _normal(form: str) -> str:
    return re.sub(r"[\s-]+", " ", form.strip()).lower()


def _plurals(form: str) -> Iterator[str]:
    """The regular English plurals of a form's last word; two where usage differs (echos, echoes)."""
    if re.search(r"(?:s|x|z|ch|sh)$", form):
        yield form + "es"
    elif re.search(r"[^aeiou]y$", form):
        yield form[:-1] + "ies"
    else:
        yield form + "s"
        if form.endswith("o"):
            yield form + "es"
