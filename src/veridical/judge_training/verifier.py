"""`veridical judge train verifier`: a small model learns to check sentences from a stronger judge's findings.

After FineSumFact (arXiv 2412.10689): the judge reads the texts of a build sentence by sentence and says what is wrong
with each, of which class and why; an adapter is trained to say the same. How far it agrees with the judge is measured
on sentences about records that it was not trained on, as balanced accuracy: the mean of the share of right sentences
that it passes and of wrong ones that it finds.

OUT/feedback    what the judge found, as pairs     OUT/training    a `veridical align` on them, by SFT
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Gt, Lt

from veridical import runs
from veridical.align import command as align
from veridical.align.config import AlignConfig
from veridical.align.run_folder import pairs_digest
from veridical.bounds import AboveZero, Positive, Seed
from veridical.config import chosen
from veridical.errors import UserError
from veridical.files import naming, read_state, write_json, write_json_lines
from veridical.intervals import wilson
from veridical.judge_training.build_records import build_records
from veridical.judge_training.reward_probe import is_held_out
from veridical.judges import registry as judges
from veridical.judges.interface import Detect, FaultKind, Findings, JudgeError, Verify
from veridical.judges.lexicon_sources import find_words
from veridical.judges.panel import Panel
from veridical.judges.sentences import sentences
from veridical.judges.verifier import VERIFIER, Verifier, load_verifier, question, verdict
from veridical.objectives.sft import Sft
from veridical.records import Pair, Provenance, Record
from veridical.runs import INCIDENTAL
from veridical.vlm.model.adapters import LoraSettings
from veridical.vlm.seeds import generator
from veridical.world.bundled import is_bundled

COMMAND = "judge train verifier"
_ASKED_AT_A_TIME = 64


@dataclass(frozen=True, kw_only=True)
class VerifierConfig:
    """Train a verifier on what a judge finds in the texts of a build."""

    pairs: Path = field(metadata=INCIDENTAL)
    """The run folder of a build; its records are read again, and its texts are what the judge checks."""
    out: Path = field(metadata=INCIDENTAL)
    """The folder to write; give it as --judge.model to judge with the verifier."""
    model: str = "bundled"
    """The model that learns to verify."""
    judge: Any = None
    """Who teaches. --judge.name picks it."""
    lora: LoraSettings = field(default_factory=LoraSettings)
    """The adapter."""
    learning_rate: AboveZero | None = None
    """Peak rate; left out, 2e-4, and 4e-3 for the small `bundled`."""
    epochs: Positive = 4
    """Passes over the sentences."""
    batch_size: Positive = 16
    """Sentences in an optimiser step."""
    held_out: Annotated[float, Gt(0), Lt(1)] = 0.2
    """Share of the records whose sentences are kept for measuring."""
    seed: Seed = 0
    """Picks the records that are held out and the sentences that balance the classes."""
    device: str = field(default="auto", metadata=INCIDENTAL)
    """Where the model runs: auto, cpu or cuda."""


def config_type(choices: Mapping[str, str]) -> type[VerifierConfig]:
    """VerifierConfig with the settings of the judge that `choices["judge.name"]` names; the oracle by default."""
    name = choices.get("judge.name", "oracle")
    settings = judges.settings_type(name)
    return dataclasses.make_dataclass(
        "VerifierConfig",
        [("judge", settings, chosen(settings, name, judges.JUDGES.names()))],
        bases=(VerifierConfig,),
        frozen=True,
        kw_only=True,
        namespace={"__doc__": VerifierConfig.__doc__},
    )


@dataclass(frozen=True, slots=True)
class CheckedSentence:
    """A sentence about a record, and what the judge found: the class and reason of its first fault, or nothing."""

    record: Record
    sentence: str
    kind: FaultKind | None
    reason: str


def run(config: VerifierConfig) -> Path:
    """Ask the judge, train, measure, print, and return the folder. The same command continues.

    Raises UserError for a build or a judge that is of no use, and for too few sentences of either sort.
    """
    if (config.out / VERIFIER).exists():
        runs.check(config.out, COMMAND, config)
    else:
        with runs.opened(config.out, COMMAND, config) as folder:
            folder.settle({"pairs": pairs_digest(config.pairs)})
            _train(config)
    about = read_state(config.out / VERIFIER, {"held_out": dict, "interval": list})
    with naming(config.out / VERIFIER, "delete it, and run the same command again"):
        score, (low, high) = about["balanced_accuracy"], about["interval"]
        held_out = about["held_out"]
        print(
            f"{config.out}: balanced accuracy {100 * score:.1f} % [{100 * low:.1f}, {100 * high:.1f}] on "
            f"{held_out['right']} right and {held_out['wrong']} wrong held-out sentences (chance: 50 %). Of the "
            f"{held_out['caught']} wrong ones that it finds it names the class of "
            f"{100 * about['class_accuracy']:.1f} % (always the commonest class: {100 * about['class_chance']:.1f} %; "
            f"not to be read: {100 * about['unreadable']:.1f} %). Teacher: {about['teacher']}."
        )
    return config.out


def _train(config: VerifierConfig) -> None:
    from veridical.pairs.dataset import write_build

    settings = judges.settings_type("oracle")() if config.judge is None else config.judge
    records, panel = _records(config, settings)
    checks, failed = checked(config.pairs, records, panel)
    out = [is_held_out(check.record.id, config.held_out, config.seed) for check in checks]
    learnt = balanced([item for item, kept in zip(checks, out, strict=True) if not kept], config.seed)
    measured = balanced([item for item, kept in zip(checks, out, strict=True) if kept], config.seed)
    if not learnt or not measured:
        raise UserError(
            f"{config.pairs}: {len(checks)} sentences were checked, too few of them right, or too few wrong, to train "
            "on some and measure on others. Build more pairs."
        )
    teacher = panel.names([Detect])
    write_build(config.out / "feedback", [_pair(i, item, teacher) for i, item in enumerate(learnt)])
    write_json_lines(config.out / "held-out.jsonl", [_row(item) for item in measured])
    align.run(_alignment(config))
    measures = measure(load_verifier(config.out, config.model, config.device), measured)
    counts = {"sentences": len(checks), "judge_failures": failed, "trained_on": len(learnt)}
    about = {"model": config.model, "teacher": teacher, "judges": panel.usage()} | counts | measures
    write_json(config.out / VERIFIER, about)


def _records(config: VerifierConfig, settings: judges.AnyJudgeSettings) -> tuple[dict[str, Record], Panel]:
    """The records of the build, by id, and the judge of them."""
    records, world, lexicon = build_records(config.pairs, config.out)
    if not records:
        raise UserError(f"{config.pairs}: is no finished `veridical build`; no manifest.json names its records.")
    words = find_words(lexicon, world, list(records.values()))
    panel = judges.open_panel(settings, judges.Same(), judges.JudgeContext(words))
    panel.require([Detect], "A verifier's teacher")
    return records, panel


def checked(pairs: Path, records: Mapping[str, Record], panel: Panel) -> tuple[list[CheckedSentence], int]:
    """Every distinct sentence of a build's texts with what the judge finds in it; and how many texts it failed on."""
    from veridical.pairs.dataset import read_pairs

    texts = {
        (pair.record_id, text): None
        for pair in read_pairs(pairs)
        for text in (pair.chosen, pair.rejected)
        if pair.record_id in records and pair.prompt == records[pair.record_id].prompt
    }
    requests = [Detect(records[record_id], text) for record_id, text in texts]
    checks: dict[tuple[str, str], CheckedSentence] = {}
    failed = 0
    for start in range(0, len(requests), _ASKED_AT_A_TIME):
        batch = requests[start : start + _ASKED_AT_A_TIME]
        for request, answer in zip(batch, panel.answer(batch), strict=True):
            if isinstance(answer, JudgeError):
                failed += 1
                continue
            for item in _by_sentence(request, answer):
                checks.setdefault((item.record.id, item.sentence), item)
    return list(checks.values()), failed


