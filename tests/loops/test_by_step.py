"""Loops by steps as a user runs them, on the bundled model: fresh pairs, references, SAPO's memory, interruptions."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from veridical.errors import UserError
from veridical.loops.command import LoopConfig, run
from veridical.loops.replay import Buffer, pair_of, row_of
from veridical.loops.step_work import PairsByStep
from veridical.pairs.dataset import read_pairs
from veridical.records import FurtherAnswer, ImageFile, Message, Pair, Provenance, Spans

ALIGN = """
objective: {name: dpo, beta: 0.5}
epochs: 2
batch_size: 2
micro_batch: 2
learning_rate: 3.0e-3
warmup: 0
workers: 0
device: cpu
save_every: 2
lora: {rank: 2, alpha: 4}
"""
RANKED = """
construction: ranked
limit: 4
device: cpu
settings: {candidates: 3, temperature: 1.2, max_new_tokens: 32, length_gap: 1.0}
"""
SAPO = "construction: sapo\nlimit: 4\ndevice: cpu\n"


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("settings")
    texts = {
        "align": ALIGN,
        "ranked": RANKED,
        "sapo": SAPO,
        "bdhs": "construction: bdhs\nlimit: 4\ndevice: cpu\nsimilarity: tokens\n",
    }
    for name, text in texts.items():
        (folder / f"{name}.yaml").write_text(text)
    return {name: folder / f"{name}.yaml" for name in texts}


def config(files, out: Path, build: str, **more) -> LoopConfig:
    return LoopConfig(out=out, build=files[build], align=files["align"], by="step", **more)


def rows(out: Path, name: str = "log.jsonl") -> list[dict]:
    return [json.loads(line) for line in (out / name).read_text().splitlines()]


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "adapter" / "adapter_model.safetensors")


def same_weights(one: Path, other: Path) -> None:
    for name, value in weights(one).items():
        torch.testing.assert_close(weights(other)[name], value, atol=1e-6, rtol=0)


@pytest.fixture(scope="module")
def online(files, tmp_path_factory) -> LoopConfig:
    made = config(files, tmp_path_factory.mktemp("steps") / "online", "ranked")
    run(made)
    return made


def test_online_pairs_are_made_at_every_step_and_measured_against_the_base(online, files, tmp_path):
    log, pairs = rows(online.out), rows(online.out, "pairs.jsonl")
    assert [row["step"] for row in log] == [1, 2, 3, 4]
    assert sum(row["pairs"] for row in log) == len(pairs) > 3
    assert log[0]["rewards/margins"] == pytest.approx(0, abs=1e-4)
    assert any(abs(row["rewards/chosen"]) > 1e-3 for row in log[1:])
    assert all(row["provenance"]["construction"] == "ranked" for row in pairs)
    by_record = Counter(row["record_id"] for row in pairs)
    again = next(record for record, count in by_record.items() if count > 1)
    told = [(row["chosen"], row["rejected"]) for row in pairs if row["record_id"] == again]
    assert len(set(told)) > 1  # drawn anew in the second pass
    run(online)  # is complete
    iterative = config(files, tmp_path / "iterative", "ranked", kind="iterative", reference_every=1)
    run(iterative)
    assert all(abs(row["rewards/chosen"]) < 1e-4 for row in rows(iterative.out))


@pytest.mark.end_to_end
def test_a_loop_that_is_killed_continues_to_the_same_adapter(online, files, tmp_path):
    out = tmp_path / "killed"
    script = (
        "import os, signal, sys\n"
        "from veridical.loops.step_work import PairsByStep\n"
        "def end(self, step):\n"
        "    if step == 2: os.kill(os.getpid(), signal.SIGKILL)\n"
        "PairsByStep.end = end\n"
        "from veridical.cli import main\n"
        "main(sys.argv[1:])\n"
    )
    command = ["loop", "--by=step", f"--out={out}", f"--build={files['ranked']}", f"--align={files['align']}"]
    killed = subprocess.run(
        [sys.executable, "-c", script, *command], stderr=subprocess.PIPE, check=False, env=os.environ
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()[-2000:]
    run(replace(online, out=out))
    same_weights(online.out, out)
    assert [row["step"] for row in rows(out)] == [1, 2, 3, 4]
    ids = [[(row["step"], row["id"], row["chosen"]) for row in rows(one, "pairs.jsonl")] for one in (online.out, out)]
    assert ids[0] == ids[1]


def test_sapo_remembers_its_buffer_average_and_reference(files, tmp_path, monkeypatch):
    settings = {"kind": "sapo", "reference_every": 2, "fresh": 1, "buffer_size": 3}
    whole, broken = (config(files, tmp_path / name, "sapo", **settings) for name in ("whole", "broken"))
    run(whole)
    end = PairsByStep.end

    def stop(self, step):
        if step == 2:
            raise RuntimeError("the plug was pulled")
        end(self, step)

    monkeypatch.setattr(PairsByStep, "end", stop)
    with pytest.raises(RuntimeError, match="pulled"):
        run(broken)
    monkeypatch.undo()
    kept = tmp_path / "broken" / "checkpoints" / "checkpoint-2"
    assert {"buffer.json", "average.safetensors", "reference.safetensors"} <= {one.name for one in kept.iterdir()}
    run(broken)
    same_weights(whole.out, broken.out)
    log = rows(whole.out)
    assert log[-1]["buffer"] == 3
    assert any(row["pairs"] > row["pairs/online"] for row in log)  # replayed ones
    assert [row["pairs"] for row in log] == [row["pairs"] for row in rows(broken.out)]


def test_sapo_holds_the_policy_to_its_moving_average(files, tmp_path):
    """A decay of 0 makes the average the policy, so that at each step policy and reference agree; of 1, the base."""
    for decay, agree in ((0.0, True), (1.0, False)):
        made = config(files, tmp_path / str(decay), "sapo", kind="sapo", reference_every=1, ema_decay=decay)
        run(made)
        later = [abs(row["rewards/chosen"]) for row in rows(made.out)[1:]]
        assert (max(later) < 1e-4) == agree


def test_mixed_tosses_its_coin_at_every_step_and_online_bdhs_needs_no_judge(files, tmp_path):
    from veridical.constructions.povid import PovidSettings
    from veridical.pairs.command import BuildConfig
    from veridical.pairs.command import run as build

    offline = build(
        BuildConfig(tmp_path / "offline", construction="povid", settings=PovidSettings(), limit=4, device="cpu")
    )
    made = config(files, tmp_path / "mixed", "bdhs", kind="mixed", offline=offline, adapter=None)
    run(made)
    sources = Counter(row["provenance"]["construction"] for row in rows(made.out, "pairs.jsonl"))
    assert set(sources) == {"bdhs", "povid"}
    log = rows(made.out)
    assert all(row["pairs/online"] <= row["pairs"] for row in log)
    assert sum(row["pairs/online"] for row in log) == sources["bdhs"]


def pair(number: int) -> Pair:
    image = ImageFile(Path(f"/pictures/{number}.png"), f"{number:064}")
    return Pair(
        f"p{number}", f"r{number}", (image,), (Message("user", "Describe."),), "a cup", "a dog",
        Provenance("sapo", "segment", {"segment": 3}, 1, "m", scores={"margin": 0.5}), Spans(((2, 5),), ((2, 5),)),
        others=(FurtherAnswer("a cat", "own", 0.1, (image,)),), weights=(1.0, 0.5),
    )  # fmt: skip


def test_replay_prefers_what_was_drawn_seldom(tmp_path):
    buffer = Buffer(50)
    buffer.add([pair(number) for number in range(60)])
    assert [one.id for one in buffer.pairs[:2]] == ["p10", "p11"]
    buffer.counts = [0] * 25 + [9] * 25
    drawn = Counter()
    for step in range(300):
        fresh = Buffer(50, list(buffer.pairs), list(buffer.counts))
        drawn.update(one.id for one in fresh.draw(1, 0, step))
        assert sum(fresh.counts) == 25 * 9 + 1
    seldom = sum(drawn[one.id] for one in buffer.pairs[:25])
    assert seldom / 300 == pytest.approx(10 / 11, abs=0.06)  # weights 1 and 1/10
    buffer.save(tmp_path / "buffer.json")
    again = Buffer(50)
    again.load(tmp_path / "buffer.json")
    assert again == buffer
    assert pair_of(row_of(pair(1))) == pair(1)


def test_mistakes_are_refused_before_any_work(files, tmp_path):
    for more, match in (
        ({"kind": "sapo", "by": "round"}, "give --by step"),
        ({"kind": "selm", "offline": tmp_path}, "give --by round"),
        ({"kind": "mixed"}, "go together"),
        ({"reference_every": 0}, "reference_every"),
    ):
        with pytest.raises(UserError, match=match):
            run(replace(config(files, tmp_path / "run", "ranked"), **more))
    with pytest.raises(UserError, match="goes with construction sapo"):
        run(config(files, tmp_path / "run", "ranked", kind="sapo"))
    assert not (tmp_path / "run").exists()


@pytest.mark.end_to_end
def test_selm_ranks_known_pairs_with_its_own_answer_and_spa_labels_its_own(files, tmp_path):
    from veridical.constructions.povid import PovidSettings
    from veridical.pairs.command import BuildConfig
    from veridical.pairs.command import run as build

    offline = build(
        BuildConfig(tmp_path / "known", construction="povid", settings=PovidSettings(), limit=4, device="cpu")
    )
    align = tmp_path / "align.yaml"
    align.write_text(
        ALIGN.replace("{name: dpo, beta: 0.5}", "{name: selm, own: other}").replace("epochs: 2", "epochs: 1")
    )
    plain = tmp_path / "build.yaml"
    plain.write_text("limit: 4\ndevice: cpu\n")
    selm = LoopConfig(out=tmp_path / "selm", build=plain, align=align, kind="selm", offline=offline, rounds=2)
    run(selm)
    rounds = [read_pairs(selm.out / f"round-{number}" / "pairs") for number in (1, 2)]
    assert all(rounds)
    assert {one.record_id for one in rounds[0]}.isdisjoint(one.record_id for one in rounds[1])
    for one in (one for some in rounds for one in some):
        [own] = one.others
        assert own.source == "own greedy answer of this round"
        assert one.provenance.scores["margin"] > 0
        assert {one.chosen, one.rejected} & {own.text, one.chosen, one.rejected}
    spa = tmp_path / "spa.yaml"
    spa.write_text("construction: spa\nlimit: 4\ndevice: cpu\nsettings: {max_new_tokens: 40, temperature: 1.2}\n")
    noisy = tmp_path / "noisy.yaml"
    noisy.write_text(
        ALIGN.replace("{name: dpo, beta: 0.5}", "{name: spa, beta: 0.5}").replace("epochs: 2", "epochs: 1")
    )
    labelled = LoopConfig(
        out=tmp_path / "spa", build=spa, align=noisy, kind="iterative", rounds=1, adapter=selm.out / "adapter"
    )
    run(labelled)
    made = read_pairs(labelled.out / "round-1" / "pairs")
    assert all(0.5 < one.provenance.scores["confidence"] <= 1 for one in made)


def test_settings_that_no_loop_by_steps_reads_are_refused(files, tmp_path):
    file = tmp_path / "align.yaml"
    file.write_text(ALIGN + "optimiser: rmsprop\nwithout_image: none\n")
    with pytest.raises(UserError, match=r"optimiser, without_image: a loop by steps doesn't read these"):
        run(replace(config(files, tmp_path / "out", "ranked"), align=file))
    assert not (tmp_path / "out" / "log.jsonl").exists()
