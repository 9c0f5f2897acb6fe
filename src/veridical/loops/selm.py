"""SELM's rounds (Zhang et al. 2024, arXiv 2405.19332, algorithm 1): the policy's own answer joins a known pair.

Each round takes its part of the known pairs. The policy of the round before answers each prompt greedily; a judge rates
that answer, the known chosen one and the known rejected one; the best becomes chosen, the worst rejected, and the own
answer stands as the third, which the objective `selm` with `own other` is optimistic about.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from veridical.constructions.protocol import Answer, Rejected, Sample, Steps
from veridical.errors import UserError
from veridical.judges.interface import Rate
from veridical.records import FurtherAnswer, Pair, Provenance, Record
from veridical.vlm.generation.params import SamplingParams
from veridical.vlm.inputs.context import Context

if TYPE_CHECKING:
    from veridical.pairs.command import BuildConfig

NAME = "selm-rounds"
OWN = "own greedy answer of this round"
LONGEST = 256


def steps(pair: Pair, record: Record) -> Steps:
    """A known pair ranked again with the policy's own answer."""
    context = Context(pair.images, pair.prompt, key=(pair.id,))
    own: Answer
    [own] = yield Sample(context, keys=((pair.id,),), sampling=SamplingParams(LONGEST, 0.0))
    if not own.text.strip():
        raise Rejected("empty-answer", "look at the model's answers to this prompt", "its own answer is empty")
    texts = {own.text.strip(): OWN, pair.rejected: "known rejected", pair.chosen: "known chosen"}
    rates: dict[str, float] = {}
    for text in texts:
        rates[text] = yield Rate(record, pair.prompt, text)
    worst, best = min(texts, key=rates.__getitem__), max(reversed(texts), key=rates.__getitem__)
    if rates[best] <= rates[worst]:
        raise Rejected("no-margin", "take a finer judge", "the judge rates all answers alike")
    made = Provenance(
        NAME,
        "ranked",
        {},
        0,
        "",
        chosen_source=texts[best],
        rejected_source=texts[worst],
        scores={"margin": rates[best] - rates[worst]},
    )
    third = FurtherAnswer(own.text.strip(), OWN, rates[own.text.strip()])
    return [
        replace(pair, id=f"{pair.id}/selm", chosen=best, rejected=worst, spans=None, provenance=made, others=(third,))
    ]


def round_of(pairs: Sequence[Pair], number: int, rounds: int) -> list[Pair]:
    """The part of the known pairs that round `number`, from 0, takes: as even as can be, in their order."""
    return list(pairs[len(pairs) * number // rounds : len(pairs) * (number + 1) // rounds])


def write_round(built: BuildConfig, known: Sequence[Pair], out: Path) -> None:
    """Rank a round's pairs again with the policy that `built` names, and write them as pairs. Raises UserError where no
    pair comes out, and for pairs on other records than the build's."""
    from veridical.pairs import shards
    from veridical.pairs.dataset import write_build
    from veridical.pairs.engine import Engine
    from veridical.pairs.runner import run_concurrently

    if (out / "pairs").exists():
        return
    records = shards.read(built, out / "records")
    source = shards.open_source(built, records.items)
    source.panel.require([Rate], "loop --kind selm")
    by_id = {record.id: record for record in source.records}
    if absent := [pair.record_id for pair in known if pair.record_id not in by_id]:
        raise UserError(f"{built.records}: holds no record {absent[0]}; give the records that --offline was built on.")
    engine = Engine(source.generator(), source.panel)
    starts: Iterator[tuple[int, str, Steps]] = (
        (place, pair.id, steps(pair, by_id[pair.record_id])) for place, pair in enumerate(known)
    )
    outcomes = dict(run_concurrently(starts, engine, built.batch_size, engine.expect))
    made = [pair for _, outcome in sorted(outcomes.items()) if isinstance(outcome, list) for pair in outcome]
    if not made:
        raise UserError(f"{out}: none of {len(known)} known pairs could be ranked with the model's own answer.")
    write_build(out, made)
