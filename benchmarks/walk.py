"""The whole path, from photographs to a report, as an engineer walks it; interrupted and killed at every step.

    python benchmarks/walk.py --out runs/walk [--photos 40] [--models qwen2-vl llava]

Photographs that installed packages bring (scikit-image, scikit-learn, matplotlib; windows of them where there are
fewer than asked for), without captions, and small models with random weights: `veridical run` once undisturbed, and
once stopped in every step, by Ctrl-C and by SIGKILL in turn. Both must end with the same pairs, weights and results,
byte for byte. The numbers go to OUT/walk.json; exits 1 where a disturbed run ends different.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from models import tiny_llava, tiny_qwen2_vl

PACKAGES = (("skimage", "data"), ("sklearn", "datasets/images"), ("matplotlib", "mpl-data/sample_data"))
NO_PHOTOS = (
    "logo",
    "color",
    "phantom",
    "chessboard",
    "multipage",
    "horse",
    "microaneurysms",
    "no_time",
    "text",
    "page",
)
"""Beginnings of names of images that are drawings, diagrams or print."""
STEPS = ("build", "align", "eval")
SHORT = (
    # Random weights seldom end an answer.
    "--build.settings.max-new-tokens", "16", "--build.settings.keep-unfinished", "--eval.max-new-tokens", "16",
    "--build.shard-size", "4", "--align.epochs", "1", "--align.save-every", "1", "--align.workers", "0",
)  # fmt: skip
MODELS = {"qwen2-vl": tiny_qwen2_vl, "llava": tiny_llava}


def main() -> None:
    """Walk, compare, and write down what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--photos", type=int, default=40)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    given = parser.parse_args()
    photos = write_photos(given.out / "photos", given.photos)
    found: dict[str, Any] = {"photos": len(list(photos.glob("*.png"))), "models": {}}
    for name in given.models:
        model = given.out / name
        if not (model / "config.json").exists():
            MODELS[name](model)
        found["models"][name] = walk(given.out, name, model, photos)
        print(f"{name}: {found['models'][name]}", flush=True)
    (given.out / "walk.json").write_text(json.dumps(found, indent=1))
    sys.exit(0 if all(one["same"] for one in found["models"].values()) else 1)


def write_photos(folder: Path, count: int) -> Path:
    """Photographs of installed packages as PNG files; then windows of them, until there are `count`."""
    folder.mkdir(parents=True, exist_ok=True)
    images = list(_packaged())
    windows = ((0, 0, 0.6, 0.6), (0.4, 0.4, 1, 1), (0.4, 0, 1, 0.6), (0, 0.4, 0.6, 1))
    shown = [(name, box) for box in ((0, 0, 1, 1), *windows) for name in images][:count]
    for number, (path, box) in enumerate(shown):
        with Image.open(path) as image:
            rgb = image.convert("RGB")
        width, height = rgb.size
        part = rgb.crop((int(box[0] * width), int(box[1] * height), int(box[2] * width), int(box[3] * height)))
        part.thumbnail((640, 640))
        part.save(folder / f"{number:02}-{path.stem}.png")
    return folder


def _packaged() -> Iterator[Path]:
    for package, inside in PACKAGES:
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            continue
        for path in sorted(Path(spec.submodule_search_locations[0], inside).iterdir()):
            if path.suffix in (".png", ".jpg") and path.stat().st_size > 8192 and not path.name.startswith(NO_PHOTOS):
                yield path


def walk(
    out: Path,
    name: str,
    model: Path,
    photos: Path,
    how: Sequence[signal.Signals] = (signal.SIGINT, signal.SIGKILL),
    steps: Sequence[str] = STEPS,
) -> dict[str, Any]:
    """Run a model's path twice, undisturbed and stopped in `steps` by each signal; say whether both ended alike."""
    calm, disturbed = out / f"{name}-calm", out / f"{name}-disturbed"
    started = time.monotonic()
    subprocess.run(_command(model, photos, calm), check=True)
    seconds = time.monotonic() - started
    stops = [stop_in(_command(model, photos, disturbed), disturbed, step, one) for step in steps for one in how]
    subprocess.run(_command(model, photos, disturbed), check=True)
    ends = [contents(folder) for folder in (calm, disturbed)]
    different = sorted(key for key in ends[0].keys() | ends[1].keys() if ends[0].get(key) != ends[1].get(key))
    manifest = json.loads((calm / "pairs" / "manifest.json").read_text())
    return {
        "pairs": manifest["pairs_out"], "held_out": manifest["held_out"]["images"], "seconds": round(seconds),
        "stopped": stops, "same": not different, "different": different,
    }  # fmt: skip


def stop_in(command: Sequence[str], out: Path, step: str, how: signal.Signals) -> str:
    """Start the run, wait until a step is at work, and stop it; returns how it ended."""
    # A script in the background is deaf to Ctrl-C, and its children would be too.
    hearing = partial(signal.signal, signal.SIGINT, signal.default_int_handler)
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=hearing)
    logs = out / "logs"
    while run.poll() is None and not list(logs.glob(f"{step}*.progress")):
        time.sleep(0.02)
    if run.poll() is not None:
        return f"{step}: finished before it could be stopped"
    os.kill(run.pid, how)
    return f"{step}: {how.name}, {run.wait()}"


def contents(out: Path) -> dict[str, str]:
    """What a run has come to, by hash: pairs, adapter, results and items."""
    paths = [
        *sorted((out / "pairs" / "pairs").glob("*.parquet")),
        *sorted((out / "aligned" / "adapter").glob("*.safetensors")),
        *sorted((out / "eval" / "items").glob("*/*.jsonl")),
    ]
    found = {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
    results = json.loads((out / "eval" / "results.json").read_text())
    found["numbers"] = json.dumps([results["models"], results["comparisons"]], sort_keys=True)
    return found


def _command(model: Path, records: Path, out: Path) -> list[str]:
    given = ("--model", str(model), "--records", str(records), "--out", str(out), *SHORT)
    return [sys.executable, "-m", "veridical", "run", *given]


if __name__ == "__main__":
    main()
