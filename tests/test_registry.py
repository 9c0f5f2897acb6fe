"""One registry: names, places, entry points, decorators; what is wrong with a user's own is said with its file."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from veridical.constructions.registry import CONSTRUCTIONS, settings_type, wrong_with
from veridical.decoding.registry import DECODINGS
from veridical.errors import UserError
from veridical.judges.registry import JUDGES
from veridical.objectives.registry import OBJECTIVES
from veridical.protocols.registry import PICTURES, PROTOCOLS
from veridical.registry import Own, Registry, is_place, label, lacks

REGISTRIES = (CONSTRUCTIONS, OBJECTIVES, JUDGES, DECODINGS, PROTOCOLS)


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda one: one.kind)
def test_everything_of_ours_can_be_had_has_the_right_shape_and_a_line(registry):
    for name, own in registry.own.items():
        made = registry.get(name)
        assert 10 < len(own.summary) < 90, name
        if registry not in (DECODINGS, PROTOCOLS):  # some search, weigh, or are functions of pictures
            assert registry.check(made) is None, name
    assert all(PROTOCOLS.check(PROTOCOLS.get(name)) is None for name in set(PROTOCOLS) - set(PICTURES))
    assert [one.name for one in registry.listed()] == list(registry.names())


def fresh() -> Registry:
    own = {"dpo": Own("veridical.objectives.dpo:Dpo", "x")}
    return Registry("objective", "veridical.none", own, lambda made: lacks(made, ("loss",)))


SHAPES = {
    "no dataclass": "class Mine:\n    name = 'mine'\n",
    "the setting beta has no default": "from dataclasses import dataclass\n@dataclass\nclass Mine:\n    beta: float\n",
    "no field `name`": "from dataclasses import dataclass\n@dataclass\nclass Mine:\n    beta: float = 1\n",
    "no method loss": "from dataclasses import dataclass\n@dataclass\nclass Mine:\n    name: str = 'mine'\n",
    r"can't be imported \(SyntaxError: .*line 2": "x = 1\ny = = 2\n",
    r"can't be imported \(ZeroDivisionError: division by zero, line 3\); mend": "x = 1\n\ny = 1 / 0\n",
    r"can't be imported \(ModuleNotFoundError: No module named 'nowhere', line 1\)": "import nowhere\n",
    "has no Mine; did you mean 'Mino'": "Mino = 1\n",
    r"has no Mine; it has a, b\.": "a = b = 1\n",
}  # fmt: skip


@pytest.mark.parametrize("message", SHAPES)
def test_a_plug_in_of_no_use_is_refused_with_its_file(message, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(SHAPES[message])
    with pytest.raises(UserError, match=message) as caught:
        fresh().get(f"{path}:Mine", "objective.name")
    assert str(caught.value).startswith("objective.name: ")
    assert str(path) in str(caught.value)


def test_files_and_names_that_are_not_there(tmp_path):
    with pytest.raises(UserError, match=r"absent\.py: no such file; check the path"):
        fresh().get(str(tmp_path / "absent.py:Mine"))
    with pytest.raises(UserError, match=r"the module no_such can't be imported \(ModuleNotFoundError"):
        fresh().get("no_such:Mine")
    with pytest.raises(UserError, match="no objective 'dpoo'; did you mean 'dpo'"):
        fresh().get("dpoo")
    with pytest.raises(UserError, match=r"no objective 'zzz'; there are dpo\. An objective of your own is given as"):
        fresh().get("zzz")


@dataclass(frozen=True)
class Mine:
    """Does a thing. And another."""

    name: str = "mine"

    def loss(self) -> None: ...


def test_a_decorated_name_is_known_and_no_taken_one_is_taken_again():
    registry = fresh()
    assert registry.decorator(Mine, None, lambda made: made.name) is Mine
    registry.add(Mine, "mine")  # as when a notebook's cell runs again
    assert registry.get("mine") is Mine
    assert registry.names() == ("dpo", "mine")
    with pytest.raises(UserError, match=rf"{Path(__file__).name}: the objective name 'dpo' is taken, it comes with"):
        registry.add(Mine, "dpo")

    @dataclass(frozen=True)
    class Other(Mine):
        pass

    with pytest.raises(UserError, match=r"name 'mine' is taken, it was given in .*test_registry\.py; choose another"):
        registry.decorator("mine", None, str)(Other)


def test_a_construction_is_a_generator_over_record_settings_and_seed():
    @dataclass
    class Needs:
        x: int

    def plain(record, settings, seed): ...

    def wrong_arguments(record, seed):
        yield

    def untyped(record, settings, seed):
        yield

    def needs(record, settings: int, seed):
        yield

    needs.__annotations__["settings"] = Needs
    for made, message in (
        (plain, "yields no request"), (wrong_arguments, r"(record, seed), not (record, settings, seed)"),
        (untyped, "no dataclass"), (needs, "settings have no defaults"), (3, "no function"), (Needs, "no function"),
    ):  # fmt: skip
        assert message in str(wrong_with(made))


@pytest.mark.parametrize(
    ("name", "place", "short"),
    [
        ("bpo-image", False, "bpo-image"),
        ("a/b.py:my_method", True, "my-method"),
        ("a/my_file.py", True, "my-file"),
        ("pkg.mod:Cls.inner", True, "inner"),
        ("C:\\x", False, "C:\\x"),
        ("world:dev+x", False, "world:dev+x"),
    ],
)
def test_places_and_their_short_names(name, place, short):
    assert (is_place(name), label(name)) == (place, short)


PLUGIN = '''
from dataclasses import dataclass
@dataclass(frozen=True)
class Settings:
    """Mine."""
    strength: float = 0.5
def swap(record, settings: Settings, seed):
    """Swap the sides. Nothing else."""
    yield
'''


def veridical(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "veridical", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def test_the_settings_of_a_file_s_method_are_flags_and_its_mistakes_one_line(tmp_path):
    (tmp_path / "mine.py").write_text(PLUGIN)
    shown = veridical("build", "--construction", "mine.py:swap", "--help", cwd=tmp_path)
    assert "--settings.strength" in shown.stdout, shown.stderr
    wrong = veridical("build", "--construction", "mine.py:swop", "--out", "x", cwd=tmp_path)
    assert wrong.stderr == "veridical: mine.py has no swop; did you mean 'swap'?\n"
    assert settings_type(f"{tmp_path}/mine.py:swap").__name__ == "Settings"


def test_list_says_what_there_is(tmp_path):
    shown = veridical("list", "objectives", cwd=tmp_path).stdout
    assert all(f"  {name} " in shown for name in OBJECTIVES)
    wrong = veridical("list", "objetives", cwd=tmp_path)
    assert wrong.stderr == "veridical: no kind 'objetives'; did you mean 'objectives'?\n"


@pytest.mark.parametrize(
    ("command", "choices"),
    [
        ("align", [f"--objective.name {{{','.join(OBJECTIVES)}"]),
        ("build", [f"--construction {{{','.join(CONSTRUCTIONS)}", f"--judge.name {{{','.join(JUDGES)}"]),
        ("eval", [f"--decoding.name {{plain,{','.join(DECODINGS)}", f"--protocols [{{auto,{','.join(PROTOCOLS)}"]),
        ("judge train verifier", [f"--judge.name {{{','.join(JUDGES)}"]),
    ],
)
def test_help_shows_every_choice(command, choices, tmp_path):
    shown = "".join(veridical(*command.split(), "--help", cwd=tmp_path).stdout.replace("│", "").split())
    assert all("".join(choice.split()) in shown for choice in choices)
