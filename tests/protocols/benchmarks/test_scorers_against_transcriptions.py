"""Scorers on random answers against slow transcriptions of the published rules: those that need no judge's rating."""

from __future__ import annotations

import random
import re
from collections import defaultdict

import pytest

from veridical.protocols.benchmarks import amber, gqa, hallusionbench, mme, object_halbench, pope, recall_coco, textvqa
from veridical.protocols.benchmarks.amber_words import SimilarityTable, read_description, similarity
from veridical.protocols.benchmarks.chair_words import refined_pairs
from veridical.protocols.benchmarks.object_phrases import phrase_words
from veridical.protocols.judging import Judgements
from veridical.protocols.types import Answers, Question

SEEDS = pytest.mark.parametrize("seed", range(12))
CLOSED = (
    "Yes", "No", "yes.", "no,", "NO", "None", "Not sure.", "Yes, but not here", "The answer is no. Yes.", " No", "",
    "   No", "snow", "eyes", "y", "n", "Yes  no", "**No**", "Mr. Smith has no dog", "no\n", "是",
)  # fmt: skip


@SEEDS
def test_pope(seed):
    rng = random.Random(seed)
    asked = [Question(str(n), f"{n // 6}", "", rng.choice(["yes", "no"]), "random", f"{n // 6}") for n in range(36)]
    texts = {question.id: rng.choice(CLOSED) for question in asked}
    tp = fp = tn = fn = 0
    for question in asked:
        text = texts[question.id]
        if text.find(".") != -1:
            text = text.split(".")[0]
        words = text.replace(",", "").split(" ")
        said = "no" if "No" in words or "not" in words or "no" in words else "yes"
        tp, fp = tp + (said == "yes" == question.truth), fp + (said == "yes" != question.truth)
        tn, fn = tn + (said == "no" == question.truth), fn + (said == "no" != question.truth)
    precision, recall = tp / (tp + fp), tp / (tp + fn)
    values = pope.count(pope.Settings(questions=()), asked, Answers(texts)).tally.values()
    assert values["accuracy"] == pytest.approx(100 * (tp + tn) / 36)
    assert values["precision"] == pytest.approx(100 * precision)
    assert values["recall"] == pytest.approx(100 * recall)
    assert values["f1"] == pytest.approx(100 * 2 * precision * recall / (precision + recall))
    assert values["yes_ratio"] == pytest.approx(100 * (tp + fp) / 36)


@SEEDS
def test_mme(seed):
    rng = random.Random(seed)
    tasks = ["existence", "OCR", "code_reasoning"]
    asked = [
        Question(f"{task}/{n}/{at}", f"{n}", "", ["yes", "no"][at - 1], task, f"{task}/{n}#1")
        for task in tasks for n in range(5) for at in (1, 2)
    ]  # fmt: skip
    texts = {question.id: rng.choice(CLOSED) for question in asked}
    scores = {}
    for task in tasks:
        right_questions = right_images = 0
        own = [question for question in asked if question.kind == task]
        for pair in zip(own[::2], own[1::2], strict=True):
            right = 0
            for question in pair:
                said = texts[question.id].lower()
                if said not in ("yes", "no"):
                    said = "yes" if "yes" in said[:4] else "no" if "no" in said[:4] else "other"
                right += said == question.truth
            right_questions, right_images = right_questions + right, right_images + (right == 2)
        scores[task] = 100 * (right_questions / 10 + right_images / 5)
    values = mme.count(mme.Settings(), asked, Answers(texts)).tally.values()
    assert {task: values[task] for task in tasks} == pytest.approx(scores)
    assert values["perception"] == pytest.approx(scores["existence"] + scores["OCR"])
    assert values["cognition"] == pytest.approx(scores["code_reasoning"])


@SEEDS
def test_amber_s_questions(seed):
    rng = random.Random(seed)
    kinds = [*amber.QUESTIONS] * 6
    asked = [Question(str(n), "", "", rng.choice(["yes", "no"]), kind, str(n)) for n, kind in enumerate(kinds)]
    texts = {question.id: rng.choice(["Yes", "No", "No", "no", "No.", "Yes, there is", ""]) for question in asked}
    settings = amber.Settings(annotations=None, relation=None, safe_words=None)  # type: ignore[arg-type]
    values = amber.count(settings, asked, Answers(texts)).tally.values()
    groups = {"": amber.QUESTIONS, "existence_": ("existence",), "attribute_": ("state", "number", "action"),
              "relation_": ("relation",)}  # fmt: skip
    for name, members in groups.items():
        number = right = said_no = right_no = 0.001
        truth_no = 0.001
        right -= 0.001
        right_no -= 0.001
        for question in asked:
            if question.kind in members:
                said = texts[question.id]
                number += 1
                right += (said, question.truth) in (("Yes", "yes"), ("No", "no"))
                said_no += said == "No"
                truth_no += question.truth == "no"
                right_no += said == "No" and question.truth == "no"
        precision, recall = round(right_no / said_no * 100, 1), round(right_no / truth_no * 100, 1)
        p, r = precision / 100, recall / 100
        f1 = round(2 * p * r / (p + r + (0.001 if name == "existence_" else 0.0001)) * 100, 1)
        own = [values[f"{name}{metric}"] for metric in ("accuracy", "precision", "recall", "f1")]
        assert own == pytest.approx([round(right / number * 100, 1), precision, recall, f1])


