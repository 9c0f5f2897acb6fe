"""The judge by rules: a lexicon says which objects a text names, and the reference says which are in the image.

It is CHAIR's idea of a hallucination: an object that neither the annotations nor the reference caption names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from veridical.errors import UserError
from veridical.judges.interface import Detect, ExtractObjects, Findings, JudgeError, Kind, Presence, Rewrite, Seen
from veridical.judges.lexicon import Lexicon, Mention
from veridical.judges.oracle import findings, seen
from veridical.judges.writers import SentenceWriter
from veridical.records import Annotations, Record, Region

if TYPE_CHECKING:
    from veridical.judges.registry import JudgeContext


@dataclass(frozen=True)
class Rules:
    """A judge with a lexicon and nothing else."""

    lexicon: Lexicon
    unmentioned: Literal["absent", "unknown"] = "absent"
    """What an object is that neither annotations nor reference name, when asked for its presence."""
    name: str = "rules"

    def lacks(self, kind: Kind, record: Record) -> JudgeError | None:
        """Annotations and a reference both, where objects are to be judged."""
        if kind not in (Detect, Presence) or self._known(record) is not None:
            return None
        return JudgeError(
            f"{record.id}: has neither annotations nor a reference",
            "nothing-to-judge-by",
            "list its objects, or give it a caption",
        )

    def detect(self, requests: Sequence[Detect]) -> list[Findings | JudgeError]:
        """Findings by annotations and reference together; a JudgeError for a record with neither."""
        return [self._detect(request) for request in requests]

    def extract_objects(self, requests: Sequence[ExtractObjects]) -> list[list[Mention]]:
        """The objects that each text names."""
        return [self.lexicon.mentions(request.text) for request in requests]

    def presence(self, requests: Sequence[Presence]) -> list[Mapping[str, Seen] | JudgeError]:
        """Present if annotated or named by the reference; anything else as `unmentioned` says."""
        return [self._presence(request) for request in requests]

    def rewrite(self, requests: Sequence[Rewrite]) -> list[str | None]:
        """The text without the sentences that name what is to go; None where more is asked for."""
        writer = SentenceWriter(self.lexicon)
        return [writer(request) for request in requests]

    def _detect(self, request: Detect) -> Findings | JudgeError:
        lacking = self.lacks(Detect, request.record)
        known = self._known(request.record) or Annotations()
        return lacking or findings(request.text, known, self.lexicon)

    def _presence(self, request: Presence) -> Mapping[str, Seen] | JudgeError:
        lacking = self.lacks(Presence, request.record)
        known = self._known(request.record) or Annotations()
        return lacking or seen(request.names, known, self.lexicon, self.unmentioned)

    def _known(self, record: Record) -> Annotations | None:
        if record.annotations is None and record.reference is None:
            return None
        annotated = record.annotations.objects if record.annotations else ()
        # What the reference names is in the image; its number is unknown.
        return Annotations(annotated, regions=(Region(record.reference or ""),))


@dataclass(frozen=True)
class RulesSettings:
    """Judge by which objects a text names, and by the reference."""

    name: Literal["rules"] = "rules"
    """Which judge: rules knows a lexicon (--lexicon, such as coco80) and the reference captions."""

    unmentioned: Literal["absent", "unknown"] = "absent"
    """What an object is that the reference doesn't mention, when asked whether it is in the image. A caption rarely
    names everything: "absent" counts some true objects as invented, as CHAIR on captions alone would."""

    def open(self, context: JudgeContext) -> Rules:
        """The judge. Raises UserError where there are no words for objects."""
        if context.words is None:
            raise UserError("judge.name rules: there are no words for objects; give --lexicon coco80 or a JSON file.")
        return Rules(context.words.lexicon, self.unmentioned)
