"""`veridical judge eval`: how often a judge or a reward prefers the better side of labelled pairs.

OUT/judgements.jsonl   what it said of each pair     OUT/judge.json   accuracy, by group, position, length
"""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from veridical import runs
from veridical.bounds import Positive
from veridical.config import chosen
from veridical.errors import UserError
from veridical.files import read_json, write_json
from veridical.judge_training.build_records import build_records
from veridical.judges import registry as judges
from veridical.judges.lexicon_sources import find_words
from veridical.records import ImageFile, Pair, Record
from veridical.runs import BY_CONTENT, INCIDENTAL

if TYPE_CHECKING:
    from veridical.vlm.model.loading import Vlm

COMMAND = "judge eval"
RESULTS, JUDGEMENTS = "judge.json", "judgements.jsonl"
AT_A_TIME = 64


@dataclass(frozen=True, kw_only=True)
class JudgeEvalConfig:
    """Measure a judge or a reward on pairs of which it is known which side is better: veridical judge eval JUDGE."""

    pairs: Path = field(metadata=BY_CONTENT)
    """The labelled pairs: a build, or a file or folder in TRL's shape or a published one, such as VL-RewardBench's."""
    out: Path = field(metadata=INCIDENTAL)
    """The folder to write. The same command continues or, when finished, shows the result."""
    judge: Any = None
    """Who judges. --judge.name, or the first word, picks it."""
    by: Literal["auto", "compare", "rate", "detect"] = "auto"
    """What the judge is asked: which of two is better, a rate of each, or the faults of each; auto is the first that it
    can. Comparisons are asked in both orders, and a judge that changes its mind makes a tie."""
    group: str = "auto"
    """What pairs are grouped by: construction, variant, chosen_source, rejected_source, or something that the source
    says of them, such as VL-RewardBench's group, dataset, query_source. auto is `group` where there is one, else
    construction and variant."""
    limit: Positive | None = None
    """Use the first pairs only."""
    image_root: tuple[Path, ...] = ()
    """Folders that image paths of a published set start from."""
    lexicon: str = "auto"
    """Words for objects, for judges that need some: world, coco80, or a JSON file; auto is the build's."""
    model: str = "bundled"
    """For --judge.name self: the model below --adapter."""
    adapter: Path | None = field(default=None, metadata=BY_CONTENT)
    """For --judge.name self: the adapter whose implicit reward judges."""
    device: str = field(default="auto", metadata=INCIDENTAL)
    """For --judge.name self: where the model runs."""


def config_type(choices: Mapping[str, str]) -> type[JudgeEvalConfig]:
    """JudgeEvalConfig with the settings of the judge that `choices["judge.name"]` names; the oracle by default."""
    name = choices.get("judge.name", "oracle")
    settings = judges.settings_type(name)
    return dataclasses.make_dataclass(
        "JudgeEvalConfig",
        [("judge", settings, chosen(settings, name, judges.JUDGES.names()))],
        bases=(JudgeEvalConfig,),
        frozen=True,
        kw_only=True,
        namespace={"__doc__": JudgeEvalConfig.__doc__},
    )


def run(config: JudgeEvalConfig) -> Path:
    """Judge every pair, print the accuracy, and return the folder. A finished one is only shown.

    Raises UserError for pairs that can't be read and for a judge that can't say which side is better.
    """
    from veridical.judge_eval.table import show

    measure(config)
    show(read_json(config.out / RESULTS))
    return config.out


def measure(config: JudgeEvalConfig) -> None:
    """Judge what is still to be judged, and write the results; a finished folder is left as it is."""
    if (config.out / RESULTS).exists():
        runs.check(config.out, COMMAND, config)
        return
    with runs.opened(config.out, COMMAND, config):
        write_json(config.out / RESULTS, _results(config))


