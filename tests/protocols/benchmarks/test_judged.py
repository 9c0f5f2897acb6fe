"""Benchmarks that a judge scores: the three steps, the official parsers text by text, and judges that don't mix."""

from __future__ import annotations

import json

import pytest

from protocols.benchmarks.conftest import column
from veridical.cli import main
from veridical.judges.sentences import shr_sentences
from veridical.protocols.benchmarks.llava_bench import parse_ratings
from veridical.protocols.benchmarks.mm_vet import parse_score
from veridical.protocols.benchmarks.mmhal import parse_rating
from veridical.protocols.benchmarks.shr import JUDGE, distinct_grams, parse_judgement
from veridical.protocols.judging import Template


@pytest.mark.parametrize(
    ("text", "rating"),
    [
        ("Explanation.\nRating: 5", 5),
        ("RATING: 0, for ...", 0),
        ("rating: 6 rating: 6", 6),
        ("Rating: 10", 1),
        ("rating: 55", 5),
        ("Rating: 7", None),
        ("Rating:5", None),
        ("Rating:  4", None),
        ("Score: 5", None),
        ("Rating: 2, or rather rating: 3", None),
        ("", None),
        ("评分 5", None),
    ],
)
def test_mmhal_finds_exactly_one_rating(text, rating):
    assert parse_rating(text) == rating


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("0.5", 0.5),
        ("1", 1.0),
        ("0.9 because", 0.9),
        ("1.0\n", 1.0),
        (" 0.5", None),
        ("1.5", None),
        ("-0.1", None),
        ("0.5.", None),
        ("Score: 0.5", None),
        ("", None),
        ("零", None),
        ("nan", None),
        ("inf", None),
    ],
)
def test_mm_vet_takes_the_number_before_the_first_blank(text, score):
    assert parse_score(text) == score


@pytest.mark.parametrize(
    ("text", "ratings"),
    [
        ("8 7", (8, 7)),
        ("8,7", (8, 7)),
        ("8.5 7\nAssistant 1 ...", (8.5, 7)),
        ("8, 7", None),
        (" 8 7", None),
        ("8 7 ", None),
        ("8  7", None),
        ("Scores: 8 7", None),
        ("8/10 7/10", None),
        ("8", None),
        ("8 7 6", None),
        ("", None),
        ("\n8 7", None),
        ("8 inf", None),
        ("8 nan", None),
        ("-Infinity 8", None),
    ],
)
def test_llava_bench_takes_two_numbers_that_are_all_of_the_first_line(text, ratings):
    assert parse_ratings(text) == ratings


def test_shr_splits_sentences_at_every_period():
    assert shr_sentences("A dog. A cat. A dog. dog") == ["A dog", "A cat"]
    assert shr_sentences("Mr. Smith has 3.5 dogs.") == ["Mr", "Smith has 3", "5 dogs"]
    assert shr_sentences("一只狗。一只猫。") == ["一只狗。一只猫。"]
    assert shr_sentences("") == []


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("1. hallucination: no dog", "hallucination"),
        ("1. Correct: yes", "correct"),
        ("1. cannot judge: unclear", "cannot judge"),
        ("1. [correct]: x", None),
        ("1. **hallucination**: x", None),
        ("1. correct : x", None),
        (" 1. correct: x", None),
        ("1.  correct: two blanks", "correct"),
        ("correct: x", None),
    ],
)
def test_shr_reads_the_class_between_the_first_word_and_the_colon(line, name):
    assert parse_judgement(f"Some words.\nJudgement:\n{line}", 1) == [name]


def test_shr_drops_all_where_the_numbers_differ_or_nothing_was_judged():
    assert parse_judgement("Judgement:\n1. correct: x", 2) == [None, None]
    assert parse_judgement("1. correct: x", 1) == [None]


def test_shr_drops_lines_of_which_nothing_is_left():
    text = "Judgement:\n1. correct: x\n   \n2.  hallucination: y\n3. \n\n"
    assert parse_judgement(text, 2) == ["correct", "hallucination"]


def test_shr_asks_again_until_the_reply_has_a_judgement():
    assert not JUDGE.usable("I can't see the image.")
    assert JUDGE.usable("Judgement:\n1. correct: x")


