"""Which judge of a panel answers what, and what a user reads where none does."""

import pytest

from veridical.errors import UserError
from veridical.judges.interface import METHODS, Compare, Detect, ExtractObjects, Preference, Rewrite, Similarity
from veridical.judges.lexicon_sources import coco80, find_words
from veridical.judges.offering import who_offers
from veridical.judges.oracle import Oracle
from veridical.judges.panel import Panel, offers
from veridical.judges.registry import JUDGES, JudgeContext, Same, open_panel, settings_type, writer_type
from veridical.judges.rules import RulesSettings
from veridical.judges.similarity import TokenSimilarity
from veridical.judges.writers import GrammarWriter
from veridical.records import Message, Record

WORLD = find_words("world", True, [])
ORACLE = settings_type("oracle")().open(JudgeContext(WORLD))


class Shouter:
    """Writes and nothing else."""

    name = "shouter"

    def rewrite(self, requests):
        return [request.text.upper() for request in requests]


def test_each_kind_goes_to_the_first_judge_that_answers_it():
    panel = Panel((ORACLE, TokenSimilarity()))
    assert panel.answer([ExtractObjects("a fork")])[0][0].name == "fork"
    assert panel.answer([Similarity("a fork", "A fork!")]) == [1.0]
    assert panel.names([Similarity, Detect]) == "oracle+token-f1"


def test_the_writer_writes_and_does_not_judge():
    panel = Panel((ORACLE,), Shouter())
    assert panel.answer([Rewrite("There is a fork on the table.")]) == ["THERE IS A FORK ON THE TABLE."]
    assert panel.who(Detect) is ORACLE
    assert Panel((ORACLE,)).who(Rewrite) is ORACLE


def test_what_nobody_answers_is_refused_with_the_judges_that_would():
    with pytest.raises(UserError, match=r"this-one needs a judge for: detect.*--judge.name oracle"):
        Panel((TokenSimilarity(),)).require([Detect, Similarity], "this-one")
    with pytest.raises(UserError, match="rewrite"):
        Panel().answer([Rewrite("a fork")])
    Panel((ORACLE,)).require([Detect, ExtractObjects, Rewrite], "this-one")


def test_every_judge_of_the_registry_says_what_it_offers():
    assert all(who_offers(METHODS[kind]) for kind in (Detect, ExtractObjects, Rewrite))
    for name in JUDGES:
        assert settings_type(name)().name == name
    assert offers(Oracle) == offers(ORACLE)


def test_unknown_judges_are_named_with_what_is_near():
    with pytest.raises(UserError, match=r"judge.name: no judge 'orcale'; did you mean 'oracle'"):
        settings_type("orcale")
    with pytest.raises(UserError, match=r"writer\.name"):
        writer_type("nobody")


def test_opening_a_panel():
    assert open_panel(settings_type("oracle")(), Same(), JudgeContext(None), "tokens").judges == (TokenSimilarity(),)
    panel = open_panel(settings_type("oracle")(), RulesSettings(), JudgeContext(WORLD))
    assert panel.who(Rewrite).name == "rules"
    assert panel.who(Detect).writers[0] == GrammarWriter()
    with pytest.raises(UserError, match="coco80"):
        open_panel(RulesSettings(), Same(), JudgeContext(None))


def test_rules_take_the_reference_for_what_is_there():
    rules = RulesSettings().open(JudgeContext(coco80()))
    record = Record("r", (), (Message("user", "?"),), reference="A man with two puppies at a bus stop.")
    [found, none] = rules.detect(
        [Detect(record, "A dog and a person on a bus."), Detect(Record("s", (), (Message("user", "?"),)), "x")]
    )
    assert found.invented_names == ("bus",)
    assert found.missing == ()
    assert (none.reason, "s" in str(none)) == ("nothing-to-judge-by", True)


@pytest.mark.parametrize(("one", "other", "f1"), [("a b c", "a b d", 2 / 3), ("a a", "a", 2 / 3), ("", "", 1.0)])
def test_token_f1_by_hand(one, other, f1):
    assert TokenSimilarity().similarity([Similarity(one, other)]) == [pytest.approx(f1)]


def test_a_preference_has_a_better_side():
    assert [Preference(m).better for m in (0.5, 0, -1)] == ["first", "tie", "second"]
    assert METHODS[Compare] == "compare"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("A hot dog, two puppies and a teddy bear", ["hot dog", "dog", "teddy bear"]),
        ("People wait at the bus stop beside an SUV.", ["person", "car"]),
        ("a woman in an orange shirt eats an orange", ["person", "orange"]),
        ("three mice, knives and pairs of skis", ["mouse", "knife", "skis"]),
        ("a glass of orange juice on a tablecloth", []),
        ("a couple of cats; a couple with cellphones", ["cat", "person", "cell phone"]),
    ],
)
def test_coco_words_by_hand(text, names):
    assert [mention.name for mention in coco80().lexicon.mentions(text)] == names


def test_coco_has_80_classes_each_with_a_partner():
    words = coco80()
    assert len(set(words.lexicon.synonyms.values())) == 80
    assert set(words.partner) == set(words.lexicon.synonyms.values()) >= set(words.partner.values())
