"""The demo's steps: all of them commands that exist, stopped together, continued, and timed once."""

from __future__ import annotations

import importlib
import threading
import time
from itertools import pairwise

import pytest
import tyro

from veridical.cli import COMMANDS
from veridical.demo import DemoConfig, Step, _Steps, control, lanes, measure, measure_decoding, run
from veridical.errors import UserError


def drawing(name: str, folder, count: int) -> Step:
    return Step(name, ("world", "--split", "dev", "--out", str(folder), "--count", str(count)))


def test_every_step_is_a_command_with_settings_that_it_knows(tmp_path):
    config = DemoConfig(out=tmp_path, decoding=("vdd", "m3id"))
    steps = [step for lane in lanes(config, 3) for step in lane]
    steps += [control(config, 3), measure(config, 3), measure_decoding(config, 3)]
    assert len({step.name for step in steps}) == len(steps)
    for step in steps:
        name, *flags = step.command
        module = importlib.import_module(COMMANDS[name].module)
        choices = {flag[2:]: value for flag, value in pairwise(flags) if flag.startswith("--")}
        settings = getattr(module, COMMANDS[name].config)
        if hasattr(module, "config_type"):
            settings = module.config_type(choices)
        assert tyro.cli(settings, args=flags).out.is_relative_to(tmp_path / "seed-3")


def test_steps_are_stopped_together_and_continued(tmp_path):
    steps = _Steps(tmp_path / "logs")
    ended: list[BaseException] = []

    def lane(name: str) -> None:
        try:
            steps.run([drawing(name, tmp_path / name, 100_000), drawing(f"{name} again", tmp_path / "never", 1)])
        except KeyboardInterrupt as stop:
            ended.append(stop)

    rows = [threading.Thread(target=lane, args=(name,)) for name in ("one", "two")]
    for row in rows:
        row.start()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not all(list((tmp_path / n).glob("*.png")) for n in ("one", "two")):
        time.sleep(0.05)
    steps.stop()
    for row in rows:
        row.join(60)
    assert len(ended) == 2
    assert not (tmp_path / "never").exists()
    assert "continue" in (tmp_path / "logs" / "one.log").read_text()
    with pytest.raises(KeyboardInterrupt):
        steps.run([drawing("late", tmp_path / "never", 1)])

    _Steps(tmp_path / "logs").run([drawing("three", tmp_path / "one", 3)])
    assert (tmp_path / "one" / "metadata.jsonl").exists()


def test_a_second_run_keeps_the_time_of_the_first(tmp_path):
    first, second, other = (_Steps(tmp_path / "logs") for _ in range(3))
    first.run([drawing("draw", tmp_path / "pictures", 400)])
    second.run([drawing("draw", tmp_path / "pictures", 400)])
    assert second.seconds == first.seconds
    other.run([drawing("draw", tmp_path / "pictures", 1)])
    assert other.seconds["draw"] <= first.seconds["draw"]


def test_a_step_that_fails_says_what_it_said(tmp_path):
    with pytest.raises(UserError, match=r"unknown split|no split|nowhere"):
        _Steps(tmp_path / "logs").run([Step("draw", ("world", "--split", "nowhere", "--out", str(tmp_path / "x")))])


def test_a_method_of_decoding_that_is_not_there_is_named_before_anything_runs(tmp_path):
    for names, said in ((("vdx",), "did you mean 'vdd'"), (("vdd", "vdd"), "vdd is named twice")):
        with pytest.raises(UserError, match=said):
            run(DemoConfig(out=tmp_path / "demo", decoding=names))
    assert not (tmp_path / "demo").exists()
