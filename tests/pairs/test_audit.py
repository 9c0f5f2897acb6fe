"""`data check`: each planted fault is found, a sound set has none, and a cleaned set keeps what was sound."""

import json
import random
from dataclasses import replace

import pytest
from PIL import Image, ImageDraw

from veridical.cli import main
from veridical.pairs.audit.command import CheckConfig, check_set
from veridical.pairs.audit.shortcuts import check_shortcuts
from veridical.pairs.dataset import read_pairs, write_build
from veridical.records import ImageFile, Message, Pair, Provenance

MADE = Provenance("bdhs", "plain", {}, 0, "model", chosen_source="own")
THINGS = ("cup", "fork", "dog", "bus", "tree", "lamp", "boat", "clock")


def picture(folder, number, side=96):
    """A picture with blocks of its own, so that no two look alike."""
    import hashlib

    draw = random.Random(number)
    image = Image.new("RGB", (side, side), (30, 30, 30))
    for _ in range(8):
        x, y = draw.randrange(side), draw.randrange(side)
        colour = tuple(draw.randrange(256) for _ in range(3))
        ImageDraw.Draw(image).rectangle((x, y, x + draw.randrange(20, 60), y + draw.randrange(20, 60)), fill=colour)
    path = folder / f"{number}-{side}.png"
    image.save(path)
    return ImageFile(path, hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """Sixty pairs whose sides are of one style: which object is named is a matter of chance."""
    folder, draw = tmp_path_factory.mktemp("pictures"), random.Random(5)
    found = []
    for number in range(60):
        there, absent = draw.sample(THINGS, 2)
        place = draw.choice(("table", "road", "shelf", "roof"))
        texts = [f"A {thing} is near the {place} number {number}." for thing in (there, absent)]
        image = picture(folder, number)
        found.append(Pair(f"p{number}", f"r{number}", (image,), (Message("user", "Describe it."),), *texts, MADE))
    return found


def kinds(checked, severity):
    return {one.kind for one in checked.findings if one.severity == severity}


def test_a_sound_set_has_no_errors(sound, tmp_path):
    checked = check_set(sound, CheckConfig(tmp_path))
    assert kinds(checked, "error") == set()
    assert checked.ok()


FAULTS = {
    "empty": lambda pair: replace(pair, id="x", rejected="  "),
    "equal": lambda pair: replace(pair, id="x", rejected=pair.chosen),
    "control-tokens": lambda pair: replace(pair, id="x", chosen=pair.chosen + "<|im_end|>"),
    "placeholders": lambda pair: replace(pair, id="x", prompt=(Message("user", "<image> What?"),)),
    "copies": lambda pair: replace(pair, id="x", chosen=pair.chosen.upper()),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_planted_fault_of_texts_is_found_with_its_pair(sound, tmp_path, kind):
    checked = check_set([*sound, FAULTS[kind](sound[7])], CheckConfig(tmp_path))
    assert kinds(checked, "error") == {kind}
    finding = next(one for one in checked.findings if one.kind == kind)
    assert "x" in finding.leave_out
    assert not finding.leave_out - {"x"}


def test_faults_of_images(sound, tmp_path):
    broken, tiny = tmp_path / "broken.png", picture(tmp_path, 900, side=40)
    broken.write_bytes(b"no picture")
    again = tmp_path / "again.jpg"
    Image.open(sound[3].images[0].path).resize((192, 192)).save(again, quality=80)
    faulty = [
        replace(sound[0], id="broken", images=(ImageFile(broken, "b" * 64),), chosen="A boat.", rejected="A train."),
        replace(sound[1], id="tiny", images=(tiny,), chosen="A small red thing.", rejected="A cow."),
        replace(sound[3], id="again", images=(ImageFile(again, "a" * 64),), chosen="Some blocks.", rejected="A sea."),
    ]
    checked = check_set([*sound, *faulty], CheckConfig(tmp_path))
    found = {one.kind: one.pairs for one in checked.findings}
    assert found["unreadable-images"] == ("broken",)
    assert found["tiny-images"] == ("tiny",)
    assert set(found["same-pictures"]) == {"p3", "again"}


def test_an_evaluation_image_is_found_by_its_bytes_and_scaled(sound, tmp_path):
    evaluated = tmp_path / "evaluated"
    evaluated.mkdir()
    (evaluated / "same.png").write_bytes(sound[2].images[0].path.read_bytes())
    Image.open(sound[9].images[0].path).resize((150, 150)).save(evaluated / "scaled.jpg", quality=85)
    picture(evaluated, 901)
    checked = check_set(sound, CheckConfig(tmp_path, evaluated=(evaluated,)))
    (leak,) = [one for one in checked.findings if one.kind == "leaks"]
    assert (leak.severity, set(leak.pairs)) == ("error", {"p2", "p9"})


def test_shortcuts_are_told_from_chance(sound):
    by_kind = {one.kind: one for one in check_shortcuts(sound)}
    assert {one.severity for one in by_kind.values()} == {"note"}
    long = [replace(pair, chosen=pair.chosen + " It stands there in the light of day.") for pair in sound]
    assert {one.kind for one in check_shortcuts(long) if one.severity == "warning"} >= {"length-tells", "words-tell"}
    begun = [replace(pair, chosen="Here is " + pair.chosen, rejected="There was " + pair.rejected) for pair in sound]
    told = {one.kind for one in check_shortcuts(begun) if one.severity == "warning"}
    assert "beginning-tells" in told
    assert "length-tells" not in told


def test_what_the_sides_invent(sound, tmp_path):
    truth = tmp_path / "truth.json"
    there = {pair.record_id: [next(t for t in THINGS if t in pair.chosen.split())] for pair in sound}
    there["r4"] = [next(t for t in THINGS if t in sound[4].rejected.split())]
    truth.write_text(json.dumps(there))
    words = tmp_path / "words.json"
    words.write_text(json.dumps({"synonyms": {thing: thing for thing in THINGS}}))
    checked = check_set(sound, CheckConfig(tmp_path, annotations=truth, lexicon=str(words)))
    found = {one.kind: one for one in checked.findings}
    assert found["invented"].numbers["chosen"] == pytest.approx(100 / 60)
    assert found["invented"].numbers["chosen_recall"] == pytest.approx(100 * 59 / 60)
    assert found["invented"].numbers["rejected_recall"] == pytest.approx(100 / 60)
    assert found["upside-down"].pairs == ("p4",)


def test_from_the_command_line_with_a_page_and_a_cleaned_set(sound, tmp_path, capsys):
    write_build(tmp_path / "set", [*sound[:45], replace(sound[0], id="<script>alert(1)</script>")])
    arguments = ["--json", "found.json", "--page", "page.html", "--fix", "clean"]
    paths = [str(tmp_path / one) if not one.startswith("--") else one for one in arguments]
    with pytest.raises(SystemExit) as ended:
        main(["data", "check", str(tmp_path / "set"), *paths])
    assert ended.value.code == 1
    assert "1 pairs are copies" in capsys.readouterr().out
    assert len(read_pairs(tmp_path / "clean")) == 45
    (left,) = (tmp_path / "clean" / "left_out.jsonl").read_text().splitlines()
    assert json.loads(left)["reasons"] == ["copies"]
    assert json.loads((tmp_path / "found.json").read_text())["ok"] is False
    page = (tmp_path / "page.html").read_text()
    assert "<script>alert" not in page
    assert "&lt;script&gt;" in page
    with pytest.raises(SystemExit) as ended:
        main(["data", "check", str(tmp_path / "clean")])
    assert ended.value.code == 0


def test_rows_that_an_import_leaves_out_are_found_with_their_reason(tmp_path, capsys):
    row = {"question": "What?", "chosen": "A cup.", "rejected": "A cat.", "image": "0-96.png", "id": "good"}
    picture(tmp_path, 0)
    rows = [row, {**row, "id": "gone", "image": "absent.png"}, {**row, "id": "text", "image": None, "chosen": "B."}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    arguments = [str(tmp_path / "rows.jsonl"), "--json", str(tmp_path / "f.json"), "--fix", str(tmp_path / "clean")]
    assert main_exit(["data", "check", *arguments]) == 1
    said = capsys.readouterr().out
    assert "1 rows can't be used: missing-image (the first: no file absent.png below" in said
    assert "give --image-root the images' folder" in said
    found = {one["kind"]: one for one in json.loads((tmp_path / "f.json").read_text())["findings"]}
    assert found["row-missing-image"]["pairs"] == ["gone"]
    assert found["no-image"]["pairs"] == ["mmpr/text"]
    (left,) = (tmp_path / "clean" / "left_out.jsonl").read_text().splitlines()
    assert json.loads(left)["id"] == "gone"
    assert json.loads(left)["reasons"] == ["row-missing-image"]
    assert [pair.id for pair in read_pairs(tmp_path / "clean")] == ["mmpr/good", "mmpr/text"]


def test_sets_are_compared_and_cut_to_one_size(sound, tmp_path, capsys):
    write_build(tmp_path / "whole", sound)
    other = [
        replace(p, provenance=replace(p.provenance, construction="povid", chosen_source="reference")) for p in sound
    ]
    write_build(tmp_path / "part", other[:50])
    with pytest.raises(SystemExit) as ended:
        main(
            [
                "data",
                "compare",
                str(tmp_path / "whole"),
                f"half={tmp_path / 'part'}",
                "--subsets",
                str(tmp_path / "cut"),
            ]
        )
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert all(word in said for word in ("whole", "half", "povid (50)", "own (60)", "reference (50)"))
    cut = read_pairs(tmp_path / "cut" / "whole")
    assert len(cut) == len(read_pairs(tmp_path / "cut" / "half")) == 50
    assert [p.id for p in cut] == [p.id for p in sound if p.id in {q.id for q in cut}]


def test_an_implicit_reward_tells_which_side_a_model_prefers(tmp_path, capsys):
    """A model against itself prefers nothing; against another, what its likelihoods say, counted by hand."""
    from tests.align.conftest import adapted
    from tests.models import tiny_llava

    from veridical.pairs.audit.margins import check_margins
    from veridical.vlm.inputs.context import Context
    from veridical.vlm.prefix.encode import encode
    from veridical.vlm.scores.scoring import score

    base = tiny_llava(tmp_path / "model")
    vlm = adapted(base, perturb=True)
    vlm.model.save_pretrained(tmp_path / "adapter")
    pairs = [
        Pair(
            f"p{n}",
            f"r{n}",
            (picture(tmp_path, n),),
            (Message("user", "Describe it."),),
            f"A cup {n}.",
            f"A dog {n}.",
            MADE,
        )
        for n in range(6)
    ]
    (same,) = check_margins(pairs, str(base), reference=str(base))
    assert same.numbers["margin"] == 0
    assert (same.severity, same.numbers["pairs"]) == ("note", 6)

    def likelihoods(model):
        import torch

        with torch.no_grad():
            prefix = encode(model, [Context(pair.images, pair.prompt) for pair in pairs])
            return [
                [t.sum().item() for t in two] for two in score(model, prefix, [[p.chosen, p.rejected] for p in pairs])
            ]

    import veridical as vd

    ours, theirs = likelihoods(vlm), likelihoods(vd.load(base, device="cpu"))
    wanted = [a[0] - b[0] - a[1] + b[1] for a, b in zip(ours, theirs, strict=True)]
    (found,) = check_margins(pairs, str(base), str(tmp_path / "adapter"), most=4)
    assert found.numbers["pairs"] == 3  # every second of six
    assert found.numbers["margin"] == pytest.approx(sum(wanted[::2]) / 3, abs=1e-3)
    assert set(found.pairs) == {pair.id for pair, margin in list(zip(pairs, wanted, strict=True))[::2] if margin < 0}

    write_build(tmp_path / "set", pairs)
    main_exit(["data", "check", str(tmp_path / "set"), "--model", str(base), "--reference", str(base)])
    assert "implicit reward: the model prefers" in capsys.readouterr().out
    assert main_exit(["data", "check", str(tmp_path / "set"), "--model", str(base)]) == 2


def main_exit(arguments):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return ended.value.code
