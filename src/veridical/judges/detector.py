"""Judge by an object detection model: which objects are in an image, and which of a text's objects are not.

An object is *present* where its best score reaches one threshold, *absent* where it stays below a lower one, and
unknown between them; a model with a fixed list of labels doesn't know any other object. Only objects are judged: not
their number, look or place. Of two detectors that must agree, as in SENTINEL (arXiv 2507.12455), what they differ on is
unknown.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from veridical.bounds import Positive, Share
from veridical.errors import UserError
from veridical.judges import claims
from veridical.judges.interface import (
    AnsweredQuestion,
    Detect,
    ExtractObjects,
    Fault,
    Findings,
    JudgeError,
    Kind,
    MakeQuestions,
    Presence,
    Rewrite,
    Seen,
)
from veridical.judges.lexicon import Lexicon, Mention
from veridical.judges.lexicon_sources import coco80
from veridical.judges.writers import SentenceWriter
from veridical.records import ImageFile, Record
from veridical.runs import BY_CONTENT, INCIDENTAL
from veridical.store import Store, default_folder, key_of

if TYPE_CHECKING:
    from veridical.judges.detection_models import DetectionModel, Scores
    from veridical.judges.registry import JudgeContext

FILE = "detections.sqlite"
_VERSION = 1
"""Part of every key in the store; raised when scores are computed in another way."""


@dataclass(frozen=True)
class Thresholds:
    """From which score an object is present, and below which it is absent."""

    present: float = 0.5
    absent: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.absent <= self.present <= 1:
            raise UserError(
                f"The detector's thresholds are absent {self.absent:g} and present {self.present:g}; give numbers from "
                "0 to 1, absent not above present."
            )

    def read(self, score: float) -> Seen:
        """What a score says."""
        return "present" if score >= self.present else "absent" if score < self.absent else "unknown"


@dataclass(frozen=True)
class Detector:
    """A detection model, the words for objects, and the scores that were computed before."""

    model: DetectionModel
    lexicon: Lexicon
    labels: Mapping[str, str]
    """The label (for a zero-shot model: the query) of the model to the lexicon's name; several may have one name."""
    thresholds: Thresholds = field(default_factory=Thresholds)
    store: Store | None = None
    batch_size: int = 8
    names_at_once: int = 16
    second: Detector | None = None
    """Another one, which must say the same."""

    @property
    def name(self) -> str:
        """The detection model, or both."""
        return self.model.name if self.second is None else f"{self.model.name}+{self.second.name}"

    def lacks(self, kind: Kind, record: Record) -> JudgeError | None:
        """An image, for everything that is judged by it."""
        if kind in (Detect, Presence, MakeQuestions) and not record.images:
            return JudgeError(f"{record.id}: has no image", "no-image", "give the record an image")
        return None

    def presence(self, requests: Sequence[Presence]) -> list[Mapping[str, Seen] | JudgeError]:
        """Present, absent or unknown by score; without names, for every object that the model knows."""
        return self._agreed([r.record for r in requests], [r.names or self._known for r in requests])

    def detect(self, requests: Sequence[Detect]) -> list[Findings | JudgeError]:
        """Named objects that are absent are invented, present ones that the text doesn't name are missing."""
        seen = self._agreed([r.record for r in requests], [self._known] * len(requests))
        return [self._findings(r.text, s) for r, s in zip(requests, seen, strict=True)]

    def extract_objects(self, requests: Sequence[ExtractObjects]) -> list[list[Mention]]:
        """The objects that each text names, by the lexicon."""
        return [self.lexicon.mentions(request.text) for request in requests]

    def rewrite(self, requests: Sequence[Rewrite]) -> list[str | None]:
        """The text without the sentences that name what is to go; None where more is asked for."""
        return [SentenceWriter(self.lexicon)(request) for request in requests]

    def make_questions(self, requests: Sequence[MakeQuestions]) -> list[tuple[AnsweredQuestion, ...] | JudgeError]:
        """A question for each object that one description names and the other doesn't, where the detector agrees."""
        seen = self._agreed([r.record for r in requests], [self._known] * len(requests))
        return [s if isinstance(s, JudgeError) else self._quiz(r, s) for r, s in zip(requests, seen, strict=True)]

    @property
    def _known(self) -> tuple[str, ...]:
        """The lexicon's names of all that the model can look for."""
        return tuple(dict.fromkeys(self.labels.values()))

    def _findings(self, text: str, seen: Mapping[str, Seen] | JudgeError) -> Findings | JudgeError:
        if isinstance(seen, JudgeError):
            return seen
        named = self.lexicon.mentions(text)
        said = {mention.name for mention in named}
        countable = set(self.lexicon.synonyms.values())
        return Findings(
            tuple(named),
            tuple(
                Fault("object", m.start, m.end, f"there is no {m.name}") for m in named if seen.get(m.name) == "absent"
            ),
            tuple(name for name, how in seen.items() if how == "present" and name in countable and name not in said),
            tuple(m for m in named if seen.get(m.name, "unknown") == "unknown"),
        )

    def _quiz(self, request: MakeQuestions, seen: Mapping[str, Seen]) -> tuple[AnsweredQuestion, ...]:
        agreed = {claims.exists(name): how for name, how in seen.items()}
        right = {"Yes.": "present", "No.": "absent"}
        return tuple(i for i in claims.questions(request, self.lexicon) if agreed.get(i.question) == right[i.right])

    def _agreed(
        self, records: Sequence[Record], names: Sequence[Sequence[str]]
    ) -> list[Mapping[str, Seen] | JudgeError]:
        """What is in each record's images; of two detectors, what both say of it, and unknown otherwise."""
        own = self._present(records, names)
        return own if self.second is None else list(map(agreement, own, self.second._agreed(records, names)))

    def _present(
        self, records: Sequence[Record], names: Sequence[Sequence[str]]
    ) -> list[Mapping[str, Seen] | JudgeError]:
        """What is in each record's images; of several images it is enough that one shows an object."""
        queries = [self._queries(wanted) for wanted in names]
        scored = self._scores(
            [(image, query) for record, asked in zip(records, queries, strict=True) for image in record.images
             for query in asked]
        )  # fmt: skip
        answers: list[Mapping[str, Seen] | JudgeError] = []
        for record, wanted, asked in zip(records, names, queries, strict=True):
            shown = [scored[image, query] for image in record.images for query in asked]
            failed = next((part for part in shown if isinstance(part, JudgeError)), self.lacks(Presence, record))
            answers.append(failed or self._read([part for part in shown if not isinstance(part, JudgeError)], wanted))
        return answers

    def _read(self, shown: Sequence[Scores], wanted: Sequence[str]) -> Mapping[str, Seen]:
        best: dict[str, float] = {}
        for scores in shown:
            for label, score in scores.items():
                name = self.labels.get(label, label)
                best[name] = max(best.get(name, 0.0), score)
        return {name: self.thresholds.read(best[name]) if name in best else "unknown" for name in wanted}

    def _queries(self, names: Sequence[str]) -> list[tuple[str, ...]]:
        """The groups of labels that are asked together to score `names`.

        Groups are fixed, for what a model is asked beside a name may change the name's score. A zero-shot model can
        be asked for a name outside the lexicon as well, alone.
        """
        if self.model.labels is not None:
            return [self.model.labels]
        labels, size = list(self.labels), self.names_at_once
        groups = [tuple(labels[start : start + size]) for start in range(0, len(labels), size)]
        wanted = set(names)
        needed = [group for group in groups if wanted & {self.labels[label] for label in group}]
        known = set(self.labels.values())
        return needed + [(name,) for name in dict.fromkeys(names) if name not in known]

    def _scores(
        self, asked: Sequence[tuple[ImageFile, tuple[str, ...]]]
    ) -> dict[tuple[ImageFile, tuple[str, ...]], Scores | JudgeError]:
        """The scores of each image and group of labels: from the store, or computed and stored."""
        todo = list(dict.fromkeys(asked))
        keys = {one: self._key(*one) for one in todo}
        stored = self.store.get_many(keys.values()) if self.store else {}
        done: dict[tuple[ImageFile, tuple[str, ...]], Scores | JudgeError] = {
            one: stored[key] for one, key in keys.items() if key in stored
        }
        by_query: dict[tuple[str, ...], list[ImageFile]] = {}
        for image, query in todo:
            if (image, query) not in done:
                by_query.setdefault(query, []).append(image)
        for query, images in by_query.items():
            for start in range(0, len(images), self.batch_size):
                batch = images[start : start + self.batch_size]
                computed = dict(zip(((image, query) for image in batch), self._computed(batch, query), strict=True))
                done |= computed
                if self.store:
                    good = {keys[one]: s for one, s in computed.items() if not isinstance(s, JudgeError)}
                    self.store.put_many(good)
        return done

    def _computed(self, images: Sequence[ImageFile], query: tuple[str, ...]) -> list[Scores | JudgeError]:
        from veridical.vlm.images.files import open_image

        opened = []
        results: list[Scores | JudgeError | None] = []
        for image in images:
            try:
                opened.append(open_image(image))
                results.append(None)
            except UserError as error:
                reason, remedy = getattr(error, "reason", "judge-refused"), getattr(error, "remedy", "mend the image")
                results.append(JudgeError(str(error), reason, remedy))
        scored = iter(self.model.scores(opened, query) if opened else ())
        return [next(scored) if result is None else result for result in results]

    def _key(self, image: ImageFile, query: tuple[str, ...]) -> str:
        return key_of(
            {"detector": self.model.fingerprint, "version": _VERSION, "image": image.sha256, "names": list(query)}
        )


