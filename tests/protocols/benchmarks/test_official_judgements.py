"""Judgements in the files that the official tools write, field by field."""

from __future__ import annotations

import numpy as np
import pytest

from protocols.benchmarks.conftest import column

KINDS = ("conv", "detail", "complex")


def llava_reviews(ratings):
    """LLaVA's eval_gpt_review_bench.py: `id` counts from 1, `question_id` from 0."""
    return [
        {
            "id": n + 1, "question_id": n, "answer1_id": f"ref{n}", "answer2_id": f"a{n}",
            "category": f"llava_bench_{KINDS[n % 3]}", "content": f"{one} {other}\nBecause.", "tuple": [one, other],
        }
        for n, (one, other) in enumerate(ratings)
    ]  # fmt: skip


def test_llava_bench_s_reviews_go_by_question_id(write, score):
    rng = np.random.default_rng(0)
    ratings = [(int(one), int(other)) for one, other in rng.integers(4, 11, size=(38, 2))]
    q = write("q.jsonl", [
        {"question_id": n, "image": f"{n // 3:03}.jpg", "text": f"Q{n}?", "category": KINDS[n % 3]} for n in range(38)
    ])  # fmt: skip
    a = write("a.jsonl", [{"question_id": n, "prompt": f"Q{n}?", "text": f"A{n}"} for n in range(38)])
    j = write("j.jsonl", llava_reviews(ratings))
    found = score("llava-bench", "--questions", q, "--answers", a, "--judgements", j, "--judge", "gpt-4-0314")
    assert column(found, "parsed") == [list(pair) for pair in ratings]
    for part in ("all", *KINDS):
        own = [pair for n, pair in enumerate(ratings) if part in ("all", KINDS[n % 3])]
        means = [round(x, 3) for x in np.asarray(own).mean(0).tolist()]
        assert found["metrics"][part] == round(means[1] / means[0] * 100, 1)


def reply(text: str, number: int = 0) -> dict:
    """A chat completion as the OpenAI client's old version returns it."""
    return {
        "id": f"chatcmpl-8{number}", "object": "chat.completion", "created": 1700000000 + number, "model": "gpt-4-0314",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }  # fmt: skip


@pytest.fixture
def mmhal():
    return [
        {
            "question_type": kind, "question_topic": "x", "image_id": f"i{n}", "image_src": f"https://x.org/{n}.jpg",
            "image_content": ["Dog"], "question": f"What {n}?", "gt_answer": "A dog.", "model_answer": f"Answer {n}.",
        }
        for n, kind in enumerate(("attribute", "adversarial", "comparison"))
    ]  # fmt: skip


def test_mmhal_s_replies_belong_to_the_questions_in_their_place(write, score, mmhal):
    j = write("responses.json", [reply(f"Rating: {rating}", n) for n, rating in enumerate((6, 1, 4))])
    found = score("mmhal", "--answers", write("a.json", mmhal), "--judgements", j)
    assert found["judge"]["name"] == "gpt-4-0314"
    assert column(found, "parsed") == [6, 1, 4]
    assert found["metrics"]["score"] == pytest.approx(11 / 3)


def test_mmhal_s_replies_count_unanswered_questions_too(write, score, mmhal):
    mmhal[1]["model_answer"] = ""
    j = write("responses.json", [reply(f"Rating: {rating}", n) for n, rating in enumerate((6, 1, 4))])
    found = score("mmhal", "--answers", write("a.json", mmhal), "--judgements", j)
    assert column(found, "parsed") == [6, None, 4]


def test_another_number_of_replies_is_refused(write, refused, mmhal):
    j = write("responses.json", [reply("Rating: 6"), reply("Rating: 5")])
    assert "2 judgements without ids" in refused("mmhal", "--answers", write("a.json", mmhal), "--judgements", j)


def test_rlaif_v_s_merged_file(write, score, mmhal):
    merged = [{**row, "gpt4_review": f"Fine.\nRating: {r}"} for row, r in zip(mmhal, (0, 5, 3), strict=True)]
    given = ("mmhal", "--answers", write("a.json", mmhal), "--judge", "gpt-4-1106-preview", "--judgements")
    assert column(score(*given, write("m.json", merged)), "parsed") == [0, 5, 3]
    assert column(score(*given, write("m.json", merged[::-1])), "parsed") == [0, 5, 3]


MM_VET = {
    f"v1_{n}": {"imagename": f"v1_{n}.png", "question": f"Q{n}?", "answer": "x", "capability": ["ocr"]}
    for n in range(3)
}


def test_mm_vet_s_grade_file_has_several_runs(write, score):
    contents = [["0.5", "0.7"], ["1.0", "1.0"], ["bad", "0.0"]]
    grades = {
        f"v1_{n}": {"model": ["gpt-4-0613"] * 2, "content": texts, "score": [0.0, 0.0]}
        for n, texts in enumerate(contents)
    }
    a = write("a.json", dict.fromkeys(MM_VET, "answer"))
    found = score(
        "mm-vet", "--questions", write("q.json", MM_VET), "--answers", a, "--judgements", write("g.json", grades)
    )
    assert found["judge"]["name"] == "gpt-4-0613"
    assert column(found, "parsed") == [[0.5, 0.7], [1.0, 1.0], [None, 0.0]]
    assert found["metrics"]["total"] == pytest.approx(100 * (0.6 + 1 + 0) / 3)


