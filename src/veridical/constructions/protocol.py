"""How a construction is written: for one record, from top to bottom, yielding what it needs to know.

A construction is a generator. It yields a request (an answer of the model, a judge's findings), receives the
answer, and returns its pairs or raises `Rejected`, which says why there are none. `veridical.pairs` runs many records
side by side and gathers their requests into batches, so the procedure itself knows nothing of batches; and it writes
into each pair which construction, settings, seed and model made it.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from veridical.config import to_plain
from veridical.edits import edit_spans
from veridical.judges.interface import JudgeRequest
from veridical.records import Message, Pair, Provenance, Record, Spans
from veridical.vlm.generation.params import SamplingParams
from veridical.vlm.inputs.context import Context

Key: TypeAlias = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """Asks the model for one answer a key, all to the same images and prompt. Answered with a list of
    `Answer`.

    A key seeds its answer's draws, so that they depend on nothing else. `after` holds, for each key, what the answer
    has said already; the model continues them. A text to continue ends without a space, for words bring the
    space before them.
    """

    context: Context
    keys: tuple[Key, ...]
    sampling: SamplingParams
    after: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.after and len(self.after) != len(self.keys):
            raise ValueError(f"{len(self.keys)} keys, but {len(self.after)} texts to continue")


@dataclass(frozen=True, slots=True)
class Answer:
    """A text of the model, without what it continues; `finished` unless the limit on its length cut it off."""

    text: str
    finished: bool


@dataclass(frozen=True, slots=True)
class Score:
    """Asks how likely texts are as answers, end of turn included. Answered with a `LogProbs` for each."""

    context: Context
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LogProbs:
    """Log-probabilities of an answer's tokens by the model and by its base, which are one where there is no adapter."""

    policy: tuple[float, ...]
    reference: tuple[float, ...]

    @property
    def log_ratio(self) -> float:
        """log policy(answer) - log base(answer): beta times this is the implicit reward of DPO."""
        return sum(self.policy) - sum(self.reference)


@dataclass(frozen=True, slots=True)
class YesNo:
    """Asks a yes/no question. Answered with the probability of "Yes" among the first tokens "Yes" and "No"."""

    context: Context


@dataclass(frozen=True, slots=True)
class Retrieve:
    """Asks for the records of the build whose images are most like this record's, the most similar first.

    Answered with a list of up to `count` `Record`s, never the record itself or one with the same image. Images are
    compared as the model's vision tower sees them, or by their thumbnails.
    """

    record: Record
    count: int
    by: Literal["embeddings", "thumbnails"] = "thumbnails"


ModelRequest: TypeAlias = Sample | Score | YesNo
Request: TypeAlias = ModelRequest | Retrieve | JudgeRequest
Steps: TypeAlias = Generator[Request, Any, list[Pair]]


class Rejected(Exception):  # noqa: N818
    """Raised by a construction that makes no pair of a record: why (a stable slug), what to do, and what was seen."""

    def __init__(self, reason: str, remedy: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail or remedy}")
        self.reason, self.remedy, self.detail = reason, remedy, detail


def make_pair(
    record: Record,
    variant: str,
    chosen: tuple[str, str],
    rejected: tuple[str, str],
    *,
    attempts: int = 1,
    scores: Mapping[str, float] | None = None,
    parameters: Mapping[str, Any] | None = None,
    prompt: Sequence[Message] | None = None,
    spans: Spans | None = None,
    number: int | None = None,
    open_ended: bool = False,
) -> Pair:
    """A pair of a record; `chosen` and `rejected` are (text, where it comes from).

    `parameters` holds what the settings leave open, such as which view it was; `spans` say where the sides differ, and
    are found by comparing their words if left out; `number` tells apart the pairs of one variant. Construction,
    settings, seed, model and judge are written into the pair by `signed` when it is built.
    """
    place = () if number is None else (str(number),)
    return Pair(
        id="/".join((record.id, variant, *place)),
        record_id=record.id,
        images=record.images,
        prompt=tuple(prompt or record.prompt),
        chosen=chosen[0],
        rejected=rejected[0],
        provenance=Provenance(
            construction="",
            variant=variant,
            parameters=parameters or {},
            seed=0,
            model="",
            attempts=attempts,
            chosen_source=chosen[1],
            rejected_source=rejected[1],
            scores=scores or {},
        ),
        spans=edit_spans(chosen[0], rejected[0]) if spans is None else spans,
        open_ended=open_ended,
    )


def signed(pair: Pair, construction: str, settings: Any, seed: int) -> Pair:
    """The pair with what its construction needn't say: by which construction, settings and seed it was made.

    A pair that names its construction has said so itself, and stays as it is.
    """
    made = pair.provenance
    if made.construction:
        return pair
    parameters = {**to_plain(settings), **made.parameters}
    return replace(
        pair,
        id=f"{pair.record_id}/{construction}{pair.id.removeprefix(pair.record_id)}",
        provenance=replace(made, construction=construction, parameters=parameters, seed=seed),
    )
