"""`align` on several sets: joined as asked, recorded, the same run when it is started again."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from tests.align.conftest import make_pairs

import veridical as vd
from veridical.align.command import AlignConfig, run
from veridical.align.config import config_type
from veridical.config import parse
from veridical.errors import UserError
from veridical.pairs.dataset import write_build
from veridical.pairs.export import export
from veridical.pairs.joining import MixSettings
from veridical.vlm.model.adapters import LoraSettings


@pytest.fixture(scope="module")
def sets(tmp_path_factory, pictures):
    """Two sets, one as a file of another trainer's."""
    folder = tmp_path_factory.mktemp("sets")
    pairs = make_pairs(pictures, 10)
    own = write_build(folder / "own", pairs[:6])
    other = write_build(folder / "other", [replace(pair, chosen=f"Yes. {pair.chosen}") for pair in pairs])
    return own, export(other, folder / "swift.jsonl", "ms-swift").path


def config(sets, out, model, **more) -> AlignConfig:
    return AlignConfig(
        pairs=tuple(sets), out=out, model=str(model), lora=LoraSettings(rank=4, alpha=8), learning_rate=1e-3, epochs=1,
        batch_size=4, micro_batch=4, workers=0, device="cpu", **more,
    )  # fmt: skip


def test_two_sets_are_joined_trained_on_and_recorded(sets, tmp_path, llava_folder, capsys):
    given = config(sets, tmp_path / "run", llava_folder, mix=MixSettings(weights=(1, 1), seed=3))
    run(given)
    told = json.loads((tmp_path / "run" / "summary.json").read_text())["pairs"]
    assert (told["read"], told["used"]) == (12, 12)
    assert told["constructions"] == {"test": 6, "ms-swift": 6}
    assert [(one["name"], one["read"], one["used"], one["not_drawn"]) for one in told["mix"]["sets"]] == [
        ("own", 6, 6, 0),
        ("swift", 10, 6, 4),
    ]
    assert told["mix"]["settings"]["seed"] == 3
    assert "swift: 6 of 10 pairs (4 not drawn)" in capsys.readouterr().err
    run(given)
    assert "already complete" in capsys.readouterr().err
    with pytest.raises(UserError, match="mix"):
        run(replace(given, mix=MixSettings(weights=(2, 1), seed=3)))


def test_a_part_of_one_set(sets, tmp_path, llava_folder):
    aligned = vd.align(
        sets[0], model=llava_folder, out=tmp_path / "run", mix={"size": 4, "keep": ("construction=test",)}, epochs=1,
        lora=LoraSettings(rank=4, alpha=8), workers=0, device="cpu",
    )  # fmt: skip
    assert aligned.summary["pairs"]["used"] == 4
    with pytest.raises(UserError, match="one for each"):
        vd.align(list(sets), model=llava_folder, out=tmp_path / "other", mix={"weights": (1,)})


def test_the_command_line_takes_one_set_or_several():
    kind = config_type({})
    assert (
        parse(kind, ["--pairs", "a", "--out", "o"], "align").sources
        == parse(kind, ["--pairs=a", "--out", "o"], "align").sources
    )
    several = parse(kind, ["--pairs", "a", "n=b", "--out", "o", "--mix.weights", "2", "1"], "align")
    assert [str(one) for one in several.sources] == ["a", "n=b"]
    assert several.mix.weights == (2, 1)
