"""Which objects are in an image, asked of every judge that can tell."""

import json

from tests.judges.misbehaving import answer, serving

from veridical.judges.interface import Fault, Findings, JudgeError, Presence, truth_of
from veridical.judges.lexicon import Lexicon, Mention
from veridical.judges.models import LanguageModelSettings
from veridical.judges.offering import who_offers
from veridical.judges.oracle import Oracle
from veridical.judges.panel import Panel
from veridical.judges.registry import JudgeContext
from veridical.judges.rules import Rules
from veridical.records import Annotations, Message, ObjectInImage, Record, Region

WORDS = Lexicon({"fork": "fork", "cup": "cup", "mug": "cup", "knife": "knife"})
PROMPT = (Message("user", "?"),)
ANNOTATED = Record("a", (), PROMPT, annotations=Annotations((ObjectInImage("fork"),), regions=(Region("a mug"),)))
CAPTIONED = Record("c", (), PROMPT, reference="A mug.")
UNKNOWN = Record("u", (), PROMPT)


def test_the_oracle_knows_what_is_annotated():
    seen, everything, failed = Panel((Oracle(WORDS, ()),)).answer(
        [Presence(ANNOTATED, ("cup", "fork", "knife", "unicorn")), Presence(ANNOTATED), Presence(CAPTIONED)]
    )
    assert seen == {"cup": "present", "fork": "present", "knife": "absent", "unicorn": "unknown"}
    assert everything == {"cup": "present", "fork": "present", "knife": "absent"}
    assert isinstance(failed, JudgeError)


def test_rules_go_by_the_reference_and_by_a_setting():
    asked = [Presence(CAPTIONED, ("cup", "fork")), Presence(ANNOTATED), Presence(UNKNOWN)]
    seen, both, failed = Rules(WORDS).presence(asked)
    assert seen == {"cup": "present", "fork": "absent"}
    assert both == {"cup": "absent", "fork": "present", "knife": "absent"}
    assert isinstance(failed, JudgeError)
    assert Rules(WORDS, "unknown").presence(asked)[0] == {"cup": "present", "fork": "unknown"}


def test_a_language_model_is_asked_for_each_name(tmp_path):
    replies = {
        "Objects to look for:\n- Cup\n- fork\n": {"objects": [{"name": "cup", "there": "yes"},
                                                              {"name": "fork", "there": "unclear"}]},
        "List every kind": {"objects": ["Mug", "spoon"]},
        "- knife": {"objects": []},
    }  # fmt: skip

    def said(body):
        text = body["messages"][1]["content"]
        return json.dumps(next(reply for part, reply in replies.items() if part in text))

    with serving(answer(said)) as server:
        judge = LanguageModelSettings(model="m", url=server.url, cache=tmp_path).open(JudgeContext())
        everything, seen, silent, unknown = judge.presence(
            [
                Presence(CAPTIONED),
                Presence(CAPTIONED, ("Cup", "fork")),
                Presence(CAPTIONED, ("knife",)),
                Presence(UNKNOWN),
            ]
        )
    assert seen == {"Cup": "present", "fork": "unknown"}
    assert everything == {"mug": "present", "spoon": "present"}
    assert "does not mention knife" in str(silent)
    assert unknown.reason == "nothing-to-judge-by"
    assert "A mug." in server.asked[0]["messages"][1]["content"]


def test_who_can_tell():
    offering = ["oracle", "mistaken", "rules", "language-model", "vision-language-model", "detector"]
    assert who_offers("presence") == offering


def test_the_truth_of_a_claim():
    assert [truth_of(p) for p in (0.0, 0.39, 0.4, 0.5, 0.6, 0.61, 1.0)] == [
        "false", "false", "false", "unknown", "true", "true", "true",
    ]  # fmt: skip


def test_findings_say_each_thing_once():
    """An object inside a fault is invented, whatever else the judge says; a fault without an object counts as well."""
    named = (Mention("cup", 2, 5), Mention("fork", 12, 16))
    faults = (Fault("object", 0, 5, "no cup"), Fault("count", 10, 16, "two"), Fault("object", 20, 30, "no such thing"))
    findings = Findings(named, faults)
    assert findings.invented == (Mention("cup", 2, 5),)
    assert (findings.invented_names, findings.true_names) == (("cup",), ("fork",))
    assert findings.unnamed == (faults[2],)
    assert findings.invents
    assert findings.wrong
    assert not Findings(named, (faults[1],)).invents
    assert not Findings(named).wrong
