"""What a language model is asked, and how strictly its replies are read; the replies come over real HTTP."""

import json

import pytest
from tests.judges.misbehaving import answer, say, serving, status

from veridical.judges import prompts
from veridical.judges.cache import Cache
from veridical.judges.endpoint import Endpoint
from veridical.judges.interface import (
    METHODS,
    AnsweredQuestion,
    Compare,
    Detect,
    ExtractClaims,
    ExtractObjects,
    Fault,
    Inject,
    JudgeError,
    MakeQuestions,
    Rate,
    Restyle,
    Rewrite,
    ToQuestion,
    Verify,
)
from veridical.judges.language import ERRORS, LanguageJudge
from veridical.judges.lexicon import Mention
from veridical.judges.messages import Service
from veridical.judges.prompting import UnreadableError, json_object
from veridical.judges.prompts import prompt, read_prompt
from veridical.judges.record_context import known
from veridical.records import Annotations, Message, ObjectInImage, Record, Region, Relation

PROMPT = (Message("user", "What is there?"),)
RECORD = Record(
    "r1",
    (),
    PROMPT,
    reference="A black dog.",
    annotations=Annotations(
        (ObjectInImage("dog", (0, 0.5, 1, 1), ("black",)), ObjectInImage("dog"), ObjectInImage("ball")),
        "park",
        (Relation("ball", "left of", "dog"),),
        (Region("a wagging tail", (0, 0, 0.5, 0.25)),),
        ("It is summer.",),
    ),
)
BARE = Record("bare", (), PROMPT)
TEXT = "A brown dog and a cat sit. A brown dog barks."


def judged(method, request, *deeds, cache=None):
    """The judge's answer to one request when its endpoint does these deeds; and what the endpoint was asked."""
    with serving(*deeds) as server:
        endpoint = Endpoint(server.url, "judge-1", sees=False, tries=1)
        judge = LanguageJudge(Service(endpoint, Cache(cache) if cache else None))
        [found] = getattr(judge, method)([request])
    return found, server.asked, judge.service.usage


def reply(**content):
    return say(json.dumps(content))


FINDINGS = {
    "objects": [{"name": "Dog", "quote": "brown dog"}, {"name": "cat", "quote": "cat"},
                {"name": "dog", "quote": "brown dog"}],
    "faults": [
        {"kind": "object", "quote": "a cat", "correction": "", "reason": "there is none"},
        {"kind": "attribute", "quote": "brown", "correction": "black", "reason": "it is black"},
    ],
    "missing": ["ball"],
}  # fmt: skip


def test_detect():
    found, [asked], _ = judged("detect", Detect(RECORD, TEXT), reply(**FINDINGS))
    assert found.named == (Mention("dog", 2, 11), Mention("cat", 18, 21), Mention("dog", 29, 38))
    assert found.invented == (Mention("cat", 18, 21),)
    assert found.missing == ("ball",)
    assert found.faults == (
        Fault("attribute", 2, 7, "it is black", "black"),
        Fault("object", 16, 21, "there is none"),
    )
    said = asked["messages"][1]["content"]
    assert TEXT in said
    assert known(RECORD) in said
    assert asked["messages"][0]["role"] == "system"


def test_what_is_known_in_words():
    assert known(RECORD).splitlines() == [
        "(Boxes are [left, top, right, bottom], as fractions of the picture's width and height.)",
        "Scene: park",
        "Object: dog x 2 (black) at [0.00, 0.50, 1.00, 1.00]",
        "Object: ball x 1",
        "Relation: ball left of dog",
        "Region [0.00, 0.00, 0.50, 0.25]: a wagging tail",
        "Fact: It is summer.",
        "A correct description: A black dog.",
    ]
    assert known(BARE) == "none given"


def test_a_judge_without_eyes_is_not_asked_about_what_nobody_knows():
    for method, request in (
        ("detect", Detect(BARE, TEXT)),
        ("compare", Compare(BARE, PROMPT, "a", "b")),
        ("rate", Rate(BARE, PROMPT, "a")),
        ("verify", Verify(BARE, "a")),
    ):
        found, asked, _ = judged(method, request, status(500))
        assert (found.reason, asked) == ("nothing-to-judge-by", [])


