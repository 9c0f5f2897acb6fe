"""A verifier names no objects: what it finds is enough to make pairs all the same."""

from dataclasses import dataclass
from pathlib import Path

from tests.constructions.follow import follow

from veridical.constructions.ha_dpo import HaDpoSettings, ha_dpo, judge_needs
from veridical.judges.panel import Panel
from veridical.judges.verifier import RIGHT, Verifier, verdict
from veridical.records import ImageFile, Message, Record

RECORD = Record("r", (ImageFile(Path("a.png"), "00"),), (Message("user", "Describe this image."),))
OWN = "There is a fork. There is a knife.  I can see two cups."


@dataclass(frozen=True)
class Told(Verifier):
    """A verifier with given verdicts in the place of a model's."""

    said: tuple[str, ...] = ()

    def _verdicts(self, asked):
        """The verdict whose last word is in the sentence, else that it is right."""
        return [next((s for s in self.said if s[:-1].split()[-1] in one.prompt[0].text), RIGHT) for one in asked]


def panel(*said):
    return Panel((Told("verifier", None, said=said),))


def test_a_wrong_sentence_is_left_out_of_the_chosen_side():
    settings = HaDpoSettings(styles=0, questions=False)
    judges = panel(verdict("object", "there is no knife"))
    judges.require(judge_needs(settings), "ha-dpo")
    _, [pair] = follow(ha_dpo(RECORD, settings, 0), [OWN], panel=judges)
    assert (pair.chosen, pair.rejected) == ("There is a fork. I can see two cups.", OWN)


def test_an_error_of_another_kind_is_no_invention_unless_all_are_wanted():
    judges = panel(verdict("count", "there are three cups"))
    objects = HaDpoSettings(styles=0, questions=False, faults="objects")
    _, rejected = follow(ha_dpo(RECORD, objects, 0), [OWN], panel=judges)
    assert rejected.reason == "description-nothing-invented"
    _, [pair] = follow(ha_dpo(RECORD, HaDpoSettings(styles=0, questions=False), 0), [OWN], panel=judges)
    assert pair.chosen == "There is a fork. There is a knife."