def _results(config: JudgeEvalConfig) -> dict[str, Any]:
    from veridical.judge_eval.comparing import JudgedPair, ask, choose_how
    from veridical.judge_eval.scores import score
    from veridical.pairs.dataset import read_pairs
    from veridical.pairs.opening import pairs_folder
    from veridical.progress import Line

    folder = pairs_folder(config.pairs, config.out, config.image_root)
    pairs = read_pairs(folder)[: config.limit]
    records, words = _records(folder, pairs, config)
    settings = judges.settings_type("oracle")() if config.judge is None else config.judge
    judge = settings.open(judges.JudgeContext(words, functools.cache(lambda: _model(config))))
    if judge is None:
        raise UserError(f"--judge.name {settings.name}: there is nothing to judge by; give --lexicon.")
    how = choose_how(judge, config.by)
    done = {row["pair"]: JudgedPair(**row) for row in _rows(config.out / JUDGEMENTS)}
    left = [pair for pair in pairs if pair.id not in done]
    with Line("pairs", len(pairs), len(pairs) - len(left)) as line:
        for start in range(0, len(left), AT_A_TIME):
            some = left[start : start + AT_A_TIME]
            judged = ask(judge, how, some, records, [group_of(pair, config.group) for pair in some])
            _append(config.out / JUDGEMENTS, judged)
            done |= {judgement.pair: judgement for judgement in judged}
            line.advance(len(some))
    judged = [done[pair.id] for pair in pairs]
    _tell_failures(judged)
    service = getattr(judge, "service", None)
    usage = {} if service is None else {"usage": service.usage.plain()}
    return {"judge": judge.name, "by": how, "source": str(config.pairs), **score(judged), **usage}


def _records(folder: Path, pairs: Sequence[Pair], config: JudgeEvalConfig) -> tuple[dict[str, Record], Any]:
    """For each pair, by its id, what is known of its record, and words for its objects.

    A build's records are read again, with their annotations and references; of other pairs images and prompt are known.
    """
    known, world, lexicon = build_records(folder, config.out)
    records = {}
    for pair in pairs:
        record = known.get(pair.record_id)
        bare = Record(pair.record_id, pair.images, pair.prompt)
        same = record is not None and _hashes(record.images) == _hashes(pair.images)
        records[pair.id] = dataclasses.replace(record, prompt=pair.prompt) if record and same else bare
    words = find_words(lexicon if config.lexicon == "auto" else config.lexicon, world, list(known.values()))
    return records, words


def _hashes(images: Sequence[ImageFile]) -> list[str]:
    return [image.sha256 for image in images]


def _model(config: JudgeEvalConfig) -> Vlm:
    from veridical.vlm.load import load

    return load(config.model, adapter=config.adapter, device=config.device)


def group_of(pair: Pair, by: str) -> str:
    """The group that a pair is counted in. Raises UserError for something that the pair doesn't state."""
    about = pair.provenance
    if by == "auto":
        own = about.parameters.get("group")
        return str(own) if own else "/".join(part for part in (about.construction, about.variant) if part)
    stated = {**about.parameters, **{name: getattr(about, name) for name in _STATED}}
    if by not in stated:
        raise UserError(f"--group {by}: pair {pair.id} doesn't state this; it states {', '.join(sorted(stated))}.")
    return str(stated[by])


_STATED = ("construction", "variant", "chosen_source", "rejected_source", "judge", "model")


def _rows(path: Path) -> list[dict[str, Any]]:
    """The whole lines of judgements that were made before an interruption."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    rows = [json.loads(line) for line in lines]
    return [row | {"orders": None if row["orders"] is None else tuple(row["orders"])} for row in rows]


def _append(path: Path, judged: Sequence[Any]) -> None:
    kept = path.read_text(encoding="utf-8").rpartition("\n") if path.exists() else ("", "", "")
    if kept[2]:  # half a line, left by a crash
        path.write_text(kept[0] + kept[1], encoding="utf-8")
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(json.dumps(judgement.plain(), ensure_ascii=False) + "\n" for judgement in judged))


def _tell_failures(judged: Sequence[Any]) -> None:
    failed = [judgement for judgement in judged if judgement.failed]
    if failed:
        print(f"{len(failed)} pairs got no answer; for one, {failed[0].pair}: {failed[0].failed}", file=sys.stderr)
