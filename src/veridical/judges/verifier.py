"""The verifier: a vision-language model that was taught by a stronger judge to check sentences.

As in FineSumFact (arXiv 2412.10689), a judge's findings on single sentences - right or wrong, the class of the error
and its reason - are what a small model learns, to check without the judge. `veridical judge train verifier` trains it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from veridical.bounds import Positive
from veridical.errors import UserError
from veridical.files import read_state
from veridical.judges.interface import Detect, Fault, FaultKind, Findings, JudgeError, Rate, Rewrite, Verify
from veridical.judges.lexicon import Lexicon
from veridical.judges.rewards import Scorable, each
from veridical.judges.sentences import sentences
from veridical.judges.writers import SentenceWriter
from veridical.records import Message, Record
from veridical.runs import BY_CONTENT, INCIDENTAL

if TYPE_CHECKING:
    from veridical.judges.registry import JudgeContext
    from veridical.vlm.model.loading import Vlm
    from veridical.vlm.prefix.encode import Prefix

VERIFIER = "verifier.json"
QUESTION = "Is this true of the image? {sentence}"
RIGHT = "Yes."
_WRONG = re.compile(rf"No, ({'|'.join(get_args(FaultKind))}): (.+)", re.DOTALL)
_OPENINGS = tuple(f"No, {kind}:" for kind in get_args(FaultKind))
_LONGEST = 64


def question(sentence: str) -> tuple[Message, ...]:
    """What the verifier is asked about a sentence, in training and in use."""
    return (Message("user", QUESTION.format(sentence=sentence)),)


def verdict(kind: FaultKind | None, reason: str) -> str:
    """What the verifier answers: "Yes.", or "No, count: there are two cups."."""
    return RIGHT if kind is None else f"No, {kind}: {reason.rstrip('.')}."


def read_verdict(text: str) -> tuple[FaultKind, str] | None:
    """The class and the reason of an error; None for a right sentence. Raises ValueError for anything else."""
    if text.strip() == RIGHT:
        return None
    match = _WRONG.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no verdict")
    kind: FaultKind = match.group(1)  # type: ignore[assignment]
    return kind, match.group(2).rstrip(".")


@dataclass(frozen=True)
class Verifier:
    """A judge that checks sentence by sentence."""

    name: str
    vlm: Vlm = field(repr=False)
    batch_size: int = field(default=8, metadata=INCIDENTAL)
    lexicon: Lexicon = field(default_factory=lambda: Lexicon({}), repr=False)

    def detect(self, requests: Sequence[Detect]) -> list[Findings | JudgeError]:
        """A fault for each wrong sentence, with its class and reason; objects are not listed."""
        return [self._findings(request) for request in requests]

    def verify(self, requests: Sequence[Verify]) -> list[float | JudgeError]:
        """The probability of "Yes" against "No" for each claim."""
        asked = [_asked(request.record, request.claim) for request in requests]
        return each(asked, self._probabilities, self.batch_size)

    def rewrite(self, requests: Sequence[Rewrite]) -> list[str | None]:
        """The text without the sentences that are wrong; None where more is asked for."""
        return [SentenceWriter(self.lexicon)(request) for request in requests]

    def rate(self, requests: Sequence[Rate]) -> list[float | JudgeError]:
        """The mean probability that a sentence of the answer is true; 0 for an answer without sentences."""
        return [self._rate(request) for request in requests]

    def _findings(self, request: Detect) -> Findings | JudgeError:
        faults, start = [], 0
        parts = sentences(request.text)
        try:
            verdicts = self._verdicts([_asked(request.record, part.strip()) for part in parts])
        except UserError as error:
            return JudgeError(str(error), "judge-refused", "shorten the text, or take another judge")
        for part, said in zip(parts, verdicts, strict=True):
            try:
                verdict = read_verdict(said)
            except ValueError as error:
                return JudgeError(f"{self.name}: {error}", "judge-unreadable", "train the verifier longer")
            if verdict is not None:
                faults.append(Fault(verdict[0], start, start + len(part.rstrip()), verdict[1]))
            start += len(part)
        return Findings(faults=tuple(faults))

    def _rate(self, request: Rate) -> float | JudgeError:
        asked = [_asked(request.record, part.strip()) for part in sentences(request.text)]
        scores = each(asked, self._probabilities, self.batch_size)
        if failed := next((score for score in scores if isinstance(score, JudgeError)), None):
            return failed
        return sum(score for score in scores if not isinstance(score, JudgeError)) / max(len(scores), 1)

    def _probabilities(self, asked: Sequence[Scorable]) -> list[float]:
        import torch

        from veridical.vlm.scores.scoring import next_token_logprobs

        with torch.no_grad():
            scores = next_token_logprobs(self.vlm, self._encoded(asked), ("Yes", "No"))
        yes: list[float] = scores.softmax(-1)[:, 0].tolist()
        return yes

    def _verdicts(self, asked: Sequence[Scorable]) -> list[str]:
        """What the verifier says: "Yes." where that is likelier than "No", else the likeliest class and its reason.

        Classes are chosen, not spelled: a small tokenizer takes "object" apart, and one wrong letter would spoil it.
        """
        batches = (asked[start : start + self.batch_size] for start in range(0, len(asked), self.batch_size))
        return [said for batch in batches for said in self._together(batch)]

    def _together(self, asked: Sequence[Scorable]) -> list[str]:
        import torch

        from veridical.vlm.generation.generate import generate
        from veridical.vlm.generation.params import Branch, SamplingParams
        from veridical.vlm.scores.scoring import next_token_logprobs, score

        prefix = self._encoded(asked)
        with torch.no_grad():
            wrong = [no >= yes for yes, no in next_token_logprobs(self.vlm, prefix, ("Yes", "No")).tolist()]
            scores = score(self.vlm, prefix, [_OPENINGS if one else () for one in wrong])
        said = [RIGHT] * len(asked)
        for place, rated in enumerate(scores):
            if rated:
                # Without the last token, which ends the turn.
                likeliest = max(range(len(rated)), key=[float(one[:-1].sum()) for one in rated].__getitem__)
                said[place] = _OPENINGS[likeliest]
        branches = [Branch(place, ("verifier",), said[place]) for place, one in enumerate(wrong) if one]
        for branch, tail in zip(
            branches, generate(self.vlm, prefix, branches, SamplingParams(_LONGEST, 0.0)), strict=True
        ):
            said[branch.context] += tail.text.rstrip()
        return said

    def _encoded(self, asked: Sequence[Scorable]) -> Prefix:
        import torch

        from veridical.vlm.inputs.context import Context
        from veridical.vlm.prefix.encode import encode

        with torch.no_grad():
            return encode(
                self.vlm,
                [Context(request.images, request.prompt, key=("verifier", request.record_id)) for request in asked],
            )


def _asked(record: Record, sentence: str) -> Scorable:
    return Scorable(record.images, question(sentence), "", record.id)


@dataclass(frozen=True)
class VerifierSettings:
    """Judge by a trained verifier."""

    name: Literal["verifier"] = "verifier"
    """Which judge: a verifier checks sentence by sentence, and gives class and reason of what is wrong."""
    model: str = field(default="", metadata=BY_CONTENT)
    """The run folder of `veridical judge train verifier`."""
    batch_size: Positive = field(default=8, metadata=INCIDENTAL)
    """Sentences checked at a time."""
    device: str = field(default="auto", metadata=INCIDENTAL)
    """Where it runs: auto, cpu, cuda, ...."""

    def open(self, context: JudgeContext) -> Verifier:
        """Load the judge. Raises UserError where that is not possible."""
        folder = Path(self.model).expanduser()
        if not self.model or not (folder / VERIFIER).is_file():
            raise UserError(
                f"judge.model {self.model!r}: is no run folder of `veridical judge train verifier`, which the verifier "
                "needs."
            )
        about = read_state(folder / VERIFIER, {"model": str}, "train it again")
        verifier = load_verifier(folder, about["model"], self.device, self.batch_size)
        return replace(verifier, lexicon=context.words.lexicon) if context.words else verifier


def load_verifier(folder: Path, model: str, device: str = "auto", batch_size: int = 8) -> Verifier:
    """The verifier whose adapter lies in a training's folder. Raises UserError where the model doesn't fit."""
    from veridical.vlm.load import load

    vlm = load(model, adapter=folder / "training" / "adapter", device=device)
    return Verifier(f"verifier:{vlm.fingerprint[:12]}", vlm, batch_size)