def test_distinct_runs_of_words():
    assert distinct_grams("a b, a b.", 1) == 0.5
    assert distinct_grams("a b a b", 2) == pytest.approx(2 / 3)
    assert distinct_grams("a", 2) is None


def test_braces_in_an_answer_stay():
    assert Template("Q: {question} {other}").fill(question="{question} {x}") == "Q: {question} {x} {other}"
    assert Template("a").hash != Template("a", "system").hash


ANSWERS = (("attribute", "Red"), ("counting", "Two"), ("counting", "One"), ("other", ""))


@pytest.fixture
def mmhal(write):
    rows = [
        {
            "question_type": kind, "image_id": str(n), "image_src": f"https://x.org/{n}.jpg",
            "image_content": ["Dog", "Cat"], "question": f"What {n}?", "gt_answer": f"Truth {n}.",
            "model_answer": answer,
        }
        for n, (kind, answer) in enumerate(ANSWERS)
    ]  # fmt: skip
    return write("mmhal.json", rows)


def judged(*texts: str, **more: str) -> list[dict]:
    return [{"id": str(n), "text": text, "judge": "a-judge", **more} for n, text in enumerate(texts, start=1)]


def test_mmhal_worked_by_hand(write, score, mmhal):
    found = score(
        "mmhal", "--answers", mmhal, "--judgements", write("j.jsonl", judged("Rating: 6", "Rating: 1", "none"))
    )
    assert found["protocol"] == "mmhal/1"
    assert found["judge"]["name"] == "a-judge"
    assert column(found, "parsed") == [6, 1, None, None]
    assert column(found, "right") == [True, False, False, None]
    metrics = found["metrics"]
    assert metrics["score"] == pytest.approx(7 / 3)
    assert metrics["hallucination_rate"] == pytest.approx(2 / 3)
    assert metrics["informativeness"] == pytest.approx(100 * (3 + 1 + 0) / 9)
    assert metrics["score_counting"] == 0.5
    assert metrics["score_other"] is None
    assert found["faults"] == {"unanswered": ["4"], "unparsed": ["3"]}


def test_mmhal_s_types_come_in_turns(score, mmhal):
    found = score("mmhal", "--questions", mmhal, "--check")
    assert found["unlike_official"] == [f"{kind}: {n} questions, officially 12" for kind, n in (
        ("attribute", 1), ("counting", 2), ("other", 1)
    )]  # fmt: skip
    assert found["out_of_order"][0] == "2: is counting, and it is the turn of adversarial"


def test_prompts_are_made_judged_elsewhere_and_read_again(write, score, mmhal, tmp_path, capsys):
    prompts = tmp_path / "prompts.jsonl"
    with pytest.raises(SystemExit):
        main(["score", "mmhal", "--answers", str(mmhal), "--make-prompts", str(prompts)])
    assert "3 prompts" in capsys.readouterr().out
    rows = [json.loads(line) for line in prompts.read_text().splitlines()]
    assert [row["id"] for row in rows] == ["1", "2", "3"]
    assert all(part in rows[0]["prompt"] for part in ("Dog, Cat", "What 0?", "Truth 0.", "Red"))
    assert (rows[0]["max_tokens"], rows[0]["temperature"]) == (1024, 0.0)
    answered = [{**row, "text": "Rating: 4", "judge": "local"} for row in rows]
    found = score("mmhal", "--answers", mmhal, "--judgements", write("j.jsonl", answered))
    assert found["judge"] == {"name": "local", "prompt": rows[0]["template"]}
    assert found["metrics"]["score"] == 4


def test_official_replies_join_by_order_and_need_the_judge_s_name(write, score, refused, mmhal):
    replies = [{"choices": [{"message": {"content": f"Rating: {n}"}}]} for n in (3, 2, 5)]
    j = write("j.json", replies)
    assert "give --judge NAME" in refused("mmhal", "--answers", mmhal, "--judgements", j)
    found = score("mmhal", "--answers", mmhal, "--judgements", j, "--judge", "gpt-4-0314")
    assert column(found, "parsed")[:3] == [3, 2, 5]
    assert found["judge"] == {"name": "gpt-4-0314", "prompt": "not stated"}


