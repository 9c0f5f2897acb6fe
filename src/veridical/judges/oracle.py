"""The judge that knows: it compares what a text names with the annotations of the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from veridical.errors import UserError
from veridical.judges.interface import Detect, Findings, Name, Rewrite, Writer
from veridical.judges.lexicon import Lexicon, Mention
from veridical.judges.writers import GrammarWriter, SentenceWriter
from veridical.records import Annotations

if TYPE_CHECKING:
    from veridical.judges.registry import Setting


def invented(text: str, annotations: Annotations, lexicon: Lexicon) -> list[Mention]:
    """The mentions in `text` of classes that are not in the annotations."""
    return [mention for mention in lexicon.mentions(text) if mention.name not in annotations.names]


def missing(text: str, annotations: Annotations, lexicon: Lexicon) -> list[str]:
    """The annotated classes that `text` does not name, in the order of the annotations."""
    named = set(lexicon.names(text))
    return list(dict.fromkeys(o.name for o in annotations.objects if o.name not in named))


def findings(text: str, annotations: Annotations, lexicon: Lexicon) -> Findings:
    """Everything that the annotations tell about the objects in `text`."""
    return Findings(
        named=tuple(lexicon.mentions(text)),
        invented=tuple(invented(text, annotations, lexicon)),
        missing=tuple(missing(text, annotations, lexicon)),
    )


@dataclass(frozen=True)
class Oracle:
    """A judge with annotations, a lexicon, and writers that are tried in turn."""

    lexicon: Lexicon
    writers: tuple[Writer, ...]
    name: str = "oracle"

    def detect(self, requests: Sequence[Detect]) -> list[Findings]:
        """Findings for each request. Raises UserError for a record without annotations."""
        return [self._detect(request) for request in requests]

    def mentions(self, requests: Sequence[Name]) -> list[list[Mention]]:
        """The objects that each text names."""
        return [self.lexicon.mentions(request.text) for request in requests]

    def rewrite(self, requests: Sequence[Rewrite]) -> list[str | None]:
        """The first text that a writer offers and that really names what was asked for; else None."""
        return [self._rewrite(request) for request in requests]

    def _detect(self, request: Detect) -> Findings:
        annotations = request.record.annotations
        if annotations is None:
            raise UserError(f"{request.record.id}: has no annotations, and the oracle judges by nothing else.")
        return findings(request.text, annotations, self.lexicon)

    def _rewrite(self, request: Rewrite) -> str | None:
        offers = (writer(request) for writer in self.writers)
        return next((text for text in offers if text is not None and self._obeys(text, request)), None)

    def _obeys(self, text: str, request: Rewrite) -> bool:
        new = {*request.swap.values(), *request.put_in}
        kept = set(self.lexicon.names(request.text)) - {*request.leave_out, *request.swap}
        named = set(self.lexicon.names(text))
        return bool(named) and new <= named <= kept | new


@dataclass(frozen=True)
class OracleSettings:
    """Judge by the annotations of the records."""

    name: Literal["oracle"] = "oracle"
    """Which judge: oracle (annotations), rules (a lexicon), ...."""

    def open(self, setting: Setting) -> Oracle | None:
        """The oracle; None where there are no words for objects."""
        if setting.words is None:
            return None
        lexicon = setting.words.lexicon
        return Oracle(lexicon, (GrammarWriter(), SentenceWriter(lexicon)))
