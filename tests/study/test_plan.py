"""From a study to steps: shared work once, sets matched in size, and what can't run refused before it does."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from veridical.errors import UserError
from veridical.pairs.dataset import write_build
from veridical.records import Message, Pair, Provenance
from veridical.steps.estimate import Work, paces, seconds_left
from veridical.steps.stamps import Stamp, is_done, key_of, lacking, write_stamp
from veridical.steps.step import Step
from veridical.study.checks import check, check_builds, estimate
from veridical.study.definition import parse
from veridical.study.pair_sets import DrawnSet, write_set
from veridical.study.plan import plan
from veridical.study.settings import recipe
from veridical.world.annotated import save_picture

GRID = {
    "base": {"limit": 40, "eval": {"limit": 4}},
    "axes": {"construction": ["bpo-image", "bdhs"], "objective": ["dpo", "sft", "ipo"]},
    "seeds": [0, 1],
}


def planned(out: Path, **changed):
    return plan(parse({**GRID, **changed}), out)


def test_objectives_share_their_pairs_and_all_share_the_base(tmp_path):
    made = planned(tmp_path)
    kinds = [step.kind for step in made.steps]
    assert {kind: kinds.count(kind) for kind in kinds} == {"build": 4, "pairs": 4, "align": 12, "eval": 13}
    assert len({made.trained[cell.name] for cell in made.cells}) == len(made.cells) == 12
    assert made.sets["bdhs.dpo.s0"] == made.sets["bdhs.ipo.s0"] != made.sets["bdhs.dpo.s1"]
    order = [step.name for step in made.steps]
    for step in made.steps:
        assert all(order.index(name) < order.index(step.name) for name in (*step.after, *step.also))
    one = made.step(made.sets["bdhs.dpo.s0"])
    assert len(one.settings.rivals) == 2
    assert one.settings.matched
    aligns = [step.settings for step in made.steps if step.kind == "align"]
    assert {config.reference_cache for config in aligns} == {tmp_path / "reference"}
    assert {config.seed for config in aligns} == {0, 1}


def test_seeds_of_the_training_alone_share_the_pairs(tmp_path):
    made = planned(tmp_path, seeds_of="training")
    assert sum(step.kind == "build" for step in made.steps) == 2
    assert made.sets["bdhs.dpo.s0"] != made.sets["bdhs.dpo.s1"]  # whose labels may be noised by seed


def test_a_mixed_loop_takes_its_build_and_no_set_of_the_size_of_others(tmp_path):
    base = {"limit": 40, "rounds": 2, "size": 30, "construction": "bdhs", "eval": {"limit": 4}}
    made = planned(tmp_path, base=base, axes={"loop": ["mixed", "offline"]}, seeds=[0])
    offline, mixed = made.step(made.sets["offline.s0"]), made.step(made.sets["mixed.s0"])
    assert (offline.kind, offline.settings.size) == ("pairs", 30)
    # Pairs of the records of both rounds, as many as the offline arm's: its build.
    assert (mixed.kind, mixed.settings.limit) == ("build", 40)
    assert offline.after == (mixed.name,)
    assert sum(step.kind == "pairs" for step in made.steps) == 1


def test_a_build_without_a_pair_leaves_the_other_sets_alone(tmp_path):
    empty, good = tmp_path / "empty", tmp_path / "good"
    picture = save_picture(tmp_path / "one.png", lambda: Image.new("RGB", (8, 8)))
    made = Provenance("bdhs", "guided", {}, 0, "m")
    asked = (Message("user", "What?"),)
    write_build(good, [Pair(f"{n}/bdhs", str(n), (picture,), asked, "A cup.", "A fork.", made) for n in range(3)])
    empty.mkdir()
    (empty / "manifest.json").write_text('{"pairs_out": 0}')
    wanted = DrawnSet((good,), None, True, ((good,), (empty,)), 0.0, 0)
    assert write_set(wanted, tmp_path / "set")["pairs"] == 3


def test_where_the_folder_lies_makes_no_difference(tmp_path):
    here, there = planned(tmp_path / "a"), planned(Path("out"))
    assert [step.name for step in here.steps] == [step.name for step in there.steps]
    assert [s.digest(here.out) for s in here.steps] == [s.digest(there.out) for s in there.steps]


def test_studies_in_one_folder_share_what_is_the_same_whatever_they_call_it(tmp_path):
    first = planned(
        tmp_path, axes={"construction": ["povid"], "objective": ["dpo", "sft"]}, seeds=[0], base={"size": 30}
    )
    way = [{"label": "mine", "set": {"objective": "dpo"}}, {"label": "other", "set": {"objective": "ipo"}}]
    second = planned(
        tmp_path, axes={"way": way}, seeds=[0], base={"construction": "povid", "size": 30}, title="Another study"
    )
    assert first.trained["povid.dpo.s0"] == second.trained["mine.s0"]
    assert first.measured["povid.dpo.s0"] == second.measured["mine.s0"]
    shared = {step.name for step in first.steps} & {step.name for step in second.steps}
    for name in shared:
        assert first.step(name).digest(tmp_path) == second.step(name).digest(tmp_path)
    # Another way of measuring is another step, whose answers come from the same store.
    third = planned(
        tmp_path, axes={"way": way[:1]}, seeds=[0],
        base={"construction": "povid", "size": 30, "eval": {"protocols": ["world-chair"]}},
    )  # fmt: skip
    assert third.trained["mine.s0"] == first.trained["povid.dpo.s0"]
    assert third.measured["mine.s0"] != first.measured["povid.dpo.s0"]


REWARD = {"judge train reward": {"pairs": "$pairs"}}
RL = {"rl": {"kind": "rloo", "rewards": ["reward-model"], "reward_model": "$reward", "limit": 8}}


def with_steps(*several, **base):
    """A study of arms that state their steps."""
    way = [{"label": f"way-{number}", "set": {"steps": steps}} for number, steps in enumerate(several)]
    return {"axes": {"way": way}, "base": {"limit": 40, "construction": "povid", **base}, "seeds": [0]}


def test_an_arm_may_state_its_steps_and_shares_those_of_others(tmp_path):
    both = {"reward": REWARD, "aligned": RL}
    longer = {"reward": REWARD, "aligned": {"rl": {**RL["rl"], "epochs": 2}}}
    made = planned(tmp_path, **with_steps(both, longer, {}))
    kinds = [step.kind for step in made.steps]
    assert Counter(kinds) == {"build": 1, "pairs": 1, "judge train reward": 1, "rl": 2, "eval": 3}
    last = made.step(made.trained["way-0.s0"])
    reward = made.step(last.after[0])
    assert last.kind == "rl"
    assert last.settings.reward_model == str(reward.out)
    assert last.settings.settings.name == "rloo"
    assert (last.settings.limit, last.settings.records, last.settings.seed) == (8, "world:sft", 0)
    assert reward.after == (made.sets["way-0.s0"],)
    assert reward.settings.pairs == made.step(reward.after[0]).out
    # Without any step the model is measured as it is, and has no pairs.
    assert made.step(made.measured["way-2.s0"]).settings.models == ("bundled",)
    assert "way-2.s0" not in made.sets
    assert made.ways["way-2.s0"].name == "base"
    assert {way.key for way in made.ways.values()} == set(made.evals)


def test_a_loop_by_step_has_its_settings_in_place(tmp_path):
    build = {"construction": "sapo", "limit": 24, "settings": {"segment": 8}}
    loop = {"loop": {"kind": "sapo", "by": "step", "build": build, "align": {"epochs": 1}}}
    made = planned(tmp_path, **with_steps({"aligned": loop}, objective={"name": "dpo", "beta": 0.2}))
    step = made.step(made.trained["way-0.s0"])
    assert (step.kind, step.settings.kind, step.settings.by) == ("loop", "sapo", "step")
    assert step.more["build"]["construction"] == "sapo"
    assert step.more["align"]["objective"] == {"name": "dpo", "beta": 0.2}
    assert step.settings.build == tmp_path / "settings" / f"{step.file}.build.yaml"


def test_arms_that_differ_in_decoding_are_measured_on_the_same(tmp_path):
    arms = [
        {"label": "plain", "construction": "povid"},
        {"label": "decoded", "steps": {}, "eval": {"decoding": {"name": "vcd", "alpha": 0.5}}},
    ]
    made = planned(tmp_path, design="list", arms=arms, axes={}, seeds=[0])
    assert len(made.evals) == 1
    way = made.ways["decoded.s0"]
    assert (way.name, way.decoding.alpha) == ("base+vcd", 0.5)
    assert made.ways["plain.s0"].decoding is None


def test_several_constructions_make_one_set(tmp_path):
    made = planned(tmp_path, axes={"construction": [["povid", "bdhs"], "povid"]}, seeds=[0])
    both = made.step(made.sets["povid+bdhs.s0"])
    assert [made.step(name).settings.construction for name in both.after] == ["povid", "bdhs"]
    assert sum(step.kind == "build" for step in made.steps) == 2


def test_a_step_is_done_only_on_what_it_was_done_with(tmp_path):
    made = planned(tmp_path)
    build, pairs = made.step(made.step(made.sets["bdhs.dpo.s0"]).after[0]), made.step(made.sets["bdhs.dpo.s0"])
    align = made.step(made.trained["bdhs.dpo.s0"])
    assert lacking(made, align) == pairs.name
    for step in (build, pairs, align):
        step.out.mkdir(parents=True)
    write_stamp(tmp_path, build, Stamp("done", key_of(made, build)))
    write_stamp(tmp_path, pairs, Stamp("done", key_of(made, pairs), product={"sha256": "one"}))
    write_stamp(tmp_path, align, Stamp("done", key_of(made, align)))
    assert is_done(made, align)
    write_stamp(tmp_path, pairs, Stamp("done", key_of(made, pairs), product={"sha256": "other"}))
    assert not is_done(made, align)
    write_stamp(tmp_path, pairs, Stamp("failed", key_of(made, pairs)))
    assert lacking(made, align) == pairs.name
    (tmp_path / "steps" / f"{align.file}.json").write_text("{")
    assert not is_done(made, align)


def test_more_records_than_there_are_are_refused_before_the_first_run(tmp_path):
    made = planned(tmp_path, base={"limit": 600, "eval": {"limit": 4}})
    check_builds(made)
    more = planned(tmp_path, base={"limit": 600, "build": {"skip": 60}, "eval": {"limit": 4}})
    with pytest.raises(UserError, match=r"bpo-image: asks for 660 records of world:sft .* holds 652; lower limit"):
        check_builds(more)


WRONG = [
    ({"construction": ["nothing"]}, "nothing"),
    ({"objective": [{"name": "dpo", "gamma": 1}]}, "arm dpo: align: unknown setting 'objective.gamma'"),
    ({"beta": [-1.0]}, r"arm 1.0: align: .*objective.beta is -1.0; it must be above 0"),
    ({"construction": ["spa"]}, "arm spa: spa needs --adapter"),
    ({"align.seed": [1]}, "align.seed is set by the study"),
    ({"size": [0]}, "no whole number above 0"),
    ({"label_noise": [0.7]}, "no share from 0 to 0.5"),
    ({"loop": ["offlin"]}, "there are offline, online, mixed, iterative"),
    (
        {"steps": [{"label": "x", "set": {"steps": {"one": {"rl": {"reward_model": "$two"}}}}}]},
        r"\$two: there is no step",
    ),
    ({"steps": [{"label": "x", "set": {"steps": {"one": {"rl": {"colour": 1}}}}}]}, "steps.one: .*colour"),
    ({"steps": [{"label": "x", "set": {"steps": {"one": {"paint": {}}}}}]}, "steps.one: .*runs 'paint'"),
    ({"measured": ["judge"]}, "measured judge needs steps of which the last is `judge eval`"),
    ({"measured": ["page"]}, "there are model, pairs, judge"),
]


@pytest.mark.parametrize(("axes", "message"), WRONG)
def test_cells_that_cannot_be_are_named(tmp_path, axes, message):
    with pytest.raises(UserError, match=message):
        planned(tmp_path, axes=axes)


def checked(out: Path, **changed):
    study = parse({**GRID, "seeds": [0], **changed})
    return check(study, plan(study, out), 1)


def test_protocols_that_ask_about_what_all_models_say_are_refused_before_the_first_run(tmp_path):
    """Also on pictures that a build will keep back, of which nothing is known yet."""
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.new("RGB", (32, 32)).save(photos / "a.png")
    base = {"records": str(photos), "construction": "bdhs", "limit": 4, "eval": {"protocols": ["side-by-side"]}}
    with pytest.raises(UserError, match="side-by-side asks about what all models say"):
        checked(tmp_path, base=base, axes={"beta": [0.1, 0.2]}, metric="words")


def test_what_would_fail_late_is_refused_before_the_first_run(tmp_path):
    with pytest.raises(UserError, match="povid: changes a record's caption, so chosen can't be own-caption"):
        checked(tmp_path, axes={"construction": ["povid"], "chosen": ["own-caption"]})
    with pytest.raises(UserError, match=r"dpo reads the pairs' confidence, which bdhs doesn't state"):
        checked(tmp_path, axes={"construction": ["bdhs"], "objective": [{"name": "dpo", "labels": "stated"}]})
    with pytest.raises(UserError, match="counterfactual: world:sft has no changed images"):
        checked(tmp_path, axes={"construction": ["counterfactual"]})
    with pytest.raises(UserError, match=r"metric 'chair' is not measured here; there are .*chair_s"):
        checked(tmp_path, axes={"construction": ["bdhs"]}, metric="chair")
    with pytest.raises(UserError, match=r"of work, and budget_hours is 0.001"):
        checked(tmp_path, axes={"construction": ["bdhs"]}, budget_hours=0.001)
    with pytest.raises(UserError, match="a trend needs an axis of numbers"):
        checked(tmp_path, axes={"construction": ["bdhs", "povid"]}, questions=[{"trend": "construction"}])
    [note] = checked(tmp_path, axes={"construction": ["bdhs"]})
    assert "one seed only" in note


def test_records_of_which_nothing_is_known_are_refused(tmp_path):
    from PIL import Image

    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(3):
        Image.new("RGB", (32, 32), (number * 80, 0, 0)).save(folder / f"{number}.png")
    study = parse({"base": {"records": str(folder)}, "axes": {"construction": ["bdhs"]}})
    with pytest.raises(UserError, match="neither annotated objects nor captions"):
        recipe(study.arms[0], None)


def test_the_time_left_counts_processes_and_what_waits_for_what():
    def step(name, after=(), kind="align"):
        return Step(name, kind, Path(), None, after, work=Work(kind, 10.0))

    chain = [step("a"), step("b", ("a",)), step("c", ("b",))]
    assert seconds_left(chain, frozenset(), {}, 4, {}) == 30
    apart = [step(name) for name in "abcd"]
    assert seconds_left(apart, frozenset(), {}, 1, {}) == 40
    assert seconds_left(apart, frozenset(), {}, 2, {}) == 20
    assert seconds_left(apart, frozenset("ab"), {"align": 3.0}, 2, {"c": 5.0}) == 30
    assert paces(apart, {"a": 30.0, "b": 10.0}) == {"align": 2.0, "": 2.0}
    unknown = [Step("a", "align", Path(), None, work=Work("align", 1.0, known=False))]
    assert estimate(type("Plan", (), {"steps": unknown})(), 1) is None
