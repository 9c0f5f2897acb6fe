"""Settings files: what is written is read again as the same settings, and mistakes are named."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Literal

import pytest
import tyro
from hypothesis import given, settings
from hypothesis import strategies as st

from veridical.config import flags, home_expanded, read_yaml, save_resolved
from veridical.errors import UserError


@dataclass(frozen=True)
class Objective:
    name: Literal["dpo", "sft"] = "dpo"
    beta: float = 0.1
    label_smoothing: float = 0.0


@dataclass(frozen=True)
class Settings:
    out: Path
    note: str = ""
    adapter: Path | None = None
    stop: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0,)
    train_projector: bool = False
    shuffle: bool = True
    weights: dict[str, float] = field(default_factory=dict)
    objective: Objective = field(default_factory=Objective)


def parse(path: Path, *extra: str) -> Settings:
    return tyro.cli(Settings, args=[*flags(read_yaml(path), Settings, path), *extra])


# What a command line can carry: no surrogates, no NUL; "None" is how tyro spells the absence of a value.
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
words = texts.filter(lambda text: not text.startswith("-"))


@settings(max_examples=50, deadline=None)
@given(
    st.builds(
        Settings,
        out=words.filter(lambda text: text.strip("./ \n")).map(Path),
        note=texts,
        adapter=st.sampled_from([None, Path("a/b"), Path("c d")]),
        stop=st.lists(words).map(tuple) | st.tuples(texts),
        seeds=st.lists(st.integers(), min_size=1).map(tuple),
        train_projector=st.booleans(),
        shuffle=st.booleans(),
        weights=st.dictionaries(st.from_regex(r"\w[\w -]*", fullmatch=True), st.floats(allow_nan=False), max_size=3),
        objective=st.builds(
            Objective,
            name=st.sampled_from(["dpo", "sft"]),
            beta=st.floats(allow_nan=False),
        ),
    )
)
def test_a_saved_config_is_read_again_as_the_same_settings(tmp_path_factory, saved):
    path = tmp_path_factory.mktemp("run") / "config.yaml"
    save_resolved(saved, path)
    assert parse(path) == saved
    assert [file.name for file in path.parent.iterdir()] == ["config.yaml"]


def test_flags_win_over_the_file(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("out: runs/a\ntrain-projector: true\nseeds: [1, 2]\nobjective: {beta: 0.3, name: sft}\n")
    parsed = parse(path, "--objective.beta", "0.5", "--no-train-projector", "--seeds", "7")
    assert parsed == replace(Settings(Path("runs/a")), seeds=(7,), objective=Objective(name="sft", beta=0.5))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("out: a\nobjective: {bta: 1}\n", "unknown setting 'objective.bta'; did you mean 'objective.beta'"),
        ("out: a\nzzz: 1\n", "unknown setting 'zzz'; known here: out, note"),
        ("- 1\n", "holds a list"),
        ("out: [", "not valid YAML"),
        ("out: \xff", "cannot be read"),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=message) as caught:
        parse(path)
    assert str(path) in str(caught.value)


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(UserError, match="no such settings file"):
        read_yaml(tmp_path / "absent.yaml")
    os.mkfifo(tmp_path / "pipe.yaml")
    for path in (tmp_path / "pipe.yaml", tmp_path):
        with pytest.raises(UserError, match="is no file"):
            read_yaml(path)


def test_an_empty_file_sets_nothing(tmp_path):
    path = tmp_path / "empty.yaml"
    path.write_text("")
    assert parse(path, "--out", "x") == Settings(Path("x"))


def test_a_wrong_type_is_refused_by_the_parser(tmp_path, capsys):
    path = tmp_path / "config.yaml"
    path.write_text("out: a\nobjective: {beta: much}\n")
    with pytest.raises(SystemExit) as stopped:
        parse(path)
    assert stopped.value.code == 2
    assert "--objective.beta" in capsys.readouterr().err


def test_a_tilde_is_the_home_folder_in_every_path(monkeypatch):
    @dataclass(frozen=True)
    class Both:
        own: Settings
        files: tuple[Path, ...]

    monkeypatch.setenv("HOME", "/home/someone")
    found = home_expanded(Both(Settings(Path("~/runs"), note="~/as it is"), (Path("a"), Path("~/b"))))
    assert found == Both(Settings(Path("/home/someone/runs"), note="~/as it is"), (Path("a"), Path("/home/someone/b")))


@pytest.mark.parametrize("last", ["z: *i", "z: {<<: *i}", "z: {<<: [*i, *i]}"])
def test_aliases_that_multiply_are_refused(tmp_path, last):
    path = tmp_path / "bomb.yaml"
    names = "abcdefghi"
    lines = ["a: &a {x: 1}", *(f"{n}: &{n} {{<<: [{', '.join([f'*{b}'] * 9)}]}}" for b, n in pairwise(names))]
    path.write_text("\n".join([*lines, last]))
    with pytest.raises(UserError, match="holds more than 50000 values"):
        read_yaml(path)


def test_a_settings_file_is_bounded_in_depth_and_size(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("a: " + "[" * 5000 + "]" * 5000)
    with pytest.raises(UserError, match="nested too deeply"):
        read_yaml(path)
    path.write_text("a: " + "b" * (1 << 20))
    with pytest.raises(UserError, match="larger than 1024 KiB"):
        read_yaml(path)
    path.write_text("a: &a [*a]")
    with pytest.raises(UserError, match="holds more than"):
        read_yaml(path)
