"""A study on a folder of captioned images with a model that isn't the bundled one."""

from __future__ import annotations

import json

import pytest

from models import tiny_llava
from veridical.study.command import StudyConfig, run
from veridical.world.command import WorldConfig
from veridical.world.command import run as write_pictures

STUDY = """\
base:
  model: {model}
  records: {records}
  build: {{held_out: 0.4, lexicon: world}}
  align: {{learning_rate: 1e-3, micro_batch: 4, batch_size: 4, epochs: 1, workers: 0, held_out: 0}}
  eval: {{protocols: [chair-captions], lexicon: world, max_new_tokens: 12}}
axes:
  construction: [{{name: bpo-image, max_new_tokens: 12, keep_unfinished: true}}]
  objective: [dpo, sft]
seeds: [3]
questions:
  - {{compare: {{objective: [dpo, sft]}}, expect: better}}
  - {{compare: {{objective: [dpo, sft]}}, metric: official_pope_f1}}
"""


@pytest.mark.end_to_end
def test_the_same_study_runs_on_images_of_ones_own(tmp_path):
    photos = write_pictures(WorldConfig(out=tmp_path / "photos", split="sft", count=20))
    model = tiny_llava(tmp_path / "model")
    (tmp_path / "study.yaml").write_text(STUDY.format(model=model, records=photos))
    run(StudyConfig(file=tmp_path / "study.yaml", out=tmp_path / "out"))
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["failed"] == []
    assert {name: arm["seeds"] for name, arm in results["arms"].items()} == {"bpo-image.dpo": [3], "bpo-image.sft": [3]}
    answer, unknown = results["answers"]
    assert answer["verdict"] in ("better", "worse", "undecided")
    assert unknown["verdict"] == "not measured"
    assert "these pictures give no 'official_pope_f1'; there are " in unknown["sentence"]
    # All were measured on the images that every build kept back, which no run was trained on.
    kept = json.loads(next((tmp_path / "out" / "builds").glob("*/held_out.json")).read_text())
    assert results["metrics"]["at equal recall"]["pictures"] == len(kept["images"]) > 0
    assert "One training seed" in answer["sentence"]
    assert (tmp_path / "out" / "report.html").stat().st_size > 100_000