def hallusion_rows(category):
    """Rows of one category: two figures with two questions each."""
    return [
        {
            "category": category, "subcategory": "chart", "visual_input": "1" if figure == "0" else "2", "set_id": "0",
            "figure_id": figure, "sample_note": "x", "question_id": question, "question": f"Is it {question}?",
            "gt_answer": "1", "gt_answer_details": "It is.", "filename": f"./{category}/0_{figure}.png",
            "model_prediction": "Yes, it is.",
        }
        for figure in ("0", "1")
        for question in ("0", "1")
    ]  # fmt: skip


def test_hallusionbench_s_output_files_hold_verdicts_and_sameness(write, score):
    codes = {"VD": ["1", "0", "2", "0"], "VS": ["1", "1", "0", "1"]}
    rows = {category: hallusion_rows(category) for category in codes}
    saved = {
        category: [
            {**row, "gpt4v_output_gpt_check": code, "same": "1"}
            for row, code in zip(rows[category], found, strict=True)
        ]
        for category, found in codes.items()
    }
    everything = write("q.json", [*rows["VD"], *rows["VS"]])
    files = [write(f"hallusion_output_{name.lower()}_model.json", saved[name]) for name in saved]
    found = score("hallusionbench", "--questions", everything, "--answers", everything, "--judgements", *files,
                  "--judge", "gpt-4", "--same")  # fmt: skip
    names = {"0": "incorrect", "1": "correct", "2": "unclear"}
    assert column(found, "parsed") == [names[code] for category in codes for code in codes[category]]
    assert found["metrics"]["a_acc"] == pytest.approx(100 * 4 / 8)
    assert [item.get("error") for item in found["items"]] == [
        None, "vision", "vision", "vision", None, None, "language", None,
    ]  # fmt: skip


def test_an_output_file_read_twice_is_refused(write, refused):
    rows = [{**row, "gpt4v_output_gpt_check": "1"} for row in hallusion_rows("VD")]
    q, j, k = write("q.json", rows), write("j.json", rows), write("k.json", rows)
    said = refused("hallusionbench", "--questions", q, "--answers", q, "--judgements", j, k, "--judge", "gpt-4")
    assert "several of one answer" in said


def test_judgements_of_something_else_are_refused(write, refused, mmhal):
    j = write("j.json", {f"v1_{n}": "0.5" for n in range(40)})
    said = refused("mmhal", "--answers", write("a.json", mmhal), "--judgements", j, "--judge", "j")
    assert "40 of 40 judgements are of none of the 3 answers" in said
    assert len(said) < 1000


def test_object_halbench_s_saved_result_gives_its_own_numbers(write, score, refused):
    """In the shape of hall_*.json: words as the scorer's tagger left them, "chocolate cake" no cake."""
    said = ["A man, a dog and a cat on a seat beside a toilet.", "A chocolate cake.", "A cup on a table here."]
    words = [["man", "dog", "cat", "toilet", "seat"], [], ["cup", "dining table", "chocolate cake"]]
    truth = [["person", "dog"], ["cake"], ["cup"]]
    generated = [[["man", "person"], ["dog", "dog"], ["cat", "cat"], ["toilet", "toilet"]], [],
                 [["cup", "cup"], ["dining table", "dining table"]]]  # fmt: skip
    sentences = [
        {"image_id": n, "caption": said[n], "mscoco_hallucinated_words": [], "mscoco_gt_words": truth[n],
         "mscoco_generated_words": generated[n], "hallucination_idxs": [], "words": words[n], "metrics": {}}
        for n in range(3)
    ]  # fmt: skip
    overall = {"CHAIRs_refine": 1.0, "CHAIRi": 0.5, "obj_rec": 0.75, "all_gpt_used_tokens": {"total": 9}}
    given = (
        "object-halbench", "--objects", write("o.json", {str(n): truth[n] for n in range(3)}),
        "--synonyms", write("s.txt", "person, man\ndog\ncat\ncake\ntoilet\nchair, seat\ncup\ndining table, table\n"),
        "--answers", write("a.jsonl", [{"image_id": n, "question": "?", "text": said[n]} for n in range(3)]),
        "--judge", "gpt",
    )  # fmt: skip
    saved = write("hall_a.json", {"sentences": sentences, "overall_metrics": overall})
    found = score(*given, "--judgements", saved)
    assert found["protocol"] == "object-halbench[nouns,judge,saved]/1"
    assert found["faults"] == {}
    assert column(found, "parsed") == [[node for _, node in one] for one in generated]
    shares = [found["metrics"][name] / 100 for name in ("response", "mention", "recall")]
    assert shares == [overall["CHAIRs_refine"], overall["CHAIRi"], overall["obj_rec"]]
    sentences[0]["caption"] = "Another answer that was judged."
    stale = score(*given, "--judgements", write("hall_b.json", {"sentences": sentences, "overall_metrics": overall}))
    assert stale["faults"]["unjudged"] == ["0"]
    bare = write("hall_c.json", {"sentences": sentences, "overall_metrics": {**overall, "all_gpt_used_tokens": {}}})
    assert "no judge listed the objects" in refused(*given, "--judgements", bare)
