"""What commands wrote and what users write: run folders, finished and killed, and settings files."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml
from benchmarks.fuzz import mutations
from benchmarks.fuzz.campaign import LostError, Target
from benchmarks.fuzz.data import RECORD, pictures

from veridical.cli import COMMANDS
from veridical.config import dotted, flags, parse, read_yaml
from veridical.pairs import command as build
from veridical.pairs.config import BuildConfig, checked
from veridical.pairs.dataset import read_pairs
from veridical.report.page import render
from veridical.report.runs import read_runs
from veridical.vlm.load import load
from veridical.vlm.model.loading import Vlm

_STATE = (".json", ".jsonl", ".yaml", ".parquet")


@dataclass(frozen=True)
class Runs:
    """Good run folders, the model behind them, and the pairs that the build ends with."""

    folder: Path
    config: BuildConfig
    vlm: Vlm
    pairs: Sequence[Any]


def _config(folder: Path) -> BuildConfig:
    lexicon = folder / "lexicon.json"
    return checked(
        BuildConfig(
            folder / "build", construction="bpo-inject", records=str(folder / "records"), lexicon=str(lexicon),
            shard_size=3, held_out=0.2, device="cpu", judge=None, writer=None,
        )
    )  # fmt: skip


def _records(folder: Path) -> None:
    pictures(folder / "records", 9)
    rows = [{**RECORD, "id": f"r{n}", "file_name": f"{n}.png"} for n in range(9)]
    (folder / "records" / "metadata.jsonl").write_bytes(mutations.lines(rows))
    words = {"synonyms": {name: name for name in ("cup", "fork", "plate", "dog")}, "partners": {"cup": "plate"}}
    (folder / "lexicon.json").write_text(json.dumps(words))


def good_runs(folder: Path) -> Runs:
    """A finished build, and beside it the same one killed within its second shard."""
    _records(folder)
    config, vlm = _config(folder), load("bundled", device="cpu")
    build.make(config, vlm)
    killed = os.fork()
    if not killed:
        _die_within(replace(config, out=folder / "killed"), vlm)
    os.waitpid(killed, 0)
    return Runs(folder, config, vlm, read_pairs(config.out))


def _die_within(config: BuildConfig, vlm: Vlm) -> None:
    seen = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if event == "open" and str(arguments[0]).endswith("journal/0.jsonl"):
            seen += 1
            if seen == 9:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    try:
        build.make(config, vlm)
    finally:
        os._exit(1)


def use_mutated_runs(good: Runs, draw: random.Random, work: Path) -> Mapping[str, int]:
    """One file of a finished build is changed: shown, reported, or refused by name."""
    out = _copied(good.folder / "build", work)
    _mutate(out, draw)
    if draw.random() < 0.5:
        render(read_runs([out]), "t", 4, 4)
    else:
        build.make(replace(good.config, out=out), good.vlm)
        build.show(out)
    return {"used": 1}


def continue_mutated_builds(good: Runs, draw: random.Random, work: Path) -> Mapping[str, int]:
    """One file of a killed build is changed: it ends with the pairs of one left alone, or is refused by name."""
    out = _copied(good.folder / "killed", work)
    _mutate(out, draw)
    build.make(replace(good.config, out=out), good.vlm)
    found = [(one.id, one.chosen, one.rejected) for one in read_pairs(out)]
    if found != [(one.id, one.chosen, one.rejected) for one in good.pairs]:
        raise LostError(f"{len(found)} pairs, other ones than the {len(good.pairs)} of a build left alone")
    return {"used": 1}


def _copied(run: Path, work: Path) -> Path:
    return Path(shutil.copytree(run, work / "run", copy_function=os.link))


def _mutate(out: Path, draw: random.Random) -> None:
    files = sorted(one for one in out.rglob("*") if one.suffix in _STATE and one.is_file())
    path = draw.choice(files)
    whole = path.read_bytes()
    path.unlink()
    kind = draw.random()
    if kind < 0.1:
        return
    if path.suffix == ".json" and kind < 0.55:
        whole = mutations.as_json(mutations.row(json.loads(whole), draw)).encode(errors="surrogatepass")
    elif path.suffix == ".yaml" and kind < 0.4:
        # JSON is YAML.
        whole = mutations.as_json(mutations.row(yaml.safe_load(whole), draw)).encode(errors="surrogatepass")
    else:
        whole = mutations.content(whole, draw)
    path.write_bytes(whole)


SETTINGS: Mapping[str, dict[str, Any]] = {
    "build": {"construction": "bdhs", "records": "photos", "out": "o", "limit": 4, "settings": {"rho": 0.5},
              "judge": {"name": "oracle"}, "seed": 1, "batch_size": 4},
    "align": {"pairs": "p", "out": "o", "objective": {"name": "dpo", "beta": 0.1}, "lora": {"rank": 4, "dropout": 0.1},
              "epochs": 1, "learning_rate": 1e-3, "report_to": []},
    "eval": {"models": ["bundled"], "out": "o", "protocols": ["pope"], "limit": 3, "seed": 0},
}  # fmt: skip


def _folder(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def read_mutated_settings(good: Path, draw: random.Random, work: Path) -> Mapping[str, int]:
    """A settings file is changed: it gives settings, or is refused; nothing is started."""
    name = draw.choice(sorted(SETTINGS))
    path = work / "s.yaml"
    if draw.random() < 0.5:
        text = mutations.content(yaml.safe_dump(SETTINGS[name]).encode(), draw)
    else:
        text = mutations.as_json(mutations.row(SETTINGS[name], draw)).encode(errors="surrogatepass")
    path.write_bytes(text)
    settings = read_yaml(path)
    module: Any = import_module(COMMANDS[name].module)
    if draw.random() < 0.5:  # the parser takes most of the time
        parse(kind := module.config_type(dotted(settings)), flags(settings, kind, path), name)
    else:
        flags(settings, module.config_type(dotted(settings)), path)
    return {"used": 1}


TARGETS = (
    Target("finished runs", 250, good_runs, use_mutated_runs),
    Target("killed runs", 120, good_runs, continue_mutated_builds),
    Target("settings", 500, _folder, read_mutated_settings),
)