def test_judges_and_prompts_are_never_mixed(write, refused, mmhal):
    two = judged("Rating: 6", "Rating: 1")
    two[1]["judge"] = "another"
    said = refused("mmhal", "--answers", mmhal, "--judgements", write("j.jsonl", two))
    assert "'a-judge', 'another'; numbers of different judges are never mixed" in said
    other = write("k.jsonl", judged("Rating: 6", template="0123456789ab"))
    assert "made with the prompt 0123456789ab" in refused("mmhal", "--answers", mmhal, "--judgements", other)
    assert "needs a judge" in refused("mmhal", "--answers", mmhal)


def test_bad_judgements_are_named(write, score, mmhal):
    rows = [
        *judged("Rating: 6"),
        *judged("Rating: 0"),
        {"id": "9", "text": "Rating: 1"},
        {"id": "2", "judge": "a-judge"},
    ]
    stale = {"id": "3", "text": "Rating: 1", "prompt": "about another answer", "judge": "a-judge"}
    found = score("mmhal", "--answers", mmhal, "--judgements", write("j.jsonl", [*rows, stale]))
    counts = found["counts"]
    assert (counts["duplicates"], counts["surplus"], counts["unreadable"], counts["stale"]) == (1, 1, 1, 1)
    assert found["faults"]["unjudged"] == ["2", "3"]
    assert found["metrics"]["score"] == 6


def test_another_template_has_another_hash(write, score, mmhal):
    t = write("t.txt", "Rate {model_answer}")
    j = write("j.jsonl", judged("Rating: 6"))
    given = ("mmhal", "--answers", mmhal, "--judgements", j)
    assert score(*given)["judge"]["prompt"] == "not stated"
    other = write("k.jsonl", judged("Rating: 6", template=Template("Rate {model_answer}").hash))
    found = score("mmhal", "--answers", mmhal, "--judgements", other, "--template", t)
    assert found["judge"]["prompt"] == Template("Rate {model_answer}").hash


MM_VET = {
    "v1_0": {"imagename": "a.jpg", "question": "x?", "answer": "one<AND>two", "capability": ["ocr", "math"]},
    "v1_1": {"imagename": "b.jpg", "question": "y?", "answer": "three", "capability": ["rec"]},
    "v1_2": {"imagename": "c.jpg", "question": "z?", "answer": "four", "capability": ["rec", "ocr"]},
}


def test_mm_vet_by_capability_and_over_runs(write, score):
    q = write("q.json", MM_VET)
    a = write("a.json", {"v1_0": "1, 2", "v1_1": "3", "v1_2": "4"})
    runs = [
        write("r1.json", {"v1_0": "0.5", "v1_1": "1.0", "v1_2": "bad"}),
        write("r2.json", {"v1_0": "0.7", "v1_1": "1.0", "v1_2": "0.2"}),
    ]
    found = score("mm-vet", "--questions", q, "--answers", a, "--judgements", *runs, "--judge", "j")
    assert column(found, "score") == [pytest.approx(0.6), 1.0, pytest.approx(0.1)]
    assert column(found, "parsed") == [[0.5, 0.7], [1.0, 1.0], [None, 0.2]]
    metrics = found["metrics"]
    assert metrics["total"] == pytest.approx(100 * 1.7 / 3)
    assert metrics["ocr"] == pytest.approx(35)
    assert metrics["rec"] == pytest.approx(55)
    assert metrics["set math+ocr"] == pytest.approx(60)
    assert found["faults"]["unparsed"] == ["v1_2"]


def test_mm_vet_takes_llava_s_numbered_rows(write, score):
    q = write("q.json", MM_VET)
    a = write("a.jsonl", [{"question_id": n, "prompt": p, "text": "t"} for n, p in ((1, "y?"), (0, "x?"))])
    j = write("j.json", {"v1_0": "0.5", "v1_1": "1.0"})
    found = score("mm-vet", "--questions", q, "--answers", a, "--judgements", j, "--judge", "j")
    assert column(found, "score") == [0.5, 1.0, None]


