"""AMBER: descriptions noun by noun, answers by both parsers, the official scorer's constants, bad files."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.benchmarks.conftest import column
from veridical.errors import UserError
from veridical.protocols.benchmarks.amber_words import SimilarityTable, noun_finder, read_description, similarity

RELATION = {
    "sky": [], "person": ["people", "man", "individual"], "dog": ["puppy"], "cat": [], "tree": ["plant"],
    "plant": ["flower"], "orange": [], "grass": ["ground"], "bus": [], "cup": ["mug"],
}  # fmt: skip
TABLE = SimilarityTable(RELATION, {"orange", "individual"})

ANNOTATIONS = [
    {"id": 1, "type": "generative", "truth": ["sky", "person", "dog"], "hallu": ["cat", "tree"]},
    {"id": 2, "type": "generative", "truth": ["cup"], "hallu": ["dog"]},
    {"id": 3, "type": "discriminative-hallucination", "truth": "no"},
    {"id": 4, "type": "discriminative-hallucination", "truth": "no"},
    {"id": 5, "type": "discriminative-attribute-state", "truth": "yes"},
    {"id": 6, "type": "discriminative-attribute-state", "truth": "no"},
    {"id": 7, "type": "discriminative-attribute-number", "truth": "yes"},
    {"id": 8, "type": "discriminative-attribute-action", "truth": "no"},
    {"id": 9, "type": "discriminative-relation", "truth": "yes"},
    {"id": 10, "type": "relation", "truth": "no"},
]
TEXTS = {
    1: "Two puppies and a man under a sky, an orange, a cat and a bus.",
    2: "Nothing.",
    3: "No", 4: "Yes", 5: "Yes", 6: "No.", 7: "Yes", 8: "No", 9: "Yes, it is", 10: "No",
}  # fmt: skip


@pytest.fixture
def files(write):
    given = {
        "--annotations": write("annotations.json", ANNOTATIONS),
        "--relation": write("relation.json", RELATION),
        "--safe-words": write("safe.txt", "orange\nindividual\n"),
    }
    return [part for pair in given.items() for part in pair]


def responses(**changes: str | None) -> list[dict]:
    texts = {**TEXTS, **{int(key[1:]): text for key, text in changes.items()}}
    return [{"id": key, "response": text} for key, text in texts.items() if text is not None]


@pytest.mark.parametrize(
    ("noun", "invented", "covered", "cognitive"),
    [
        ("sky", False, {0}, set()),
        ("people", False, {1}, set()),
        ("puppy", False, {2}, set()),
        ("orange", False, set(), set()),
        ("individual", False, set(), set()),  # a safe word, though it stands for a truth
        ("cat", True, set(), {0}),
        ("plant", True, set(), {1}),
        ("bus", True, set(), set()),
    ],
)
def test_each_noun_by_itself(noun, invented, covered, cognitive):
    read = read_description([noun], ["sky", "person", "dog"], ["cat", "tree"], TABLE, str.__eq__)
    assert (read.invented == (noun,), read.covered, read.cognitive) == (invented, covered, cognitive)


def test_a_similar_truth_covers_and_a_likely_word_counts_all_the_same():
    alike = {("cat", "dog"), ("mug", "cat")}

    def similar(one: str, other: str) -> bool:
        return one == other or (one, other) in alike

    read = read_description(["cat"], ["dog"], ["cat"], TABLE, similar)
    assert (read.invented, read.covered, read.cognitive) == ((), {0}, {0})
    read = read_description(["mug"], ["sky"], ["tree", "cat"], TABLE, similar)
    assert (read.invented, read.covered, read.cognitive) == (("mug",), frozenset(), {1})


def test_look_ups_take_the_first_hit_and_associates_come_first():
    # "plant" stands for the tree, which comes first, so the truth "plant" itself is never covered by it.
    read = read_description(["plant", "plant"], ["plant", "tree"], [], TABLE, str.__eq__)
    assert read.covered == {1}
    # A truth that stands twice is covered once.
    assert read_description(["cat", "cat"], ["cat", "cat"], [], TABLE, str.__eq__).covered == {0}


def test_words_of_the_table_are_found_in_any_case_and_number():
    find = noun_finder("lexicon", TABLE.vocabulary)
    assert find("Dogs, puppies. A PERSON on the grass; a bus and buses (flowers)!") == [
        "dog", "puppy", "person", "grass", "bus", "bus", "flower"
    ]  # fmt: skip
    assert find("没有") == []


def test_all_metrics_with_the_official_constants(write, score, files):
    found = score("amber", *files, "--answers", write("a.json", responses()))
    assert found["protocol"] == "amber[lexicon,exact,strict]/1"
    first = found["items"][0]
    assert first["parsed"] == ["puppy", "man", "sky", "orange", "cat", "bus"]
    assert (first["invented"], first["covered"], first["cognitive"]) == (
        ["cat", "bus"],
        ["sky", "person", "dog"],
        ["cat"],
    )
    metrics = found["metrics"]
    assert metrics["chair"] == round(2 / 6.001 * 100, 1) == 33.3
    assert metrics["cover"] == round(3 / 4.001 * 100, 1)
    assert metrics["hal"] == round(100 - 1 / 2.001 * 100, 1)
    assert metrics["cog"] == round(1 / 3.001 * 100, 1)
    # Said exactly "No": 3, 8 and 10, all rightly; "No." and "Yes, it is" are neither.
    assert metrics["accuracy"] == round(5 / 8.001 * 100, 1)
    assert (metrics["precision"], metrics["recall"]) == (round(3 / 3.001 * 100, 1), round(3 / 5.001 * 100, 1))
    p, r = metrics["precision"] / 100, metrics["recall"] / 100
    assert metrics["f1"] == round(2 * p * r / (p + r + 0.0001) * 100, 1)
    p, r = metrics["existence_precision"] / 100, metrics["existence_recall"] / 100
    assert metrics["existence_f1"] == round(2 * p * r / (p + r + 0.001) * 100, 1)
    assert metrics["amber_score"] == pytest.approx((100 - metrics["chair"] + metrics["f1"]) / 2)
    assert metrics["attribute_accuracy"] == round(3 / 4.001 * 100, 1)
    assert metrics["relation_accuracy"] == round(1 / 2.001 * 100, 1)


@pytest.mark.parametrize(
    ("text", "strict", "lenient"),
    [
        ("No", "no", "no"),
        ("Yes", "yes", "yes"),
        ("no", None, "no"),
        ("No.", None, "no"),
        (" Yes", None, "yes"),
        ("Yes, there is", None, "yes"),
        ("I do not know", None, "no"),
        ("Yes and no", None, "yes"),
        ("eyes", None, "yes"),
        ("", None, None),
        ("没有", None, None),
    ],
)
def test_strict_and_lenient(write, score, files, text, strict, lenient):
    a = write("a.json", [{"id": 3, "response": text}])
    for parser, expected in (("strict", strict), ("lenient", lenient)):
        found = score("amber", *files, "--answers", a, "--parser", parser)
        assert column(found, "parsed") == [expected, None]
        assert found["counts"]["unanswered"] == 1


def test_dimensions_without_answers_are_left_out_and_named(write, score, files):
    found = score("amber", *files, "--answers", write("a.json", responses()[:2]))
    assert set(found["metrics"]) == {"chair", "cover", "hal", "cog"}
    assert found["notes"][0] == "no answers, so not measured: existence, state, number, action, relation"
    assert found["counts"]["unanswered"] == 0


def test_missing_surplus_and_repeated_responses(write, score, files):
    rows = [*responses(_2=None, _8=None), {"id": 3, "response": "Yes"}, {"id": 99, "response": "Yes"}]
    found = score("amber", *files, "--answers", write("a.json", rows))
    assert found["faults"]["unanswered"] == ["2"]
    assert (found["counts"]["duplicates"], found["counts"]["surplus"]) == (1, 1)
    assert next(item for item in found["items"] if item["id"] == "3")["parsed"] == "no"
    assert found["metrics"]["cover"] == round(3 / 3.001 * 100, 1)


def test_always_yes_gives_numbers(write, score, files):
    rows = [{"id": key, "response": "Yes"} for key in range(3, 11)]
    metrics = score("amber", *files, "--answers", write("a.json", rows))["metrics"]
    assert (metrics["precision"], metrics["recall"], metrics["f1"]) == (0, 0, 0)


def test_images_of_the_query_file_are_what_is_resampled(write, score, files):
    q = write("q.json", [{"id": n, "image": f"AMBER_{1 + n // 6}.jpg", "query": "?"} for n in range(1, 11)])
    report = score("amber", *files, "--questions", q, "--check")
    assert (report["questions"], report["images"]) == (10, 2)
    assert report["kinds"] == {"generative": 2, "existence": 2, "state": 2, "number": 1, "action": 1, "relation": 2}


def test_what_is_missing_is_said(write, refused, files, monkeypatch):
    a = write("a.json", responses())
    monkeypatch.setitem(sys.modules, "spacy", None)
    assert "needs spaCy" in refused("amber", *files, "--answers", a, "--vectors", "en_core_web_lg")
    import nltk

    monkeypatch.setattr(nltk.data, "path", [])
    assert "punkt_tab wordnet" in refused("amber", *files, "--answers", a, "--nouns", "nltk")
    with pytest.raises(UserError, match="needs spaCy"):
        similarity("en_core_web_sm")


def test_wrong_files_are_refused(write, refused, files):
    a = write("a.json", responses())
    q = write("q.json", [{"id": 77, "image": "x.jpg", "query": "?"}])
    assert "no annotation of a known type for id 77" in refused("amber", *files, "--answers", a, "--questions", q)
    assert "give the file of responses" in refused("amber", *files)
    bad = ["--annotations", files[1], "--relation", write("r.json", [1]), "--safe-words", files[5]]
    assert "AMBER's table is" in refused("amber", *bad, "--answers", a)


def by_lists_of_flags(nouns, truth, likely, alike):
    """The same decision as the official scorer's layout has it: flags for associates and words in one list each."""

    def flags(words):
        candidates = [other for word in words for other in RELATION.get(word, [])]
        owner = [at for at, word in enumerate(words) for _ in RELATION.get(word, [])]
        return candidates + list(words), owner + [0] * len(words)

    def mark(place, marks, words):
        ahead = len(marks) - len(words)
        marks[ahead + marks[place] if place < ahead else place] = 1

    safe, safe_marks = flags(truth)
    bad, bad_marks = flags(likely)
    invented = []
    for noun in nouns:
        if noun in TABLE.safe:
            continue
        if noun in safe:
            mark(safe.index(noun), safe_marks, truth)
            continue
        if noun in bad:
            mark(bad.index(noun), bad_marks, likely)
        for words, marks, named in ((bad, bad_marks, likely), (safe, safe_marks, truth)):
            near = [place for place, word in enumerate(words) if noun == word or (noun, word) in alike]
            if near:
                mark(near[0], marks, named)
        if not any(noun == word or (noun, word) in alike for word in safe):
            invented.append(noun)
    covered = safe_marks[len(safe_marks) - len(truth) :] if truth else []
    cognitive = bad_marks[len(bad_marks) - len(likely) :] if likely else []
    return invented, sum(covered), sum(cognitive)