@SEEDS
def test_amber_s_descriptions(seed):
    rng = random.Random(seed)
    words = ["sky", "cloud", "dog", "puppy", "cat", "tree", "orange", "sun", "leaf"]
    associates = {"sky": ["cloud", "sun"], "dog": ["puppy"], "tree": ["leaf"]}
    table = SimilarityTable(associates, frozenset({"orange"}))
    for _ in range(8):
        truth, expected = rng.sample(words, 3), rng.sample(words, 2)
        nouns = rng.choices(words, k=rng.randint(0, 8))
        there, of_there, likely, of_likely = [], [], [], []
        for at, word in enumerate(truth):
            there += associates.get(word, [])
            of_there += [at] * len(associates.get(word, []))
        for at, word in enumerate(expected):
            likely += associates.get(word, [])
            of_likely += [at] * len(associates.get(word, []))
        there, of_there = there + truth, [*of_there, 0, 1, 2]
        likely, of_likely = likely + expected, [*of_likely, 0, 1]
        covered, cognitive, invented = set(), set(), []
        for noun in nouns:
            if noun == "orange":
                continue
            if noun in there:
                covered.add(of_there[there.index(noun)])
                continue
            if noun in likely:
                cognitive.add(of_likely[likely.index(noun)])
            invented.append(noun)
        found = read_description(nouns, truth, expected, table, similarity("exact"))
        assert (list(found.invented), set(found.covered), set(found.cognitive)) == (invented, covered, cognitive)


WORDS = (
    "a", "The", "two", "Zero", "none", "dont", "isnt", "STOP", "1,000", "3.5", "no.", "p.m.", "it's", "dog's", "@home",
    "x-ray", "(red)", "what?", "a,b", "new\nline", "tab\tbed", "10!", "..", "",
)  # fmt: skip
MARKS = [";", "/", "[", "]", '"', "{", "}", "(", ")", "=", "+", "\\", "_", "-", ">", "<", "@", "`", ",", "?", "!"]
SMALL = {"none": "0", "zero": "0", "two": "2"}
SHORTENED = {"dont": "don't", "isnt": "isn't"}


def m4c(text: str) -> str:
    """The M4C evaluator's answer processor, for the words above."""
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    text = text.replace("\n", " ").replace("\t", " ").strip()
    out = text
    for mark in MARKS:
        if mark + " " in text or " " + mark in text or re.search(r"(\d)(,)(\d)", text):
            out = out.replace(mark, "")
        else:
            out = out.replace(mark, " ")
    out = re.sub(r"(?!<=\d)(\.)(?!\d)", "", out, count=32)
    words = [SMALL.get(word, word) for word in out.lower().split()]
    words = [word for word in words if word not in ("a", "an", "the")]
    return " ".join(SHORTENED.get(word, word) for word in words)


@SEEDS
def test_textvqa(seed):
    rng = random.Random(seed)
    asked, texts, scores = [], {}, []
    for n in range(15):
        pool = [" ".join(rng.choices(WORDS, k=rng.randint(1, 2))) for _ in range(3)]
        truth = rng.choices(pool, k=10)
        asked.append(Question(str(n), "", "", truth, group=str(n)))
        texts[str(n)] = rng.choice(pool)
        annotated = [*enumerate(map(m4c, truth))]
        by_annotator = []
        for this in annotated:
            matching = [other for other in annotated if other != this and other[1] == m4c(texts[str(n)])]
            by_annotator.append(min(1, len(matching) / 3))
        scores.append(sum(by_annotator) / 10)
    settings = textvqa.Settings(questions=None)  # type: ignore[arg-type]
    scored = textvqa.count(settings, asked, Answers(texts))
    assert [item.more["score"] for item in scored.items] == pytest.approx(scores)
    assert scored.tally.values()["accuracy"] == pytest.approx(100 * sum(scores) / 15)


