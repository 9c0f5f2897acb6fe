"""Recipes: every one can be read and its settings exist; one runs whole; what can't be is refused beforehand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from veridical.cli import COMMANDS, main
from veridical.errors import UserError
from veridical.recipes.recipe import merged, names, recipe
from veridical.recipes.running import RunConfig, prepare, run


@pytest.mark.parametrize("name", names())
def test_every_recipe_names_its_source_and_settings_that_exist(name, tmp_path):
    found = recipe(name)
    assert "arXiv" in found.source
    assert found.title
    for small in (False, True):
        steps = prepare(found, RunConfig(name=name, out=tmp_path / str(small), small=small))
        assert all(step.command in COMMANDS for step in steps)
        for step in steps:
            content = yaml.safe_load(step.settings.read_text())
            # In its small form a recipe asks nobody who is not here.
            assert not small or "http" not in json.dumps(content)
            assert "$" not in json.dumps(content)


def test_a_recipe_runs_whole(tmp_path, capsys):
    out = tmp_path / "out"
    with pytest.raises(SystemExit) as end:
        main(
            [
                "recipe",
                "run",
                "rpo",
                "--out",
                str(out),
                "--small",
                "--limit",
                "6",
                "--set",
                "aligned.objective.tau=0.25",
            ]
        )
    assert end.value.code in (0, None)
    assert (out / "aligned" / "adapter" / "adapter_config.json").exists()
    settings = yaml.safe_load((out / "aligned" / "config.yaml").read_text())
    assert (settings["objective"]["tau"], settings["objective"]["name"]) == (0.25, "rpo")
    assert "MiniLM" in capsys.readouterr().out  # its notes


def test_files_of_ones_own_are_asked_for_before_any_step(tmp_path):
    for name, said in (("pds-dpo", "--set paint.prompts="), ("ha-dpo-minigpt4", "--set aligned.auxiliary.data=")):
        with pytest.raises(UserError, match=said):
            run(RunConfig(name=name, out=tmp_path / name))
        assert not (tmp_path / name / "logs").exists()
    small = prepare(recipe("ha-dpo-minigpt4"), RunConfig(name="ha-dpo-minigpt4", out=tmp_path / "small", small=True))
    aligned = yaml.safe_load(small[1].settings.read_text())
    assert aligned["auxiliary"] == {"data": str(tmp_path / "small" / "pairs"), "weight": 0.5}  # the paper's gamma


def test_lists_and_shows(capsys):
    for arguments in (["recipe", "list"], ["recipe", "list", "--json"], ["recipe", "show", "bpo"]):
        with pytest.raises(SystemExit):
            main(arguments)
    said = capsys.readouterr().out
    assert "sentinel" in said
    assert "construction: bpo-inject" in said


def test_settings_are_merged_and_methods_replaced():
    settings = {"limit": 5, "settings": {"a": 1, "b": 2}, "judge": {"name": "x", "url": "y"}}
    changed = merged(settings, {"limit": None, "settings": {"b": 3}, "judge": {"name": "oracle"}})
    assert changed == {"settings": {"a": 1, "b": 3}, "judge": {"name": "oracle"}}


def test_pairs_that_are_there_take_the_place_of_the_build(tmp_path):
    steps = prepare(recipe("mdpo"), RunConfig(name="mdpo", out=tmp_path, pairs=tmp_path / "given.parquet"))
    assert [step.name for step in steps] == ["aligned"]
    assert yaml.safe_load(steps[0].settings.read_text())["pairs"] == str((tmp_path / "given.parquet").resolve())
    with pytest.raises(UserError, match="builds no pairs"):
        prepare(recipe("rlaif-v"), RunConfig(name="rlaif-v", out=tmp_path, pairs=tmp_path))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("steps: {pairs: {biuld: {}}}", "there are"),
        ("steps: {pairs: {build: {limmit: 3}}}", "limit"),
        ("steps: {aligned: {align: {pairs: $pears}}}", "no step 'pears'"),
        ("steps: {}", "no steps"),
        ("stepps: {}", "stepps"),
        ("steps: {pairs: [build]}", "one command"),
    ],
)
def test_mistakes_in_a_recipe_of_ones_own_are_named_before_work(tmp_path, content, said):
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    with pytest.raises(UserError, match=said):
        run(RunConfig(name=str(path), out=tmp_path / "out"))
    assert not (tmp_path / "out" / "logs").exists()


def test_unknown_names_and_changes_are_refused(tmp_path):
    with pytest.raises(UserError, match="did you mean 'bpo'"):
        recipe("bop")
    with pytest.raises(UserError, match=r"STEP\.SETTING=VALUE"):
        prepare(recipe("bpo"), RunConfig(name="bpo", out=tmp_path, set=("alinged.epochs=1",)))
    dry = run(RunConfig(name="bpo", out=tmp_path / "dry", dry=True, records=str(Path("photos"))))
    assert yaml.safe_load((dry / "settings" / "pairs.yaml").read_text())["records"] == "photos"