def test_mm_vet_with_nan_is_unparsed(write, score):
    q, a = write("q.json", MM_VET), write("a.json", {"v1_1": "3"})
    found = score(
        "mm-vet", "--questions", q, "--answers", a, "--judgements", write("j.json", {"v1_1": "nan"}), "--judge", "j"
    )
    assert found["metrics"]["total"] == 0
    assert found["faults"] == {"unanswered": ["v1_0", "v1_2"], "unparsed": ["v1_1"]}


def test_mm_vet_prompts_space_the_connectors(write, tmp_path):
    q, a, out = write("q.json", MM_VET), write("a.json", {"v1_0": "both"}), tmp_path / "p.jsonl"
    with pytest.raises(SystemExit):
        main(["score", "mm-vet", "--questions", str(q), "--answers", str(a), "--make-prompts", str(out)])
    assert "x? | one <AND> two | both | " in json.loads(out.read_text())["prompt"]


LLAVA = [
    {"question_id": n, "image": f"{n:03}.jpg", "text": f"Q{n}?", "category": kind}
    for n, kind in enumerate(("conv", "conv", "detail"), start=1)
]


def test_llava_bench_keeps_unparsed_ratings_in_its_means(write, score):
    q = write("q.jsonl", LLAVA)
    a = write("a.jsonl", [{"question_id": n, "text": "A"} for n in (1, 2, 3)])
    j = write("j.jsonl", [{"question_id": n, "content": t} for n, t in ((1, "8 7\n..."), (2, "9,9"), (3, "8, 7"))])
    found = score("llava-bench", "--questions", q, "--answers", a, "--judgements", j, "--judge", "j")
    assert column(found, "parsed") == [[8, 7], [9, 9], None]
    metrics = found["metrics"]
    reference, model = round((8 + 9 - 1) / 3, 3), round((7 + 9 - 1) / 3, 3)
    assert metrics["all"] == round(100 * model / reference, 1)
    assert (metrics["all_reference"], metrics["all_model"]) == (round(reference * 10, 1), round(model * 10, 1))
    assert metrics["conv"] == round(100 * 8 / 8.5, 1)
    assert metrics["detail"] == 100
    assert found["counts"]["unparsed"] == 1


def test_llava_bench_prompts_need_context_and_references(write, refused, tmp_path):
    q, a = write("q.jsonl", LLAVA), write("a.jsonl", [{"question_id": 1, "text": "A"}])
    out = tmp_path / "p.jsonl"
    given = ("llava-bench", "--questions", q, "--answers", a, "--make-prompts", out)
    assert "needs --context and --references" in refused(*given)
    c = write("c.jsonl", [{"image": "001.jpg", "caption": "A street."}])
    r = write("r.jsonl", [{"question_id": 1, "text": "Reference."}])
    with pytest.raises(SystemExit):
        main(["score", *map(str, given), "--context", str(c), "--references", str(r)])
    row = json.loads(out.read_text())
    assert all(part in row["prompt"] for part in ("A street.", "Q1?", "Reference.", "[Assistant 2]\nA\n"))
    assert row["system"]


def test_shr_worked_by_hand(write, score):
    a = write("a.json", {"7": "A dog runs. A cat sits. A dog runs.", "8": "Two birds fly."})
    j = write("j.json", {"7": "Judgement:\n1. correct: x\n2. hallucination: y", "8": "Judgement:\n1. cannot judge: z"})
    found = score("shr", "--answers", a, "--judgements", j, "--judge", "j")
    assert column(found, "parsed") == [["correct", "hallucination"], ["cannot judge"]]
    assert column(found, "right") == [False, True]
    metrics = found["metrics"]
    assert metrics["hal_sents_ratio"] == round(1 / 3, 3)
    assert metrics["hal_words_ratio"] == round(3 / 9, 3)
    assert metrics["hal_sents_per_image"] == 0.5
    assert metrics["sents_per_image"] == 1.5
    assert metrics["gram_1"] == round((5 / 9 + 1) / 2, 3)
    assert found["counts"]["unparsed"] == 0


