"""Runs the protocols on models: resumable, one model in memory at a time, results and items on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from veridical.align.progress import Line
from veridical.config import save_resolved
from veridical.protocols import chair, items, pope
from veridical.protocols.answering import answer_by_likelihood, answer_by_text, describe_records
from veridical.protocols.command import EvalConfig
from veridical.protocols.models import Measured, measured_models, with_adapter
from veridical.protocols.results import Answers, caption_estimates, summarise
from veridical.protocols.sources import Vocabulary, read_splits, world_vocabulary
from veridical.records import Record
from veridical.vlm.views import Clean, Noise

if TYPE_CHECKING:
    from veridical.vlm.loading import Vlm


def evaluate(config: EvalConfig) -> dict[str, Any]:
    """Everything that results.json holds, which is written to the run folder.

    Raises:
        UserError: a model, adapter, split or setting that is not there, or an `out` of other settings.
    """
    models = measured_models(config.models)
    splits = read_splits(config.records, config.out / "images", config.limit, config.seed)
    vocabulary = world_vocabulary()
    answers: dict[str, Answers] = {}
    fingerprints: dict[str, str] = {}
    vlm: Vlm | None = None
    for model in models:
        vlm = _load(model, config, vlm)
        folder = _claim(config, model, vlm, splits)
        answers[model.name] = _answers(config, vlm, model.name, folder, splits, vocabulary)
        fingerprints[model.name] = vlm.fingerprint
        if model is models[0] and config.noise.steps:
            curve = noise_curve(config, vlm, folder / "noise", splits, vocabulary)
            items.write_json(config.out / "noise.json", {"model": model.name, **curve})
    results = {
        "protocols": {"chair": chair.NAME, "pope": _pope_name(config)},
        "settings": {"chair": _chair_settings(), "pope": {"questions": config.questions}},
        "records": _describe_records(config, splits, answers[models[0].name]),
        "measured": {m.name: _describe_model(m, fingerprints[m.name]) for m in models},
        **summarise(answers, vocabulary, config.seed),
        "by_split": {
            split: summarise(
                {n: a.among(frozenset(r.id for r in records)) for n, a in answers.items()},
                vocabulary,
                config.seed,
            )
            for split, records in splits.items()
        },
    }
    save_resolved(config, config.out / "config.yaml")
    items.write_json(config.out / "results.json", results)
    return results


def noise_curve(
    config: EvalConfig, vlm: Vlm, folder: Path, splits: Mapping[str, Sequence[Record]], vocabulary: Vocabulary
) -> dict[str, Any]:
    """CHAIR's metrics of captions of noised images, with intervals: {"points": [one for each noise step], ...}."""
    records = [record for split in splits.values() for record in split[: config.noise.limit]]
    space, temperature = config.noise.space, config.noise.temperature
    settings = {"space": space, "temperature": temperature, "records": len(records)}
    items.claim(folder, {"fingerprint": vlm.fingerprint, **settings})
    points = []
    with Line("noised images", len(records) * len(config.noise.steps)) as line:
        for step in config.noise.steps:
            captions = items.collect(
                folder / f"chair-{step:03d}.jsonl",
                records,
                config.batch,
                partial(_describe, vlm, vocabulary, Noise(step, space), temperature),
                chair.item_from_row,
                line.advance,
            )
            points.append({"step": step, **caption_estimates(captions, vocabulary, config.seed)})
    return {"protocol": chair.NAME, **settings, "points": points}


def _answers(
    config: EvalConfig,
    vlm: Vlm,
    name: str,
    folder: Path,
    splits: Mapping[str, Sequence[Record]],
    vocabulary: Vocabulary,
) -> Answers:
    records = [record for split in splits.values() for record in split]
    with Line(f"{name}: captions", len(records)) as line:
        captions = items.collect(
            folder / "chair.jsonl",
            records,
            config.batch,
            partial(_describe, vlm, vocabulary, Clean(), 0.0),
            chair.item_from_row,
            line.advance,
        )
    answer = answer_by_likelihood if config.answers == "likelihood" else answer_by_text
    with Line(f"{name}: questions", len(records)) as line:
        yes_no = items.collect(
            folder / "pope.jsonl",
            records,
            config.batch,
            lambda batch: answer(vlm, batch, vocabulary, config.questions, config.seed),
            pope.item_from_row,
            line.advance,
        )
    return Answers(captions, yes_no)


def _describe(
    vlm: Vlm, vocabulary: Vocabulary, view: Clean | Noise, temperature: float, batch: Sequence[Record]
) -> list[chair.ChairItem]:
    return describe_records(vlm, batch, vocabulary, view, temperature)


def _load(model: Measured, config: EvalConfig, before: Vlm | None) -> Vlm:
    """The model to measure next: an adapter goes onto the base in memory while that has none yet."""
    from veridical.vlm.loading import load

    if model.adapter and before and before.name == model.model and not hasattr(before.model, "peft_config"):
        return with_adapter(before, model.adapter)
    return load(model.model, adapter=model.adapter, dtype=config.dtype, device=config.device)


def _claim(config: EvalConfig, model: Measured, vlm: Vlm, splits: Mapping[str, Sequence[Record]]) -> Path:
    """The folder of this model's answers; answers of other settings in it are refused."""
    folder = config.out / "items" / model.name
    key = {
        "protocols": [chair.NAME, _pope_name(config)],
        "records": config.records,
        "limit": config.limit,
        "seed": config.seed,
        "questions": config.questions,
        "dtype": str(vlm.model.dtype),
        "images": items.digest(i.sha256 for split in splits.values() for r in split for i in r.images),
        "fingerprint": vlm.fingerprint,
    }
    if items.claim(folder, key):
        print(f"{model.name}: its weights changed since it was measured here; measuring again")
    return folder


def _pope_name(config: EvalConfig) -> str:
    return pope.NAME if config.answers == "likelihood" else pope.TEXT_NAME


def _chair_settings() -> dict[str, Any]:
    return {"prompt": chair.PROMPT, "decoding": "greedy", "max_new_tokens": chair.MAX_NEW_TOKENS}


def _describe_records(config: EvalConfig, splits: Mapping[str, Sequence[Record]], base: Answers) -> dict[str, Any]:
    asked = {item.id for item in base.yes_no}
    return {
        "source": config.records,
        "seed": config.seed,
        "limit": config.limit,
        "count": sum(map(len, splits.values())),
        "splits": {split: len(records) for split, records in splits.items()},
        "without_questions": sum(r.id not in asked for records in splits.values() for r in records),
    }


def _describe_model(model: Measured, fingerprint: str) -> dict[str, Any]:
    return {**asdict(model), "adapter": model.adapter and str(model.adapter), "fingerprint": fingerprint}
