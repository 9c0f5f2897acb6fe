"""A small study, run whole once: an arm that works, and one that can't have as many pairs as it wants."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from veridical.study.command import StudyConfig, run

STUDY = """\
title: A small <study>
base:
  records: world:sft
  limit: 16
  align: {learning_rate: 1e-3, micro_batch: 8, batch_size: 8, epochs: 1, workers: 0, held_out: 0}
  eval: {limit: 5, questions: 1}
axes:
  size:
    - 8
    - {label: too-many, name: 99999}
  construction:
    - {name: bpo-image, temperature: 0.7}
seeds: [0]
questions:
  - {ask: "Does it invent less?", compare: {size: [8, base]}, expect: better}
  - {ask: "Does a larger set help?", compare: {size: [too-many, 8]}}
"""


@pytest.fixture(scope="session")
def study_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    (folder / "study.yaml").write_text(STUDY)
    run(StudyConfig(file=folder / "study.yaml", out=folder / "out"))
    return folder


@pytest.fixture(scope="session")
def results(study_folder) -> dict:
    return json.loads((study_folder / "out" / "results.json").read_text())
