"""Joined sets: what is taken of each is what the settings say, everything else is counted, and nothing twice."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from veridical.errors import UserError
from veridical.pairs.conditions import parse_condition
from veridical.pairs.dataset import read_pairs, write_build
from veridical.pairs.joined import JoinConfig, joined_in, run
from veridical.pairs.joining import MixSettings, join
from veridical.pairs.opening import named
from veridical.pairset import PairSet
from veridical.records import ImageFile, Message, Pair, Provenance


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    found = []
    for number in range(4):
        path = folder / f"{number}.png"
        Image.new("RGB", (40, 40), (60 * number, 9, 9)).save(path)
        found.append(ImageFile(path, hashlib.sha256(path.read_bytes()).hexdigest()))
    return found


def made(images, count, construction="bpo", word="cup", start=0):
    return [
        Pair(
            f"p{number}", f"r{number}", (images[number % len(images)],), (Message("user", "What is there?"),),
            f"A {word} {number}.", f"No {word} {number}.",
            Provenance(
                construction, "plain" if number % 4 else "rare", {"about": {"year": 2000 + number}}, 0, "m",
                judge="gpt-4v" if number % 2 else "", scores={"confidence": number / 10},
            ),
        )
        for number in range(start, start + count)
    ]  # fmt: skip


def joined(sets, **settings):
    pairs, counts = join([(name, pairs.__iter__) for name, pairs in sets.items()], MixSettings(**settings))
    return list(pairs), counts


def test_all_of_all_sets_in_their_order_with_ids_of_their_own(images):
    one, other = made(images, 3), made(images, 3, word="dog")
    pairs, counts = joined({"one": one, "other": other})
    assert [pair.id for pair in pairs] == ["p0", "p1", "p2", "other/p0", "other/p1", "other/p2"]
    assert [pair.record_id for pair in pairs] == [pair.record_id for pair in (*one, *other)]
    assert [pair.provenance.parameters["set"] for pair in pairs] == ["one"] * 3 + ["other"] * 3
    assert [(one.used, one.renamed) for one in counts] == [(3, 0), (3, 3)]


@pytest.mark.parametrize(
    ("sizes", "weights", "size", "used"),
    [
        ((10, 6), (1, 1), None, (6, 6)),
        ((10, 6), (2, 1), None, (10, 5)),
        ((10, 6), (1, 0), None, (10, 0)),
        ((10, 6), (1, 1), 7, (4, 3)),
        ((10, 6), (), 8, (5, 3)),
        ((10, 6), (), 100, (10, 6)),
        ((3, 3, 9), (1, 1, 4), None, (2, 2, 9)),
    ],
)
def test_shares_and_sizes(images, sizes, weights, size, used):
    words = ("cup", "dog", "tree")
    sets = {word: made(images, count, word=word) for word, count in zip(words, sizes, strict=False)}
    pairs, counts = joined(sets, weights=weights, size=size)
    assert tuple(one.used for one in counts) == used
    assert Counter(pair.provenance.parameters["set"] for pair in pairs) == Counter(
        {name: count for name, count in zip(sets, used, strict=True) if count}
    )
    assert all(one.read == one.used + one.not_drawn + one.copies + sum(one.left_out.values()) for one in counts)


@given(size=st.integers(1, 40), seed=st.integers(0, 5))
def test_the_seed_draws_and_a_larger_subset_holds_the_smaller(size, seed):
    image = ImageFile(Path("a.png"), "00")
    pairs = made([image], 40)
    drawn = {pair.id for pair in joined({"a": pairs}, size=size, seed=seed)[0]}
    assert len(drawn) == size
    assert drawn == {pair.id for pair in joined({"a": pairs[::-1]}, size=size, seed=seed)[0]}
    assert drawn <= {pair.id for pair in joined({"a": pairs}, size=min(40, size + 3), seed=seed)[0]}


def test_another_seed_draws_others(images):
    pairs = made(images, 40)
    draws = [{pair.id for pair in joined({"a": pairs}, size=20, seed=seed)[0]} for seed in (0, 1)]
    assert draws[0] != draws[1]


def test_strata_keep_their_shares(images):
    pairs = made(images, 40)  # every fourth is rare
    drawn, _ = joined({"a": pairs}, size=20, stratify="variant")
    assert Counter(pair.provenance.variant for pair in drawn) == {"rare": 5, "plain": 15}


def test_copies_are_dropped_across_sets_and_counted(images):
    one = made(images, 4)
    other = [replace(pair, id=f"x{pair.id}") for pair in made(images, 6)]
    pairs, counts = joined({"one": one, "other": other})
    assert (len(pairs), counts[1].copies) == (6, 4)
    assert len(joined({"one": one, "other": other}, copies="keep")[0]) == 10
    # Other answers, prompts or images are no copies.
    changed = [replace(one[0], id="c", chosen="A hat."), replace(one[0], id="d", images=(images[1],))]
    assert len(joined({"one": one, "changed": changed})[0]) == 6


@pytest.mark.parametrize(
    ("condition", "kept"),
    [
        ("construction=bpo", range(6)),
        ("construction != BPO", ()),
        ("variant=rare", (0, 4)),
        ("judge~gpt", (1, 3, 5)),
        ("judge=", (0, 2, 4)),
        ("scores.confidence>=0.4", (4, 5)),
        ("scores.confidence < 0.2", (0, 1)),
        ("scores.confidence=0.3", (3,)),
        ("parameters.about.year>2003", (4, 5)),
        ("images=1", range(6)),
        ("others>0", ()),
        ("set=a", range(6)),
        ("attempts=1", range(6)),
    ],
)
def test_conditions(images, condition, kept):
    pairs = made(images, 6)
    found = [pair.id for pair in pairs if parse_condition(condition).holds(pair, "a")]
    assert found == [f"p{number}" for number in kept]


def test_what_a_condition_leaves_out_is_counted_by_it(images):
    pairs, counts = joined({"a": made(images, 6)}, keep=("variant=plain", "scores.confidence>=0.3"))
    assert [pair.id for pair in pairs] == ["p3", "p5"]
    assert counts[0].left_out == {"variant=plain": 2, "scores.confidence>=0.3": 2}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weights": (1.0,)}, "one for each"),
        ({"weights": (0.0, 0.0)}, "all 0"),
        ({"keep": ("nonsense",)}, "write a condition"),
        ({"keep": ("colour=red",)}, "has no colour"),
        ({"keep": ("scores.x>=high",)}, "no number"),
        ({"keep": ("scores.absent>=1",)}, "no pair has scores.absent"),
        ({"keep": ("construction=povid",)}, "none of 4 pairs"),
    ],
)
def test_settings_that_do_not_fit_are_refused_with_what_to_do(images, settings, message):
    with pytest.raises(UserError, match=message):
        joined({"a": made(images, 2), "b": made(images, 2, word="dog")}, **settings)


def test_folders_are_joined_into_one_that_says_how(images, tmp_path, capsys):
    write_build(tmp_path / "a" / "pairs", made(images, 5))
    write_build(tmp_path / "b" / "pairs", made(images, 3, "povid", "dog"))
    sources = (str(tmp_path / "a" / "pairs"), f"dogs={tmp_path / 'b' / 'pairs'}")
    run(JoinConfig(sources, tmp_path / "out", MixSettings(weights=(1, 1))))
    assert "dogs: 3 of 3 pairs; 2 under another id" in capsys.readouterr().out
    pairs = read_pairs(tmp_path / "out")
    assert Counter(pair.provenance.construction for pair in pairs) == {"bpo": 3, "povid": 3}
    assert all(image.path.is_relative_to(tmp_path / "out") for pair in pairs for image in pair.images)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert (manifest["records_in"], manifest["pairs_out"], manifest["rejected"]["not-drawn"]) == (8, 6, 2)
    assert [one["name"] for one in manifest["join"]["sets"]] == ["pairs", "dogs"]
    with pytest.raises(UserError, match="isn't empty"):
        run(JoinConfig(sources, tmp_path / "out"))


def test_what_is_joined_for_a_run_follows_its_sets(images, tmp_path):
    folders = {name: write_build(tmp_path / name, made(images, 2, word=name)) for name in ("a", "b")}
    first = joined_in(folders, MixSettings(), tmp_path)
    assert joined_in(folders, MixSettings(), tmp_path) == first
    assert joined_in(folders, MixSettings(size=3), tmp_path) != first
    write_build(tmp_path / "b", made(images, 3, word="c"))
    assert joined_in(folders, MixSettings(), tmp_path) != first


def test_names_are_as_short_as_they_may_be():
    assert list(named(["runs/a/pairs", "runs/b/pairs", "c.parquet"])) == ["a/pairs", "b/pairs", "c"]
    assert named(["x=runs/a/pairs", "runs/b/pairs"]) == {"x": Path("runs/a/pairs"), "pairs": Path("runs/b/pairs")}
    with pytest.raises(UserError, match="same name"):
        named(["x=a", "x=b"])


def test_sets_in_memory(images, tmp_path):
    one, other = PairSet(made(images, 4)), PairSet(made(images, 4, word="dog"))
    mixed = one.mix(other, weights=(3, 1), seed=2)
    assert [count.used for count in mixed.counts] == [4, 1]
    assert len(mixed.save(tmp_path / "saved")) == 5
    with pytest.raises(UserError, match="weigths"):
        one.mix(other, weigths=(1, 1))
