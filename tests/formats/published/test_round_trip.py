"""What is exported and imported again is what it was, as far as the format can hold it; what it can't is listed."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from veridical.formats.published.registry import FORMATS
from veridical.pairs.dataset import read_pairs, write_build
from veridical.pairs.export import export, wide_features
from veridical.pairs.importing import ImportConfig, import_published
from veridical.records import FurtherAnswer, ImageFile, Message, Pair, Provenance, Spans

WRITTEN = sorted(name for name in FORMATS if FORMATS.get(name).write is not None)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    import hashlib

    folder = tmp_path_factory.mktemp("images")
    found = []
    for number in range(3):
        path = folder / f"{number}.png"
        Image.new("RGB", (20 + number, 20), (80 * number, 9, 9)).save(path)
        found.append(ImageFile(path, hashlib.sha256(path.read_bytes()).hexdigest()))
    return found


words = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=12)
texts = st.lists(words, min_size=1, max_size=4).map(" ".join).filter(lambda text: "<" not in text)


def further(third: str, chosen: str, pictures) -> st.SearchStrategy[FurtherAnswer]:
    """A further rejected answer, or the chosen one on another image."""
    spans = st.sampled_from([None, Spans(((0, 1),), ((0, 0),))])
    score, weight = st.none() | st.floats(-5, 5), st.none() | st.floats(0, 3)
    rejected = st.builds(FurtherAnswer, st.just(third), words, score, st.none() | pictures, weight, spans)
    return rejected | st.builds(FurtherAnswer, st.just(chosen), words, score, pictures, weight, spans)


@st.composite
def pairs(draw, images):
    """A pair, often a wide one; texts are what formats keep: no blanks at their ends, no placeholders."""
    pictures = st.lists(st.sampled_from(images), min_size=1, max_size=2, unique=True).map(tuple)
    chosen, rejected, third = draw(st.lists(texts, min_size=3, max_size=3, unique=True))
    turns = draw(st.sampled_from([("user",), ("system", "user"), ("user", "assistant", "user")]))
    optional = st.booleans()
    return Pair(
        id=draw(words),
        record_id=draw(words),
        images=draw(pictures),
        prompt=tuple(Message(role, draw(texts)) for role in turns),
        chosen=chosen,
        rejected=rejected,
        provenance=Provenance(
            "bdhs", "plain", {"rho": draw(st.floats(0, 1))}, draw(st.integers(0, 2**40)), "model", "judge", 2,
            "reference", "own", {"score": draw(st.floats(-5, 5))},
        ),
        spans=Spans(((0, 1),), ((0, 1),)) if draw(optional) else None,
        open_ended=draw(optional),
        context=draw(texts) if draw(optional) else "",
        weights=(1.0, draw(st.floats(0, 3))) if draw(optional) else None,
        rejected_images=draw(pictures) if draw(optional) else None,
        others=tuple(draw(st.lists(further(third, chosen, pictures), max_size=2))),
    )  # fmt: skip


def there_and_back(
    pairs: list[Pair], folder: Path, name: str, suffix: str, *, beside: bool = False
) -> tuple[list[Pair], set[str]]:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
    write_build(folder / "run", pairs)
    done = export(folder / "run", folder / "out" / f"pairs{suffix}", name, beside=beside)
    import_published(ImportConfig((str(done.path),), folder / "again"))
    return read_pairs(folder / "again"), set(done.lost)


def by_content(pair: Pair) -> Pair:
    """The pair with its images by hash alone: where a file lies is not part of what a pair is."""

    def hashed(found):
        return None if found is None else tuple(ImageFile(Path(), one.sha256) for one in found)

    others = tuple(replace(one, images=hashed(one.images)) for one in pair.others)
    return replace(pair, images=hashed(pair.images), rejected_images=hashed(pair.rejected_images), others=others)


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet", "-beside.parquet"])
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_our_own_files_keep_everything(tmp_path, images, data, suffix):
    some = data.draw(st.lists(pairs(images), min_size=1, max_size=3, unique_by=lambda pair: pair.id))
    if data.draw(st.booleans()):  # a sentence that continues begins with a blank
        some = [with_blanks(pair) for pair in some]
    again, lost = there_and_back(some, tmp_path / "a", "", suffix, beside="beside" in suffix)
    assert (tmp_path / "a" / "out" / "images").exists() == (suffix != ".parquet")
    assert [by_content(pair) for pair in again] == [by_content(pair) for pair in some]
    assert not lost


def with_blanks(pair: Pair) -> Pair:
    """The pair with blanks at the ends of its texts."""
    others = tuple(replace(one, text=f" {one.text} ") for one in pair.others)
    record, context = f"{pair.id} ", f"{pair.context or 'So'} "
    return replace(pair, chosen=f" {pair.chosen}\n", context=context, record_id=record, others=others)


@pytest.mark.parametrize("name", [name for name in WRITTEN if name != "veridical"])
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_other_formats_keep_what_they_can_and_list_the_rest(tmp_path, images, data, name):
    pair = data.draw(pairs(images))
    found, lost = there_and_back([pair], tmp_path / "a", name, ".jsonl")
    again = found[0]
    before = f"{pair.context} " if pair.context else ""
    assert (again.chosen, again.rejected) == (before + pair.chosen, before + pair.rejected)
    assert again.prompt == pair.prompt
    assert [one.sha256 for one in again.images] == [one.sha256 for one in pair.images]
    kept = [one for one in pair.others if one.text != pair.chosen or "rejected_images" in FORMATS.get(name).carries]
    assert [one.rejected for one in found[1:]] == [before + one.text for one in kept]
    assert lost == wide_features(pair) - FORMATS.get(name).carries


def test_an_export_moves_with_its_images(tmp_path, images):
    pair = Pair(
        "p", "r", (images[0],), (Message("user", "What?"),), "A cup.", "A cat.", Provenance("x", "y", {}, 0, "")
    )
    write_build(tmp_path / "run", [pair])
    export(tmp_path / "run", tmp_path / "out" / "pairs.json", "llama-factory")
    (tmp_path / "out").rename(tmp_path / "moved")
    row = json.loads((tmp_path / "moved" / "pairs.json").read_text())[0]
    assert (tmp_path / "moved" / row["images"][0]).is_file()
    assert json.loads((tmp_path / "moved" / "dataset_info.json").read_text())["pairs"]["ranking"] is True
