"""The page's texts and numbers, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from veridical.errors import UserError
from veridical.records import Message, Pair, Provenance, Spans
from veridical.report.captions import read_captions
from veridical.report.command import ReportConfig, run
from veridical.report.page import render
from veridical.report.pictures import Piece, difference, inventions, sides, spread, thumbnail
from veridical.report.runs import BuildRun, Runs, read_runs
from veridical.report.tables import judge, number, rows

texts = st.text(st.sampled_from("ab c.,-' \n<é"), max_size=30)


def text_of(pieces: list[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


@given(texts, texts)
def test_marking_differences_changes_no_text(chosen, rejected):
    left, right = difference(chosen, rejected)
    assert (text_of(left), text_of(right)) == (chosen, rejected)
    common = ["".join(text_of([p for p in side if not p.mark]).split()) for side in (left, right)]
    assert common[0] == common[1]


def test_only_the_words_that_differ_are_marked():
    left, right = difference("There is a cup here.", "There is a spoon here, too.")
    assert [piece for piece in left if piece.mark] == [Piece("cup", "added")]
    assert [piece for piece in right if piece.mark] == [Piece("spoon", "removed"), Piece(", too", "removed")]


PAIR = Pair(
    "7/0", "7", (), (Message("system", "Be brief."), Message("user", "Is there a <b>cup</b>?")),
    "No, a spoon.", "Yes, a cup.",
    Provenance("caption-edit", "", {}, 0, "bundled", "panel <i>", 3, "own answer", scores={"edited_share": 1 / 3}),
    Spans(((0, 2), (4, 12)), ((0, 3), (5, 11))),
)  # fmt: skip


def test_spans_of_a_pair_go_before_the_words_that_differ():
    left, right = sides(PAIR)
    assert left == [Piece("No", "added"), Piece(", "), Piece("a spoon.", "added")]
    assert right == [Piece("Yes", "removed"), Piece(", "), Piece("a cup.", "removed")]
    without = dataclasses.replace(PAIR, spans=None)
    assert sides(without) == difference(PAIR.chosen, PAIR.rejected) != (left, right)


def test_a_card_shows_the_question_and_how_the_pair_came_to_be():
    manifest = {"pairs_out": 1, "records_used": 1, "records_in": 1, "rejected": {}}
    page = render(Runs(builds=(BuildRun(Path("built"), "built", {}, manifest, {}, (PAIR,)),)), "Pairs", 1, 1)
    card = re.sub(r"\s*<[^>]+>\s*", "|", page[page.index('<article class="card">') : page.index("</article>")])
    assert "|told beforehand||Be brief.|" in card
    assert "|asked||Is there a &lt;b&gt;cup&lt;/b&gt;?|" in card
    made = re.sub(r"\|+", "|", card[card.rindex("a cup.") :])
    assert made == "a cup.|preferred|own answer|judge|panel &lt;i&gt;|tries|3|edited share|0.333|"


def row(caption: str, **more):
    return {"id": "1", "image": "1.png", "caption": caption, "words": 5, **more}


@pytest.mark.parametrize(
    ("more", "expected", "wrong"),
    [
        (
            {"truth": ["cup"], "mentions": [
                {"name": "cup", "start": 2, "end": 5, "invented": False},
                {"name": "spoon", "start": 12, "end": 17, "invented": True},
            ]},
            [Piece("A cup and a "), Piece("spoon", "invented"), Piece(".")], 1,
        ),
        ({"wrong": [[0, 5]]}, [Piece("A cup", "invented"), Piece(" and a spoon.")], 1),
        (
            {"doubted": [[12, 17]], "mentions": [{"name": "spoon", "start": 12, "end": 17}]},
            [Piece("A cup and a "), Piece("spoon", "doubted"), Piece(".")], 1,
        ),
        ({}, [Piece("A cup and a spoon.")], 0),
    ],
)  # fmt: skip
def test_what_is_wrong_is_marked_whoever_says_so(more, expected, wrong):
    [caption] = read_captions([row("A cup and a spoon.", **more), {"id": "no caption"}])
    assert inventions(caption) == expected
    assert caption.wrong == wrong


@given(st.integers(0, 200), st.integers(1, 20))
def test_a_gallery_is_spread_evenly(length, count):
    shown = spread(range(length), count)
    assert len(shown) == len(set(shown)) == min(length, count)
    gaps = {b - a for a, b in pairwise(shown)}
    assert not gaps or max(gaps) - min(gaps) <= 1


@pytest.mark.parametrize(
    ("low", "high", "better", "verdict"),
    [
        (-5, -1, "lower", "better"), (-5, -1, "higher", "worse"), (1, 5, "lower", "worse"),
        (-1, 5, "lower", "undecided"), (0, 5, "higher", "undecided"), (-5, -1, "", ""),
        (None, None, "lower", ""),
    ],
)  # fmt: skip
def test_a_difference_is_judged_by_its_interval(low, high, better, verdict):
    assert judge({"low": low, "high": high}, better) == verdict


def test_numbers_are_written_for_people():
    assert [number(-1.25, signed=True), number(0.04, signed=True), number(-0.04), number(None)] == [
        "\N{MINUS SIGN}1.2", "0.0", "0.0", "\N{EN DASH}",
    ]  # fmt: skip


def test_the_table_holds_every_metric_of_the_results(folders):
    results = json.loads((folders.eval / "results.json").read_text())
    shown = rows(results)
    assert {row.metric.key for row in shown} == set(results["models"]["base"])
    first = shown[0]
    assert first.metric.key == "chair_s"
    assert first.protocol == "world-chair/1"
    assert first.cells[0].value == f"{results['models']['base']['chair_s']['value']:.1f}%"
    assert first.cells[1].verdict == "better"


def test_the_page_says_what_the_runs_say(page, folders):
    html = page.read_text()
    results = json.loads((folders.eval / "results.json").read_text())
    equal = results["comparisons"][0]["at_equal_recall"]
    for value in (equal["base_cut"], equal["aligned"], results["models"]["base"]["recall"]["value"]):
        assert f"{value:.1f}" in html
    assert html.count("world-chair/1") > 8
    assert "6 left out (nothing-invented)" in html


def test_the_page_refers_to_nothing_outside(page):
    html = page.read_text()
    addresses = re.findall(r"""(?:src|href)=["']?([^"'\s>]+)""", html)
    assert addresses
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert "url(http" not in html
    assert "@import" not in html


def test_ids_are_unique(page):
    ids = re.findall(r'\bid="([^"]+)"', page.read_text())
    assert len(ids) == len(set(ids))


def test_texts_are_escaped(page):
    html = page.read_text()
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert "a&lt;b&gt; $x$" in html


def test_the_same_runs_give_the_same_page(page, folders, tmp_path):
    again = run(ReportConfig(folders.all, out=tmp_path / "again.html"))
    assert again.read_bytes() == page.read_bytes()


def test_pictures_are_found_after_a_move(folders, tmp_path):
    moved = tmp_path / "elsewhere"
    shutil.copytree(folders.eval, moved)
    (found,) = read_runs([moved]).evals
    image = found.captions["base"][0].image.replace(str(folders.eval), "/gone")
    assert found.picture(image).is_file()


def test_a_picture_that_is_gone_is_said_to_be(tmp_path):
    assert "can't be read" in thumbnail(tmp_path / "gone.png").problem


def test_a_build_of_several_constructions_is_shown_one_by_one(folders, tmp_path):
    for name in ("bdhs", "povid"):
        shutil.copytree(folders.build, tmp_path / name)
    (tmp_path / "constructions.json").write_text(json.dumps({"constructions": {"povid": {}, "bdhs": {}}}))
    builds = read_runs([tmp_path]).builds
    assert [build.name for build in builds] == ["povid", "bdhs"]
    [alone] = read_runs([folders.build]).builds
    assert [pair.id for pair in builds[0].pairs] == [pair.id for pair in alone.pairs]


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="not a finished run"):
        read_runs([tmp_path])
    with pytest.raises(UserError, match="no such run folder"):
        read_runs([tmp_path / "absent"])
    with pytest.raises(UserError, match="at least one run"):
        run(ReportConfig(()))