@pytest.mark.parametrize(
    ("first", "second", "margin", "consistent"),
    [(1, 2, 1, True), (2, 1, -1, True), (1, 1, 0, False), ("tie", "tie", 0, True), ("tie", 1, -0.5, False)],
)
def test_comparing_swaps_the_two(first, second, margin, consistent):
    """The same answer to both orders ("1" twice) is a change of mind."""

    def judge(body):
        said = body["messages"][1]["content"]
        swapped = said.index("BBB") < said.index("AAA")
        return json.dumps({"reason": "so", "better": second if swapped else first})

    found, asked, _ = judged("compare", Compare(RECORD, PROMPT, "AAA", "BBB"), answer(judge))
    assert (found.margin, found.consistent) == (margin, consistent)
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("method", "request_", "content", "expected"),
    [
        (
            "extract_objects",
            ExtractObjects("two dogs"),
            {"objects": [{"name": "dog", "quote": "two dogs"}]},
            [Mention("dog", 0, 8)],
        ),
        ("rate", Rate(RECORD, PROMPT, "a"), {"reason": "x", "grade": 7}, 0.7),
        ("verify", Verify(RECORD, "a"), {"holds": "Yes"}, 1.0),
        ("verify", Verify(RECORD, "a"), {"holds": "unclear"}, 0.5),
        ("rewrite", Rewrite("a cat", ("cat",)), {"text": None}, None),
        ("rewrite", Rewrite("a cat", ("cat",)), {"text": " a dog "}, "a dog"),
        ("inject", Inject(RECORD, "a dog", "object", (1,)), {"text": "a dog and a cat"}, "a dog and a cat"),
        ("restyle", Restyle(RECORD, ("a", "b"), 7, ()), {"texts": ["c", "d"]}, ("c", "d")),
        ("extract_claims", ExtractClaims("a dog"), {"claims": ["There is a dog."]}, ("There is a dog.",)),
        ("extract_claims", ExtractClaims("nice!"), {"claims": []}, ()),
        ("to_question", ToQuestion("There is a dog."), {"question": "Is there a dog?"}, "Is there a dog?"),
        (
            "make_questions",
            MakeQuestions(RECORD, "a dog", "a cat"),
            {"questions": [{"question": "A cat?", "answer": "no"}, {"question": "A dog?", "answer": "yes"}]},
            (AnsweredQuestion("A cat?", "No.", "Yes."), AnsweredQuestion("A dog?", "Yes.", "No.")),
        ),
    ],
)
def test_readings(method, request_, content, expected):
    found, _, usage = judged(method, request_, reply(**content))
    assert found == expected
    assert usage.repairs == 0


@pytest.mark.parametrize(
    ("method", "request_", "bad", "told"),
    [
        ("extract_claims", ExtractClaims("a"), "Sure! Here are the claims.", "not JSON"),
        ("extract_claims", ExtractClaims("a"), "", "empty"),
        ("extract_claims", ExtractClaims("a"), "[]", "list, not an object"),
        ("extract_claims", ExtractClaims("a"), '{"claims": "There is a dog."}', "must be a list"),
        ("extract_claims", ExtractClaims("a"), '{"claims": ["a", ""]}', "must be a non-empty string"),
        ("restyle", Restyle(RECORD, ("a", "b"), 0, ()), '{"texts": ["c"]}', "must hold 2 texts, not 1"),
        ("detect", Detect(RECORD, TEXT), '{"objects": [{"name": "bus", "quote": "a bus"}], "faults": [],'
         '"missing": []}', "'a bus' is not in the text"),
        ("detect", Detect(RECORD, TEXT), '{"objects": [], "faults": [{"kind": "odd", "quote": "cat",'
         '"reason": "x"}], "missing": []}', "must be one of"),
        ("compare", Compare(RECORD, PROMPT, "a", "b"), '{"better": 3}', '1, 2 or "tie"'),
        ("compare", Compare(RECORD, PROMPT, "a", "b"), '{"better": true}', '1, 2 or "tie"'),
        ("rate", Rate(RECORD, PROMPT, "a"), '{"grade": 11}', "from 0 to 10"),
        ("rate", Rate(RECORD, PROMPT, "a"), '{"grade": "good"}', "from 0 to 10"),
        ("verify", Verify(RECORD, "a"), '{"holds": "maybe"}', "must be one of"),
        ("inject", Inject(RECORD, "a  dog", "any", ()), '{"text": "a dog"}', "unchanged"),
    ],
)  # fmt: skip
def test_what_is_not_of_the_form_is_sent_back_once_and_then_a_counted_failure(tmp_path, method, request_, bad, told):
    found, asked, usage = judged(method, request_, say(bad), cache=tmp_path)
    assert isinstance(found, JudgeError)
    assert found.reason == "judge-unreadable"
    assert str(found).endswith(f"it begins {bad[:80]!r}")
    rounds = 2 if method == "compare" else 1
    assert (len(asked), usage.repairs) == (2 * rounds, rounds)
    assert usage.failures == {"judge-unreadable": rounds}
    assert told in asked[-1]["messages"][-1]["content"]
    assert asked[-1]["messages"][-2] == {"role": "assistant", "content": bad or "(nothing)"}
    # What was of no use is not kept, so that another run asks anew.
    assert not Cache(tmp_path).store.keys()