def agreement(one: Mapping[str, Seen] | JudgeError, other: Mapping[str, Seen] | JudgeError) -> Any:
    """What two judges agree on, by name; unknown where they differ. The error of one that has none to give."""
    if isinstance(one, JudgeError) or isinstance(other, JudgeError):
        return one if isinstance(one, JudgeError) else other
    return {name: how if other.get(name) == how else "unknown" for name, how in one.items()}


@dataclass(frozen=True)
class DetectorSettings:
    """Judge by what an object detection model sees."""

    name: Literal["detector"] = "detector"
    """Which judge: a detector says which objects are in the image, by an object detection model of transformers."""
    model: str = ""
    """An object detection model (DETR, RT-DETR, YOLOS, ...) or a zero-shot one (OWLv2, Grounding DINO, ...), by folder
    or hub name."""
    second: str = ""
    """A second detection model that must agree: what the two differ on is unknown (SENTINEL)."""
    present: Share = 0.5
    """An object is present if its best score is at least this."""
    absent: Share = 0.1
    """An object is absent if its best score is below this; between the two the detector doesn't know."""
    labels: Path | None = field(default=None, metadata=BY_CONTENT)
    """A JSON file {label of the detector: name in the lexicon}, where the lexicon doesn't know a label."""
    batch_size: Positive = field(default=8, metadata=INCIDENTAL)
    """Images looked at together."""
    names_at_once: Positive = 16
    """Names that a zero-shot model is asked for together."""
    device: str = field(default="auto", metadata=INCIDENTAL)
    """Where it runs: auto, cpu, cuda, ...."""
    cache: Path | None = field(default=None, metadata=INCIDENTAL)
    """Folder for the scores; by default in the user's cache folder, for all runs."""

    def open(self, context: JudgeContext) -> Detector:
        """The judge. Raises UserError where the model can't be loaded, or nothing says what objects are called."""
        if not self.model:
            raise UserError("judge.name detector: give --judge.model, an object detection model by folder or hub name.")
        if min(self.batch_size, self.names_at_once) < 1:
            raise UserError("The detector's batch_size and names_at_once must be at least 1.")
        thresholds = Thresholds(self.present, self.absent)
        given = _read_labels(self.labels) if self.labels else {}
        lexicon = context.words.lexicon if context.words else None
        second = self._detector(self.second, lexicon, thresholds, given) if self.second else None
        return replace(self._detector(self.model, lexicon, thresholds, given), second=second)

    def _detector(
        self, name: str, lexicon: Lexicon | None, thresholds: Thresholds, given: Mapping[str, str]
    ) -> Detector:
        from veridical.judges.detection_models import load_detection_model

        model = load_detection_model(name, self.device)
        words = lexicon or _own_lexicon(model)
        labels = label_names(model.labels, words, given)
        store = Store((self.cache or default_folder()) / FILE)
        return Detector(model, words, labels, thresholds, store, self.batch_size, self.names_at_once)