def test_an_unfinished_training_is_refused(folders, tmp_path):
    shutil.copytree(folders.align, tmp_path / "run")
    (tmp_path / "run" / "summary.json").unlink()
    with pytest.raises(UserError, match=r"summary\.json: is missing"):
        read_runs([tmp_path / "run"])


def test_a_broken_log_is_named_with_its_line(folders, tmp_path):
    shutil.copytree(folders.align, tmp_path / "run")
    with (tmp_path / "run" / "log.jsonl").open("a") as log:
        log.write('{"step":')
    with pytest.raises(UserError, match=r"log\.jsonl, line 41: not JSON"):
        read_runs([tmp_path / "run"])


def test_a_measurement_without_captions_has_a_page_too(folders, tmp_path):
    """Yes/no questions alone, or a published benchmark: no recall to be equal at, each number with its protocol."""
    shutil.copytree(folders.eval, tmp_path / "eval")
    path = tmp_path / "eval" / "results.json"
    results = json.loads(path.read_text())
    results["protocols"] = {"pope": "world-pope/1", "official-gqa": "gqa[official]/1"}
    for found in [*results["models"].values(), *(one["differences"] for one in results["comparisons"])]:
        for key in [key for key in found if not key.startswith("pope")]:
            del found[key]
        found["official_gqa_accuracy"] = next(iter(found.values()))
    results |= {"cut_curves": {}, "by_object": {}}
    results["comparisons"][0]["at_equal_recall"] = None
    path.write_text(json.dumps(results))
    shutil.rmtree(tmp_path / "eval" / "items")
    table = {row.metric.key: row.protocol for row in rows(results)}
    assert table["official_gqa_accuracy"] == "gqa[official]/1"
    assert table["pope_random_accuracy"] == "world-pope/1"
    page = run(ReportConfig((tmp_path / "eval",), out=tmp_path / "report.html")).read_text()
    assert "gqa[official]/1" in page
    assert "At equal recall</h3>" not in page


