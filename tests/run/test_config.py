"""The settings of `veridical run`: the recipe's as defaults, written out, edited, read again; and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import tyro
import yaml

from veridical.config import dotted, flags, read_yaml, to_plain
from veridical.errors import UserError
from veridical.run.command import run
from veridical.run.config import GIVEN, RunConfig, config_type
from veridical.run.plan import run_plan
from veridical.steps.step import Step
from veridical.study import definition
from veridical.study.plan import plan


def read(path: Path) -> RunConfig:
    """As `veridical run FILE` reads it."""
    settings = read_yaml(path)
    kind = config_type(dotted(settings))
    return tyro.cli(kind, args=flags(settings, kind, path))


def steps(config: RunConfig) -> tuple[Step, ...]:
    return run_plan(config).steps


def parsed(*arguments: str, **choices: str) -> RunConfig:
    return tyro.cli(config_type(choices), args=arguments)


def test_a_recipe_gives_defaults_and_flags_win(tmp_path):
    config = parsed("--records", "world", "--recipe", "demo", "--align.objective.beta", "0.2", recipe="demo")
    build, align = steps(RunConfig(**{**vars(config), "out": tmp_path}))[:2]
    made = to_plain(build.settings)
    assert (made["construction"], made["settings"]["correction"]) == ("balanced-correction", "replace")
    assert made["records"] == "world"
    trained = to_plain(align.settings)
    assert (trained["objective"]["beta"], trained["objective"]["nll_weight"]) == (0.2, 3.0)
    assert trained["pairs"] == made["out"]
    assert Path(made["out"]).parent == tmp_path / "builds"


def test_what_is_written_out_is_read_again_after_an_edit(tmp_path):
    config = parsed("--records", "photos", "--recipe", "bpo-image", "--out", str(tmp_path / "run"), recipe="bpo-image")
    path = tmp_path / "run.yaml"
    assert run(RunConfig(**{**vars(config), "write_config": path})) == path
    again = read(path)
    assert [step.digest(tmp_path) for step in steps(again)] == [step.digest(tmp_path) for step in steps(config)]
    settings = read_yaml(path)
    assert all(name not in settings[step] for step, names in GIVEN.items() for name in names)
    settings["build"]["settings"]["candidates"] = 4
    path.write_text(yaml.safe_dump(settings))
    build = steps(read(path))[0]
    assert build.settings.settings.candidates == 4


def test_judges_and_objectives_bring_their_settings(tmp_path):
    choices = {"build.judge.name": "rules", "align.objective.name": "mdpo", "eval.decoding.name": "vcd"}
    arguments = [word for name, value in choices.items() for word in (f"--{name}", value)]
    config = parsed("--records", "world", "--eval.decoding.alpha", "0.5", *arguments, **choices)
    assert config.build.judge.name == "rules"
    assert config.align.objective.name == "mdpo"
    assert config.eval.decoding.alpha == 0.5


def test_the_control_trains_on_the_same_pairs_and_is_measured_too(tmp_path):
    plain = RunConfig(records="world", out=tmp_path)
    with_control = RunConfig(records="world", out=tmp_path, control=True)
    groups = vars(parsed("--records", "world"))
    first, second = (steps(RunConfig(**{**groups, **_given(one)})) for one in (plain, with_control))
    assert [step.kind for step in first] == ["build", "align", "eval"]
    assert [step.kind for step in second] == ["build", "align", "align", "eval"]
    assert first[:2] == second[:2]
    control = to_plain(second[2].settings)
    assert control["objective"]["name"] == "sft"
    assert control["pairs"] == str(second[0].out)
    models = to_plain(second[3].settings)["models"]
    assert list(models) == ["bundled", f"aligned={second[1].out}", f"sft={second[2].out}"]


def test_a_study_in_the_same_folder_uses_what_a_run_has_done(tmp_path):
    """Pairs and trainings lie under the same names, so a study takes them for its own, and a run a study's."""
    config = parsed("--records", str(tmp_path), "--limit", "20", "--align.objective.beta", "0.2", "--seed", "1",
                    "--out", str(tmp_path / "out"))  # fmt: skip
    base = {"model": "bundled", "records": str(tmp_path), "limit": 20, "construction": "bdhs", "size": "all"}
    given = {"base": base | {"eval": {"protocols": ["chair-captions"]}}, "axes": {"beta": [0.2, 0.3]}, "seeds": [1]}
    study = plan(definition.parse(given), tmp_path / "out")
    ran = run_plan(config)
    assert {step.name: step.digest(tmp_path) for step in ran.steps if step.kind != "eval"}.items() <= {
        step.name: step.digest(tmp_path) for step in study.steps
    }.items()
    assert {step.settings.cache for step in (*ran.steps, *study.steps) if step.kind == "eval"} == {
        tmp_path / "out" / "requests"
    }


def _given(config: RunConfig) -> dict[str, object]:
    return {name: value for name, value in vars(config).items() if name not in ("build", "align", "eval")}


def test_a_wrong_recipe_is_named():
    with pytest.raises(UserError, match="did you mean 'bdhs'"):
        config_type({"recipe": "bdsh"})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--records", "nowhere"), "nowhere: no such folder"),
        (("--records", "broken"), "none of the first 1 records can be used"),
        (("--records", "photos", "--out", "photos/run"), "lies in the folder of records"),
        (("--records", "photos", "--model", "./empty"), "holds no model"),
        (("--records", "photos", "--out", "file"), "is a file"),
        (
            ("--records", "photos", "--build.judge.name", "language-model", "--build.judge.model", "m",
             "--build.judge.url", "http://127.0.0.1:9/v1"),
            "can't be reached",
        ),
    ],
)  # fmt: skip
def test_what_would_fail_late_is_said_at_once(tmp_path, arguments, message):
    from PIL import Image

    for name in ("photos", "broken", "empty"):
        (tmp_path / name).mkdir()
    Image.new("RGB", (32, 32)).save(tmp_path / "photos" / "a.png")
    (tmp_path / "broken" / "a.png").write_bytes(b"no picture")
    (tmp_path / "file").write_text("")
    said = subprocess.run(
        [sys.executable, "-m", "veridical", "run", *arguments],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert said.returncode == 2, said.stderr
    assert message in said.stderr
    assert not list(tmp_path.glob("*/pairs"))
