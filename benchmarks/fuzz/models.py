"""Models and adapters from strangers: configurations, tokenizers, templates and weights, damaged or altered."""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
from collections.abc import Mapping
from pathlib import Path

from benchmarks.fuzz import mutations
from benchmarks.fuzz.campaign import Target

from veridical.vlm.load import attach_lora, load
from veridical.vlm.model.adapters import LoraSettings, save_trained
from veridical.world.bundled import bundled_model_path

_HEADER = 6000
"""Bytes of a weights file that are damaged; the numbers behind them may hold anything."""


def _good_model(folder: Path) -> Path:
    load("bundled", device="cpu")  # so that no try has to import torch
    return Path(shutil.copytree(bundled_model_path(), folder / "model"))


def load_mutated_models(good: Path, draw: random.Random, work: Path) -> Mapping[str, int]:
    """One file of a model is changed: it loads, or is refused in a sentence."""
    _changed(good, work / "model", draw)
    load(work / "model", device="cpu")
    return {"used": 1}


def _good_adapter(folder: Path) -> Path:
    vlm = attach_lora(load("bundled", device="cpu"), LoraSettings(rank=2), 0)
    save_trained(vlm, folder / "adapter")
    return folder / "adapter"


def load_mutated_adapters(good: Path, draw: random.Random, work: Path) -> Mapping[str, int]:
    """One file of an adapter is changed: it loads, or is refused in a sentence."""
    _changed(good, work / "adapter", draw)
    load("bundled", adapter=work / "adapter", device="cpu")
    return {"used": 1}


def _changed(good: Path, folder: Path, draw: random.Random) -> None:
    shutil.copytree(good, folder, copy_function=os.link)
    path = draw.choice(sorted(one for one in folder.iterdir() if one.suffix in (".json", ".jinja", ".safetensors")))
    whole, kind = path.read_bytes(), draw.random()
    path.unlink()
    if kind < 0.08:
        # What reads this would run it.
        (folder / draw.choice(("pytorch_model.bin", "adapter_model.bin", path.name))).write_bytes(
            pickle.dumps(os.getcwd)
        )
    elif path.suffix == ".json" and kind < 0.7:
        path.write_bytes(mutations.as_json(mutations.row(json.loads(whole), draw)).encode(errors="surrogatepass"))
    elif path.suffix == ".safetensors":
        path.write_bytes(mutations.content(whole[:_HEADER], draw) + whole[_HEADER:])
    else:
        path.write_bytes(mutations.content(whole, draw))


TARGETS = (
    Target("models", 200, _good_model, load_mutated_models),
    Target("adapters", 120, _good_adapter, load_mutated_adapters),
)