WORDS = st.sampled_from(sorted(TABLE.vocabulary))


@given(
    st.lists(WORDS, max_size=8),
    st.lists(WORDS, min_size=1, max_size=5),
    st.lists(WORDS, min_size=1, max_size=5),
    st.sets(st.tuples(WORDS, WORDS), max_size=12),
)
def test_descriptions_are_read_as_with_the_official_scorer_s_lists(nouns, truth, likely, alike):
    read = read_description(nouns, truth, likely, TABLE, lambda one, other: one == other or (one, other) in alike)
    invented, covered, cognitive = by_lists_of_flags(nouns, truth, likely, alike)
    assert (list(read.invented), len(read.covered), len(read.cognitive)) == (invented, covered, cognitive)


def test_without_the_queries_only_ids_are_believed(write, score, refused):
    """Yes/no answers that state their questions can't be checked against annotations, which have none."""
    truths = [{"id": n, "type": "discriminative-hallucination", "truth": "no"} for n in range(1, 5)]
    given = ["amber", "--annotations", write("n.json", truths), "--relation", write("r.json", {"cup": []}),
             "--safe-words", write("w.txt", "\n")]  # fmt: skip
    asked = [f"Is there a {name} in this image?" for name in ("cup", "dog", "fork", "cat")]
    ids = [{"id": n, "response": "No"} for n in range(1, 5)]
    assert score(*given, "--answers", write("a.json", ids))["metrics"]["existence_accuracy"] == 100
    stated = [{**row, "query": text} for row, text in zip(ids, asked, strict=True)]
    assert "give query_all.json as --questions" in refused(*given, "--answers", write("b.json", stated))
    assert "has no id" in refused(*given, "--answers", write("c.txt", "No\nNo\nNo\nNo\n"))
    queries = [{"id": n, "image": f"AMBER_{n}.jpg", "query": text} for n, text in enumerate(asked, start=1)]
    q = write("q.json", queries)
    assert score(*given, "--questions", q, "--answers", write("b.json", stated))["counts"]["unanswered"] == 0
    shuffled = [{**row, "query": text} for row, text in zip(ids, asked[1:] + asked[:1], strict=True)]
    found = score(*given, "--questions", q, "--answers", write("d.json", shuffled))
    assert [item["answer"] for item in found["items"]] == ["No"] * 4  # each by what it states, not by its id