def _by_sentence(request: Detect, findings: Findings) -> Iterator[CheckedSentence]:
    start = 0
    for part in sentences(request.text):
        fault = next((f for f in findings.faults if start <= f.start < start + len(part)), None)
        yield CheckedSentence(
            request.record, part.strip(), fault.kind if fault else None, fault.reason if fault else ""
        )
        start += len(part)


def balanced(found: Sequence[CheckedSentence], seed: int) -> list[CheckedSentence]:
    """As many right sentences as wrong ones, drawn from the more numerous sort; in the order given."""
    right = [item for item in found if item.kind is None]
    wrong = [item for item in found if item.kind is not None]
    count = min(len(right), len(wrong))
    kept = {
        id(group[place])
        for name, group in (("right", right), ("wrong", wrong))
        for place in generator("balance", (seed, name)).permutation(len(group))[:count]
    }
    return [item for item in found if id(item) in kept]


def _pair(number: int, one: CheckedSentence, teacher: str) -> Pair:
    """What the judge found as a pair; only its chosen side is learnt."""
    right = one.kind is None
    rejected = verdict("other", "it is wrong") if right else verdict(None, "")
    return Pair(
        id=f"{one.record.id}/verdict/{number}",
        record_id=one.record.id,
        images=one.record.images,
        prompt=question(one.sentence),
        chosen=verdict(one.kind, one.reason),
        rejected=rejected,
        provenance=Provenance("verifier", one.kind or "right", {}, 0, "", judge=teacher),
    )


