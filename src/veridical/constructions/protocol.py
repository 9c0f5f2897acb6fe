"""How a construction is written: for one record, from top to bottom, yielding what it needs to know.

A construction is a generator. It yields a request (an answer of the model, a judge's findings), receives the
answer, and returns its pairs or the reason why there are none. `veridical.build` runs many records side by
side and gathers their requests into batches, so the procedure itself knows nothing of batches.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from veridical.judges.interface import JudgeRequest
from veridical.records import Pair, Provenance, Record, Reject, Turn
from veridical.vlm.inputs import Context
from veridical.vlm.sampling import Sampling

Key: TypeAlias = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """Asks the model for one answer a key, all to the same images and prompt. Answered with a list of
    `Answer`.

    A key seeds its answer's draws, so that they depend on nothing else.
    """

    context: Context
    keys: tuple[Key, ...]
    sampling: Sampling


@dataclass(frozen=True, slots=True)
class Answer:
    """A text of the model, and whether the model ended it itself rather than being cut off."""

    text: str
    finished: bool


Request: TypeAlias = Sample | JudgeRequest
Steps: TypeAlias = Generator[Request, Any, list[Pair] | Reject]


def make_pair(
    record: Record,
    construction: str,
    variant: str,
    chosen: tuple[str, str],
    rejected: tuple[str, str],
    *,
    parameters: Mapping[str, Any],
    seed: int,
    attempts: int = 1,
    scores: Mapping[str, float] | None = None,
    prompt: Sequence[Turn] | None = None,
) -> Pair:
    """A pair of a record; `chosen` and `rejected` are (text, where it comes from).

    The builder, which knows the model and the judge, writes their names into the provenance.
    """
    return Pair(
        id=f"{record.id}/{construction}/{variant}",
        record_id=record.id,
        images=record.images,
        prompt=tuple(prompt or record.prompt),
        chosen=chosen[0],
        rejected=rejected[0],
        provenance=Provenance(
            construction=construction,
            variant=variant,
            parameters=parameters,
            seed=seed,
            model="",
            attempts=attempts,
            chosen_source=chosen[1],
            rejected_source=rejected[1],
            scores=scores or {},
        ),
    )
