"""The judge that knows: it compares what a text says with the annotations of the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from veridical.judges import claims, corruptions
from veridical.judges.faults import NO_SCENES, Scenes, faults, present
from veridical.judges.interface import (
    AnsweredQuestion,
    Compare,
    Detect,
    ExtractClaims,
    ExtractObjects,
    Findings,
    Inject,
    JudgeError,
    Kind,
    MakeQuestions,
    Preference,
    Presence,
    Rate,
    Restyle,
    Rewrite,
    Seen,
    ToQuestion,
    Verify,
    Writer,
)
from veridical.judges.lexicon import Lexicon, Mention
from veridical.judges.lexicon_sources import Words
from veridical.judges.mistakes import mistaken
from veridical.judges.writers import GrammarWriter, SentenceWriter
from veridical.records import Annotations, Record
from veridical.world import writer as grammar

if TYPE_CHECKING:
    from veridical.judges.registry import JudgeContext


def invented(text: str, annotations: Annotations, lexicon: Lexicon) -> list[Mention]:
    """The mentions in `text` of classes that are not in the annotations."""
    known = present(annotations, lexicon)
    return [mention for mention in lexicon.mentions(text) if mention.name not in known]


def missing(text: str, annotations: Annotations, lexicon: Lexicon) -> list[str]:
    """The annotated classes that `text` does not name, in the order of the annotations."""
    named = set(lexicon.names(text))
    return list(dict.fromkeys(o.name for o in annotations.objects if o.name not in named))


def seen(names: Sequence[str], annotations: Annotations, lexicon: Lexicon, otherwise: Seen) -> dict[str, Seen]:
    """Whether each object is in the image by its annotations; an unlisted one is `otherwise`, or not in the lexicon.

    Without names it is about all objects of the lexicon and of the annotations.
    """
    there = present(annotations, lexicon)
    known = {*lexicon.synonyms.values(), *there}
    wanted = names or sorted(known)
    return {name: "present" if name in there else otherwise if name in known else "unknown" for name in wanted}


def findings(text: str, annotations: Annotations, lexicon: Lexicon, scenes: Scenes = NO_SCENES) -> Findings:
    """Everything that the annotations tell about `text`; `scenes` are how texts name scenes, as in `Words`."""
    return Findings(
        named=tuple(lexicon.mentions(text)),
        faults=faults(text, annotations, lexicon, scenes),
        missing=tuple(missing(text, annotations, lexicon)),
    )


@dataclass(frozen=True)
class Oracle:
    """A judge with annotations, the parts of `Words`, and writers that are tried in turn.

    `errors` is the share of kinds of objects that it is mistaken about in each record.
    """

    lexicon: Lexicon
    writers: tuple[Writer, ...]
    partner: Mapping[str, str] = field(default_factory=dict)
    scenes: Scenes = field(default_factory=dict)
    errors: float = 0.0
    name: str = "oracle"

    @property
    def words(self) -> Words:
        """What it knows of language."""
        return Words(self.lexicon, self.partner, self.scenes)

    def lacks(self, kind: Kind, record: Record) -> JudgeError | None:
        """Annotations, for everything that is judged by them."""
        by_annotations = kind in (Detect, Rate, Compare, Verify, Presence)
        return _no_annotations(record) if by_annotations and record.annotations is None else None

    def detect(self, requests: Sequence[Detect]) -> list[Findings | JudgeError]:
        """Findings for each request; a JudgeError for a record without annotations."""
        return [self._findings(request.record, request.text) for request in requests]

    def extract_objects(self, requests: Sequence[ExtractObjects]) -> list[list[Mention]]:
        """The objects that each text names."""
        return [self.lexicon.mentions(request.text) for request in requests]

    def rewrite(self, requests: Sequence[Rewrite]) -> list[str | None]:
        """The first text of a writer that names what was asked for; else None."""
        return [self._rewrite(request) for request in requests]

    def rate(self, requests: Sequence[Rate]) -> list[float | JudgeError]:
        """(Correct kinds of objects - faults) / kinds in the image: at most 1, below 0 for mostly wrong texts."""
        return [self._rate(request.record, request.text) for request in requests]

    def compare(self, requests: Sequence[Compare]) -> list[Preference | JudgeError]:
        """The difference of the two texts' rates, within -1 and 1; order cannot matter."""
        return [self._compare(request) for request in requests]

    def verify(self, requests: Sequence[Verify]) -> list[float | JudgeError]:
        """0 where the annotations contradict a claim, 1 where they cover it, 0.5 where they say nothing of it."""
        return [self._verify(request) for request in requests]

    def presence(self, requests: Sequence[Presence]) -> list[Mapping[str, Seen] | JudgeError]:
        """Present as annotated, or named by a region or a fact; any other object of the lexicon is absent."""
        return [self._presence(request) for request in requests]

    def inject(self, requests: Sequence[Inject]) -> list[str | JudgeError | None]:
        """A text that the annotations prove wrong; captions of the picture world stay in their grammar."""
        return [corruptions.inject(request, self.words) for request in requests]

    def restyle(self, requests: Sequence[Restyle]) -> list[tuple[str, ...] | None]:
        """Captions of the picture world in another wording of its grammar; None for other texts."""
        return [grammar.restyle(request.texts, request.variant) for request in requests]

    def extract_claims(self, requests: Sequence[ExtractClaims]) -> list[tuple[str, ...]]:
        """A claim for each object that a text names, with its number and colour where said, and for its scene."""
        return [claims.split(request.text, self.words) for request in requests]

    def to_question(self, requests: Sequence[ToQuestion]) -> list[str]:
        """The yes/no question of each claim."""
        return [claims.question(request.claim) for request in requests]

    def make_questions(self, requests: Sequence[MakeQuestions]) -> list[tuple[AnsweredQuestion, ...]]:
        """A question for each class that one description names and the other does not, as the annotations have it."""
        return [claims.questions(request, self.lexicon) for request in requests]

    def _findings(self, record: Record, text: str) -> Findings | JudgeError:
        if record.annotations is None:
            return _no_annotations(record)
        return findings(text, self._believed(record.id, record.annotations), self.lexicon, self.scenes)

    def _believed(self, record: str, annotations: Annotations) -> Annotations:
        return mistaken(annotations, self.lexicon, self.errors, record) if self.errors else annotations

    def _rate(self, record: Record, text: str) -> float | JudgeError:
        findings = self._findings(record, text)
        if isinstance(findings, JudgeError):
            return findings
        there = len(findings.true_names) + len(findings.missing)
        return (len(findings.true_names) - len(findings.faults)) / max(there, 1)

    def _compare(self, request: Compare) -> Preference | JudgeError:
        first, second = (self._rate(request.record, text) for text in (request.first, request.second))
        if isinstance(first, JudgeError):
            return first
        if isinstance(second, JudgeError):
            return second
        return Preference(max(-1.0, min(1.0, first - second)))

    def _verify(self, request: Verify) -> float | JudgeError:
        findings = self._findings(request.record, request.claim)
        if isinstance(findings, JudgeError):
            return findings
        said = findings.named or any(p in request.claim for phrases in self.scenes.values() for p in phrases)
        return 0.0 if findings.faults else 1.0 if said else 0.5

    def _presence(self, request: Presence) -> Mapping[str, Seen] | JudgeError:
        if request.record.annotations is None:
            return _no_annotations(request.record)
        believed = self._believed(request.record.id, request.record.annotations)
        return seen(request.names, believed, self.lexicon, "absent")

    def _rewrite(self, request: Rewrite) -> str | None:
        offers = (writer(request) for writer in self.writers)
        return next((text for text in offers if text is not None and self._obeys(text, request)), None)

    def _obeys(self, text: str, request: Rewrite) -> bool:
        wrong = {name for f in request.faults for name in self.lexicon.names(request.text[f.start : f.end])}
        right = {name for f in request.faults for name in self.lexicon.names(f.correction)}
        new = {*request.swap.values(), *request.put_in} | right
        kept = set(self.lexicon.names(request.text)) - {*request.leave_out, *request.swap, *wrong}
        named = set(self.lexicon.names(text))
        return bool(named) and new <= named <= kept | new


def _no_annotations(record: Record) -> JudgeError:
    return JudgeError(
        f"{record.id}: has no annotations, and the oracle judges by nothing else.",
        "no-annotations",
        "list the objects that are in the image",
    )


@dataclass(frozen=True)
class OracleSettings:
    """Judge by the annotations of the records."""

    name: Literal["oracle"] = "oracle"
    """Which judge: oracle goes by the annotations of the records."""

    def open(self, context: JudgeContext) -> Oracle | None:
        """The oracle; None where there are no words for objects."""
        if context.words is None:
            return None
        words = context.words
        return Oracle(words.lexicon, (GrammarWriter(), SentenceWriter(words.lexicon)), words.partner, words.scenes)