def test_a_repaired_reply_counts():
    found, asked, usage = judged("extract_claims", ExtractClaims("a"), say("Hm.", '{"claims": ["There is a dog."]}'))
    assert found == ("There is a dog.",)
    assert (len(asked), usage.repairs, usage.failures) == (2, 1, {})


def test_a_reply_that_was_cut_off_is_not_read():
    found, asked, _ = judged("extract_claims", ExtractClaims("a"), say('{"claims": []}', finish="length"))
    assert isinstance(found, JudgeError)
    assert "cut off" in asked[-1]["messages"][-1]["content"]


@pytest.mark.parametrize(
    "text", ['{"a": 1}', ' \n{"a": 1}\n', '```json\n{"a": 1}\n```', "```\n{\"a\": 1}\n```",
             '<think>{"b"</think>\n{"a": 1}']
)  # fmt: skip
def test_what_counts_as_a_json_object(text):
    assert json_object(text) == {"a": 1}


@pytest.mark.parametrize("text", ['{"a": 1} Done.', 'Here: {"a": 1}', '```json\n{"a": 1}', "null", '{"a": 1}{"a": 1}'])
def test_what_does_not(text):
    with pytest.raises(UnreadableError):
        json_object(text)


def test_other_kinds_of_errors_and_keys_are_other_requests():
    first = judged("inject", Inject(RECORD, "a dog", "count", ("k", 1), count=2), reply(text="x"))[1][0]
    second = judged("inject", Inject(RECORD, "a dog", "count", ("k", 2), mode="question"), reply(text="x"))[1][0]
    assert first["seed"] != second["seed"]
    assert first["temperature"] == 0.8
    assert ERRORS["count"] in first["messages"][1]["content"]
    assert "exactly 2 error(s)" in first["messages"][1]["content"]
    assert "What is there?" in second["messages"][1]["content"]


def test_a_rewrite_says_what_to_change():
    request = Rewrite(TEXT, ("cat",), {"bus": "car"}, ("ball",), (Fault("attribute", 2, 7, "it is black", "black"),))
    _, [asked], _ = judged("rewrite", request, reply(text="x"))
    for line in (
        "- Remove every mention of: cat.",
        "- Replace the bus with a car.",
        "- Also mention: ball.",
        '- "brown" is wrong (it is black); change it to "black".',
    ):
        assert line in asked["messages"][1]["content"]


def test_failures_stay_with_their_request():
    with serving(answer(lambda body: '{"claims": ["There is a dog."]}' if "good" in str(body) else "no")) as server:
        judge = LanguageJudge(Service(Endpoint(server.url, "judge-1", sees=False)))
        found = judge.extract_claims([ExtractClaims("good 1"), ExtractClaims("bad"), ExtractClaims("good 2")])
    assert [isinstance(one, JudgeError) for one in found] == [False, True, False]


def test_every_prompt_is_a_file_with_a_version_and_a_hash():
    names = set(METHODS.values()) - {"similarity"}
    for name in (*names, "repair"):
        found = prompt(name)
        assert found.tag == f"{name}/{found.version}:{found.sha256[:8]}"
        assert prompts.prompt(name) is found
    with pytest.raises(ValueError, match="version line"):
        read_prompt("x", b"[system]\nHello")
    with pytest.raises(KeyError):
        prompt("to_question").fill({})