def _row(one: CheckedSentence) -> dict[str, Any]:
    return {"record": one.record.id, "sentence": one.sentence, "kind": one.kind, "reason": one.reason}


def _alignment(config: VerifierConfig) -> AlignConfig:
    rate = 4e-3 if is_bundled(config.model) else 2e-4
    return align.config_type({"objective.name": "sft"})(
        pairs=config.out / "feedback",
        out=config.out / "training",
        model=config.model,
        objective=Sft(),
        lora=config.lora,
        learning_rate=rate if config.learning_rate is None else config.learning_rate,
        epochs=config.epochs,
        held_out=0.0,
        batch_size=config.batch_size,
        micro_batch=config.batch_size,
        seed=config.seed,
        device=config.device,
    )


def measure(verifier: Verifier, held_out: Sequence[CheckedSentence]) -> dict[str, Any]:
    """Balanced accuracy by "Yes" against "No", with Wilson's interval; and of the errors found so, for how many the
    verdict in words has the right class, how many are of the commonest class, and how many verdicts can't be read.

    The interval takes the sentences for one sample, which they are: there are as many right as wrong ones.
    """
    scores = verifier.verify([Verify(item.record, item.sentence) for item in held_out])
    passed = [not isinstance(score, JudgeError) and score > 0.5 for score in scores]
    right = [ok for ok, item in zip(passed, held_out, strict=True) if item.kind is None]
    caught = [not ok for ok, item in zip(passed, held_out, strict=True) if item.kind is not None]
    classified = [item for item, ok in zip(held_out, passed, strict=True) if item.kind is not None and not ok]
    named = [_named(verifier, item) for item in classified]
    kinds = Counter(item.kind for item in classified)
    return {
        "balanced_accuracy": round((sum(right) / len(right) + sum(caught) / len(caught)) / 2, 4),
        "interval": wilson(sum(right) + sum(caught), len(held_out)),
        "held_out": {
            "right": len(right),
            "passed": sum(right),
            "wrong": len(caught),
            "caught": sum(caught),
            "kinds": dict(Counter(item.kind for item in held_out if item.kind).most_common()),
        },
        "class_accuracy": _share(named.count(True), len(classified)),
        "class_chance": _share(max(kinds.values(), default=0), len(classified)),
        "unreadable": _share(named.count(None), len(classified)),
    }


def _share(part: int, whole: int) -> float:
    return round(part / whole, 4) if whole else 0.0


def _named(verifier: Verifier, one: CheckedSentence) -> bool | None:
    """Whether the verifier gives a wrong sentence the class that the judge gave it; None where it can't be read."""
    [findings] = verifier.detect([Detect(one.record, one.sentence)])
    return any(fault.kind == one.kind for fault in findings.faults) if isinstance(findings, Findings) else None
