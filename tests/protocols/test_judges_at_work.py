"""Captions of a model judged by a verifier and by an object detector, from `evaluate` to results.json."""

import json
from pathlib import Path

import pytest
import torch
from tests.judges.detectors import tiny_detr
from tests.models import tiny_llava

from veridical.files import write_json
from veridical.judges.detector import DetectorSettings
from veridical.judges.interface import Presence, Verify, truth_of
from veridical.judges.lexicon_sources import Words
from veridical.judges.registry import JudgeContext
from veridical.judges.verifier import VERIFIER, VerifierSettings
from veridical.protocols.asked import read_tasks
from veridical.protocols.config import EvalConfig
from veridical.protocols.evaluation import evaluate
from veridical.vlm.load import attach_lora, load
from veridical.vlm.model.adapters import LoraSettings, save_trained
from veridical.world.vocabulary import CLASSES


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny_llava(tmp_path_factory.mktemp("models") / "model")


def run(model: Path, out: Path, judge) -> tuple[EvalConfig, dict, list[dict]]:
    key = "chair-detector" if isinstance(judge, DetectorSettings) else "judged-sentences"
    config = EvalConfig(
        out=out, models=(str(model),), records="world:dev", limit=4, protocols=(key,), judge=judge, max_new_tokens=24
    )
    results = evaluate(config)
    rows = [json.loads(line) for line in (out / "items" / "base" / f"{key}.jsonl").read_text().splitlines()]
    return config, results, rows


def test_a_verifier_judges_every_sentence(model, tmp_path):
    """Each verdict is that of the verifier asked by itself."""
    vlm = attach_lora(load(model), LoraSettings(), seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in vlm.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.3, generator=generator)
    save_trained(vlm, tmp_path / "verifier" / "training" / "adapter")
    write_json(tmp_path / "verifier" / VERIFIER, {"model": str(model)})
    settings = VerifierSettings(model=str(tmp_path / "verifier"))
    config, results, rows = run(model, tmp_path / "run", settings)
    assert results["protocols"]["judged-sentences"].startswith("judged-sentences/1 by verifier:")
    assert results["models"]["base"]["judged_failed"]["value"] == 0
    assert all(row["sentences"] for row in rows)
    records, verifier = read_tasks(config).pictures.by_id, settings.open(JudgeContext(None, None))
    for row in rows:
        claims = [row["caption"][one["start"] : one["end"]] for one in row["sentences"]]
        asked = verifier.verify([Verify(records[row["id"]], claim) for claim in claims])
        assert [one["verdict"] for one in row["sentences"]] == [truth_of(probability) for probability in asked]


def test_a_detector_says_what_is_there(model, tmp_path):
    """What it sees is what counts as there; a name that it has no label for is unknown."""
    folder, labels = tiny_detr(tmp_path / "detr"), ["N/A", *CLASSES[:3]]
    content = json.loads((folder / "config.json").read_text())
    own = {"id2label": dict(enumerate(labels)), "label2id": {name: place for place, name in enumerate(labels)}}
    (folder / "config.json").write_text(json.dumps({**content, **own}))
    settings = DetectorSettings(model=str(folder), present=0.3, absent=0.2, cache=tmp_path / "cache")
    config, results, rows = run(model, tmp_path / "run", settings)
    assert "detr" in results["protocols"]["chair-detector"]
    assert set(results["models"]["base"]) >= {"detector_chair_s", "detector_recall", "detector_unknown"}
    pictures = read_tasks(config).pictures
    judge = settings.open(JudgeContext(Words(pictures.vocabulary.lexicon, {}), None))
    seen = judge.presence([Presence(pictures.by_id[row["id"]], tuple(CLASSES)) for row in rows])
    for row, found in zip(rows, seen, strict=True):
        assert row["truth"] == sorted(name for name, how in found.items() if how == "present")