@SEEDS
def test_gqa(seed, write):
    rng = random.Random(seed)
    said = ["yes", "no", "red", "Red", "red.", "left "]
    content = {
        str(n): {
            "question": "What is it?", "answer": rng.choice(said[:3]), "imageId": str(n // 3), "isBalanced": n % 7 != 0,
            "types": {"structural": rng.choice(["query", "verify"]), "semantic": rng.choice(["attr", "rel"])},
            "groups": {"global": rng.choice(["color", "place", None])},
        }
        for n in range(40)
    }  # fmt: skip
    texts = {key: rng.choice(said) for key in content}
    settings = gqa.Settings(questions=write("q.json", content))
    values = gqa.count(settings, gqa.ask(settings), Answers(texts)).tally.values()
    rights = defaultdict(list)
    gold: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    predicted: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for key, row in content.items():
        if not row["isBalanced"]:
            continue
        right = float(texts[key] == row["answer"])
        kind = "open" if row["types"]["structural"] == "query" else "binary"
        for name in ("accuracy", kind, f"semantic_{row['types']['semantic']}"):
            rights[name].append(right)
        if group := row["groups"]["global"]:
            gold[group][row["answer"]] += 1
            predicted[group][texts[key]] += 1
    for name, own in rights.items():
        assert values[name] == pytest.approx(100 * sum(own) / len(own))
    score = overall = 0.0
    for group, answers in gold.items():
        chi = sum((predicted[group][answer] - expected) ** 2 / expected for answer, expected in answers.items())
        score, overall = score + chi * sum(answers.values()), overall + sum(answers.values())
    assert values["distribution"] == pytest.approx(score / overall / 100)


@SEEDS
def test_hallusionbench(seed, write):
    rng = random.Random(seed)
    rows = [
        {"category": category, "subcategory": "s", "set_id": str(number), "figure_id": str(figure),
         "question_id": str(q),
         "visual_input": ("0" if category == "VS" and not figure else str(1 + (figure > 0))), "question": f"{q}?",
         "gt_answer": rng.choice("01"), "gt_answer_details": "d", "filename": "f.png"}
        for category in ("VD", "VS") for number in range(3) for figure in range(3) for q in range(2)
    ]  # fmt: skip
    settings = hallusionbench.Settings(questions=write("h.json", rows))
    asked = hallusionbench.ask(settings)
    replies = [rng.choice(["Correct.", "incorrect", "unclear", "It is correct", "not correct", "?"]) for _ in rows]
    judged = Judgements({"name": "j"}, {q.id: [reply] for q, reply in zip(asked, replies, strict=True)})
    texts = dict.fromkeys((question.id for question in asked), "x")
    values = hallusionbench.count(settings, asked, Answers(texts), judged).tally.values()
    groups, easy, hard, figures = (defaultdict(list) for _ in range(4))
    right_all = yes = yes_truth = wrong = wrong_yes = 0
    for row, reply in zip(rows, replies, strict=True):
        code = 0 if "incorrect" in reply.lower() else 1 if "correct" in reply.lower() else 2
        bare = row["category"] == "VS" and int(row["figure_id"]) == 0
        right = code == 1 or (bare and code == 2)
        right_all += right
        key = (row["category"], row["set_id"], row["question_id"])
        groups[key].append(right)
        (hard if row["visual_input"] == "2" else easy)[key].append(right)
        if not bare:
            figures[row["category"], row["set_id"], row["figure_id"]].append(right)
        said_yes = (row["gt_answer"] == "1") == right
        yes, yes_truth = yes + said_yes, yes_truth + (row["gt_answer"] == "1")
        wrong, wrong_yes = wrong + (not right), wrong_yes + (not right and said_yes)
    expected = {"a_acc": 100 * right_all / len(rows), "yes_diff": (yes - yes_truth) / len(rows)}
    for name, by in (("q_acc", groups), ("easy", easy), ("hard", hard), ("f_acc", figures)):
        expected[name] = 100 * sum(all(own) for own in by.values()) / len(by)
    expected["f_wrong"] = 100 * sum(not any(own) for own in figures.values()) / len(figures)
    expected["fp_ratio"] = wrong_yes / wrong
    assert {name: values[name] for name in expected} == pytest.approx(expected)


COCO = {"man": "person", "dog": "dog", "cat": "cat", "seat": "chair", "toilet": "toilet", "cake": "cake",
        "teddy bear": "teddy bear", "bear": "bear", "wine glass": "wine glass"}  # fmt: skip
NOUNS = {"man", "dog", "cat", "seat", "toilet", "cake", "teddy", "bear", "chocolate", "wine", "group", "glas"}


@SEEDS
def test_object_halbench(seed, write):
    rng = random.Random(seed)
    pairs = refined_pairs(COCO)

    def tag(text: str) -> list[tuple[str, str]]:
        return [(word, "NN" if word in NOUNS else "DT") for word in text.split()]

    vocabulary = [*sorted(NOUNS), "of", "brown", "a", "the"]
    invented = mentions = naming = inventing = seen = there = 0
    items = []
    for n in range(10):
        truth = frozenset(rng.sample(sorted(set(COCO.values())), 3))
        phrases = [" ".join(rng.choices(vocabulary, k=rng.randint(1, 4))) for _ in range(rng.randint(0, 5))]
        refined: list[str] = []
        for phrase in phrases:
            tokens = f"a {phrase}".split()
            doubles, at = [], 0
            while at < len(tokens):
                double = " ".join(tokens[at : at + 2])
                if double in pairs:
                    doubles.append(pairs[double])
                    at += 2
                else:
                    at += 1
            if doubles:
                refined += doubles
                continue
            run = ""
            for token in [*tokens, "."]:
                if token in NOUNS:
                    run += f" {token}"
                elif run:
                    refined.append(run.strip())
                    run = ""
        unique: list[str] = []
        for word in refined:
            if word not in unique:
                unique.append(word)
        if ("toilet" in unique) & ("seat" in unique):
            unique = [word for word in unique if word != "seat"]
        nodes = [COCO[word] for word in unique if word in COCO]
        listed = "[" + ", ".join(f'"{phrase}"' for phrase in phrases) + "]"
        assert object_halbench.named(listed, lambda phrase: phrase_words(tag(f"a {phrase}"), pairs), COCO) == nodes
        wrong = [node for node in nodes if node not in truth]
        invented, mentions = invented + len(wrong), mentions + len(nodes)
        naming, inventing = naming + (len(nodes) > 0), inventing + (len(wrong) > 0)
        seen, there = seen + len({node for node in nodes if node in truth}), there + len(truth)
        items.append((str(n), truth, " and ".join(f"a {word}" for word in unique if word in COCO)))
    # Counting, by the same words in texts that are read without a judge.
    synonyms = write("s.txt", "person, man\ndog\ncat\nchair, seat\ntoilet\ncake\nteddy bear\nbear\nwine glass\n")
    objects = write("o.json", {key: sorted(truth) for key, truth, _ in items})
    settings = object_halbench.Settings(objects=objects, synonyms=synonyms)
    texts = Answers({key: text for key, _, text in items})
    values = object_halbench.count(settings, object_halbench.ask(settings), texts).tally.values()
    assert values["response"] == (pytest.approx(100 * inventing / naming) if naming else None)
    assert values["mention"] == (pytest.approx(100 * invented / mentions) if mentions else None)
    assert values["chair_s"] == pytest.approx(10 * inventing)
    assert values["recall"] == pytest.approx(100 * seen / there)
    alone = recall_coco.Settings(objects=objects, synonyms=synonyms)
    assert recall_coco.count(alone, recall_coco.ask(alone), texts).tally.values()["recall"] == values["recall"]


@SEEDS
def test_gqa_s_consistency_validity_and_plausibility(seed, write):
    rng = random.Random(seed)
    said = ["yes", "no", "red", "blue", "color"]
    content = {
        str(n): {
            "question": "What is it?", "answer": rng.choice(said[:3]), "imageId": str(n // 3), "isBalanced": n % 5 != 0,
            "types": {"structural": "query", "semantic": "attr", "detailed": rng.choice(["twoCommon", "exist"])},
            "groups": {"global": None}, "entailed": sorted({str(rng.randrange(30)) for _ in range(rng.randrange(4))}),
        }
        for n in range(30)
    }  # fmt: skip
    choices = {key: {"valid": rng.sample(said, 3), "plausible": rng.sample(said, 2)} for key in content}
    texts = {key: rng.choice(said) for key in content}
    given = {"questions": write("q.json", content), "choices": write("c.json", choices), "consistency": True}
    settings = gqa.Settings(**given)
    values = gqa.count(settings, gqa.ask(settings), Answers(texts)).tally.values()
    scores = defaultdict(list)
    for key, row in content.items():
        if not row["isBalanced"]:
            continue
        common = "Common" in row["types"]["detailed"]
        for metric, name in (("validity", "valid"), ("plausibility", "plausible")):
            group = ["color", "material", "shape"] if common else choices[key][name]
            scores[metric].append(float(texts[key] in group))
        inferred = [other for other in row["entailed"] if other != key]
        if texts[key] == row["answer"] and inferred:
            own = [float(texts[other] == content[other]["answer"]) for other in inferred]
            scores["consistency"].append(sum(own) / len(own))
    for metric, own in scores.items():
        assert values[metric] == pytest.approx(100 * sum(own) / len(own))