def label_names(labels: Sequence[str] | None, lexicon: Lexicon, given: Mapping[str, str]) -> dict[str, str]:
    """The lexicon's name for each label: as given, or as the lexicon reads the label, or the label itself.

    Without labels (a zero-shot model) the lexicon's own names are what is looked for.
    """
    if labels is None:
        return {name: name for name in dict.fromkeys(lexicon.synonyms.values())}
    names = {}
    for label in labels:
        plain = label.replace("_", " ").strip().lower()
        read = lexicon.mentions(plain)
        whole = len(read) == 1 and (read[0].start, read[0].end) == (0, len(plain))
        names[label] = given.get(label, read[0].name if whole else plain)
    return names


def _own_lexicon(model: DetectionModel) -> Lexicon:
    """Where no words are given: COCO's for a detector of COCO's classes, else the labels as they are."""
    if model.labels is None:
        raise UserError(
            f"judge.name detector: {model.name} looks for what it is asked, and nothing says for what; give --lexicon "
            "coco80 or a JSON file."
        )
    coco = coco80().lexicon
    names = {name: name for name in label_names(model.labels, coco, {}).values()}
    return coco if names.keys() <= set(coco.synonyms.values()) else Lexicon(names)


def _read_labels(path: Path) -> dict[str, str]:
    try:
        content = json.loads(path.expanduser().read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"judge.labels {path}: can't be read ({error}); it is JSON: {{label: name}}.") from error
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content.values()):
        raise UserError(f"judge.labels {path}: is not of the form {{label: name}}.")
    return content