def test_a_caption_with_a_line_separator_of_unicode_in_it_is_read(folders, tmp_path):
    shutil.copytree(folders.eval, tmp_path / "eval")
    path = tmp_path / "eval" / "items" / "base" / "chair.jsonl"
    first, rest = path.read_text().split("\n", 1)
    odd = {**json.loads(first), "caption": "A cup.\u2028A spoon.\x85", "mentions": []}
    path.write_text(json.dumps(odd, ensure_ascii=False) + "\n" + rest)
    [found] = read_runs([tmp_path / "eval"]).evals
    assert found.captions["base"][0].text == odd["caption"]
    assert len(found.captions["base"]) == len(found.captions["a<b> $x$"])


def _damaged(content: bytes, how: int) -> bytes:
    """Cut short, turned into something else, or with a byte that is no text."""
    return [content[: len(content) // 2], b"[1, 2]", b'{"models": 3}', b"\xff" + content, b""][how]


@pytest.mark.parametrize("how", range(5))
@pytest.mark.parametrize(
    "name", ["eval/results.json", "eval/noise.json", "eval/items/base/chair.jsonl", "pairs/manifest.json",
             "aligned/summary.json", "aligned/log.jsonl"],
)  # fmt: skip
def test_a_damaged_file_is_named(folders, tmp_path, name, how):
    for folder in folders.all:
        shutil.copytree(folder, tmp_path / folder.name)
    path = tmp_path / name
    path.write_bytes(_damaged(path.read_bytes(), how))
    # A row without what is shown, or a log without rows, says little and breaks nothing.
    harmless = (how in (2, 4) and path.suffix == ".jsonl") or (name, how) == ("aligned/summary.json", 2)
    config = ReportConfig(tuple(tmp_path / folder.name for folder in folders.all), out=tmp_path / "report.html")
    if harmless:
        run(config)
    else:
        with pytest.raises(UserError, match=re.escape(path.name)):
            run(config)


def test_a_table_is_refused_where_no_run_has_one(folders, tmp_path):
    with pytest.raises(UserError, match="none of the run folders is of eval"):
        run(ReportConfig(runs=(folders.align,), out=tmp_path / "page.html", csv=True))


def test_rewards_are_drawn_beside_what_annotations_say():
    from veridical.report.page import _training_charts
    from veridical.report.runs import AlignRun

    log = tuple({"step": i, "loss": 0.1, "reward": i / 9, "oracle/score": 1 - i / 9} for i in range(10))
    run = AlignRun(Path("grpo"), "grpo", {}, {}, log)
    captions = [chart.caption for chart in _training_charts([run])]
    assert len(captions) == 3
    assert any("hacked" in caption for caption in captions)