def test_shr_without_a_usable_judgement(write, score):
    a = write("a.json", {"7": "A dog. A cat.", "8": "A bird.", "9": "A cow."})
    j = write("j.json", {"7": "Judgement:\n1. correct: x", "8": "Judgement:\n1. [correct]: x"})
    found = score("shr", "--answers", a, "--judgements", j, "--judge", "j")
    assert column(found, "parsed") == [[None, None], [None], None]
    assert found["metrics"]["hal_sents_ratio"] is None
    assert found["faults"] == {"unparsed": ["7", "8"], "unjudged": ["9"]}


def test_shr_prompts_hold_regions_facts_and_sentences(write, refused, tmp_path):
    a, out = write("a.json", {"7": "A dog. A cat."}), tmp_path / "p.jsonl"
    assert "needs --regions" in refused("shr", "--answers", a, "--make-prompts", out)
    regions = write("r.json", {"7": ["[0.10,0.20,0.30,0.40]: a brown dog"], "9": ["x"]})
    facts = write("f.jsonl", [{"image_id": 7, "facts": ["The dog is brown."]}])
    given = ["--answers", a, "--regions", regions, "--facts", facts, "--make-prompts", out]
    with pytest.raises(SystemExit):
        main(["score", "shr", *map(str, given)])
    (row,) = [json.loads(line) for line in out.read_text().splitlines()]
    assert all(part in row["prompt"] for part in ("a brown dog", "The dog is brown.", "1. A dog\n2. A cat"))


def test_shr_s_numbers_an_image_are_of_judged_images_and_kept_sentences(write, score):
    a = write("a.json", {"7": "A dog runs. A cat sits. A dog runs.", "8": "Two birds fly.", "9": "x y z. w."})
    j = write("j.json", {"7": "Judgement:\n1. correct: x\n2. hallucination: y", "8": "nothing"})
    metrics = score("shr", "--answers", a, "--judgements", j, "--judge", "j")["metrics"]
    assert metrics["sents_per_image"] == 1.5  # the unparsed image counts, the unjudged one doesn't
    assert metrics["words_per_image"] == (3 + 3 + 3) / 2
    assert metrics["hal_sents_per_image"] == 0.5


def test_shr_reads_visual_genome_s_regions_and_the_facts_as_they_are_published(write, tmp_path):
    a, out = write("a.json", {"7": "A dog. A cat."}), tmp_path / "p.jsonl"
    box = {"region_id": 1, "width": 50, "height": 20, "image_id": 7, "phrase": "a brown dog", "y": 10, "x": 33}
    regions = write("region_descriptions.json", [
        {"id": 7, "regions": [box, {**box, "phrase": ""}]}, {"id": 8, "regions": [{**box, "image_id": 8}]},
    ])  # fmt: skip
    data = write("image_data.json", [{"image_id": n, "width": 300, "height": 200, "url": "x"} for n in (7, 8)])
    wanted = write("val_images_final.json", [{"image_id": 7, "url": "x"}])
    facts = write("shr_factual_part1.jsonl", [{"7": ["The dog is brown.", "It sleeps."]}, {"9": ["x"]}])
    given = ["--answers", a, "--regions", regions, "--image-data", data, "--val-images", wanted, "--facts", facts]
    with pytest.raises(SystemExit):
        main(["score", "shr", *map(str, given), "--make-prompts", str(out)])
    (row,) = [json.loads(line) for line in out.read_text().splitlines()]
    assert "[0.11, 0.05, 0.28, 0.15]: a brown dog\n" in row["prompt"]
    assert "The dog is brown.\nIt sleeps." in row["prompt"]


def test_shr_s_official_judgement_file(write, score, refused):
    a = write("a.json", {"7": "A dog."})
    run = {"7": {"raw_judgement": "Judgement:\n1. correct: x", "judgement": [{"classification": "correct"}]}}
    given = ("shr", "--answers", a, "--judge", "gpt-4", "--judgements")
    assert column(score(*given, write("j.json", {"run1": run})), "parsed") == [["correct"]]
    assert "holds 2 runs" in refused(*given, write("k.json", {"run1": run, "run2": run}))
