"""Pairs pushed to the Hub and data read from it, by its own client against a local server that speaks its interface."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image
from tests.hub import TOKEN, Hub, running

from veridical.pairs.dataset import read_pairs, write_build
from veridical.records import FurtherAnswer, ImageFile, Message, Pair, Provenance


@pytest.fixture
def hub():
    with running() as hub:
        yield hub


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    found = []
    for number in range(3):
        path = folder / f"{number}.png"
        Image.new("RGB", (70, 70), (80 * number, 9, 9)).save(path)
        found.append(ImageFile(path, hashlib.sha256(path.read_bytes()).hexdigest()))
    return found


@pytest.fixture
def pairs(images, tmp_path) -> list[Pair]:
    made = Provenance("bpo", "plain", {"rho": 0.5}, 3, "some/model", "oracle", 1, "annotation", "injected")
    found = [
        Pair(f"p{n}", f"r{n}", (images[n],), (Message("user", "What?"),), f"A cup {n}.", f"A cat {n}.", made)
        for n in range(3)
    ]
    found[0] = Pair(
        **{f: getattr(found[0], f) for f in Pair.__dataclass_fields__} | {"others": (FurtherAnswer("A hat."),)}
    )
    write_build(tmp_path / "run", found)
    return found


def python(hub: Hub, home: Path, *arguments: object, token: str = TOKEN) -> subprocess.CompletedProcess[str]:
    given = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment = {
        **given, "HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_TOKEN": token, "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1",
    }  # fmt: skip
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def veridical(hub: Hub, home: Path, *arguments: object, token: str = TOKEN) -> subprocess.CompletedProcess[str]:
    return python(hub, home, "-m", "veridical", *arguments, token=token)


def test_pushed_pairs_come_back_as_they_were(hub, pairs, tmp_path):
    run = tmp_path / "run"
    for licence in ("", "cc-by-4.0"):  # the second time, what is there gives way
        flags = ("--license", licence) if licence else ()
        pushed = veridical(hub, tmp_path / "home", "data", "export", run, "--push", "me/cups", *flags)
        assert pushed.returncode == 0, pushed.stderr
    assert "3 pairs in me/cups" in pushed.stdout
    files = hub.sets["me/cups"]
    assert sorted(files) == [".gitattributes", "README.md", "data/train-00000-of-00001.parquet"][-len(files) :]
    _, header, text = files["README.md"].decode().split("---\n", 2)
    about = yaml.safe_load(header)
    assert about["license"] == "cc-by-4.0"
    assert about["configs"][0]["data_files"] == [{"split": "train", "path": "data/*.parquet"}]
    for said in ("3 pairs about 3 images", "bpo (3)", "annotation (3)", "others (1)", "hf://me/cups", "load_dataset"):
        assert said in text

    out = tmp_path / "again"
    done = veridical(hub, tmp_path / "home2", "data", "import", "hf://me/cups:train", "--out", out)
    assert done.returncode == 0, done.stderr
    again = read_pairs(out)
    assert [(p.id, p.chosen, p.rejected, p.others, p.provenance) for p in again] == [
        (p.id, p.chosen, p.rejected, p.others, p.provenance) for p in pairs
    ]
    assert [p.images[0].sha256 for p in again] == [p.images[0].sha256 for p in pairs]


def test_json_lines_are_pushed_with_their_images(hub, pairs, tmp_path):
    run = tmp_path / "run"
    done = veridical(
        hub, tmp_path / "home", "data", "export", run, "--push", "me/swift", "--format", "ms-swift", "--private"
    )
    assert done.returncode == 0, done.stderr
    assert hub.private["me/swift"]
    assert sum(path.startswith("data/images/") for path in hub.sets["me/swift"]) == 3
    checked = veridical(hub, tmp_path / "home2", "data", "check", "hf://me/swift", "--json", tmp_path / "found.json")
    assert json.loads((tmp_path / "found.json").read_text())["pairs"] == 4, checked.stderr


def test_records_of_a_split(hub, images, tmp_path):
    def rows(name):
        return "".join(
            json.dumps({"file_name": f"images/{image.path.name}", "text": f"{name} {number}."}) + "\n"
            for number, image in enumerate(images)
        ).encode()

    pictures = {f"images/{image.path.name}": image.path.read_bytes() for image in images}
    hub.sets["you/photos"] = {"train.jsonl": rows("Train"), "test.jsonl": rows("Test"), **pictures}
    hub.private["you/photos"] = False
    code = (
        "import sys; from pathlib import Path; from veridical.formats.sources import read_records\n"
        "for one in read_records(sys.argv[1], Path(sys.argv[2])): print(one.reference, one.images[0].sha256[:8])"
    )
    for source, wanted in (("hf://you/photos:test", "Test"), ("hf://you/photos:train", "Train")):
        done = python(hub, tmp_path / "home", "-c", code, source, tmp_path / "work")
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines() == [f"{wanted} {n}. {image.sha256[:8]}" for n, image in enumerate(images)]


@pytest.mark.parametrize(
    ("arguments", "token", "said"),
    [
        (("data", "check", "hf://me/absent"), TOKEN, "not found"),
        (("data", "check", "hf://me/cups:test"), TOKEN, "no split 'test'; it has train"),
        (("data", "check", "hf://cups"), TOKEN, "hf://OWNER/NAME"),
        (("data", "check", "me/cups"), TOKEN, "named hf://me/cups"),
        (("data", "export", "RUN", "--push", "me/new"), "wrong", "HF_TOKEN"),
        (("data", "export", "RUN"), TOKEN, "--push"),
    ],
)
def test_what_the_hub_refuses_is_said_with_what_to_do(hub, pairs, tmp_path, arguments, token, said):
    hub.sets["me/cups"], hub.private["me/cups"] = {"train.jsonl": b"{}\n"}, False
    given = [tmp_path / "run" if one == "RUN" else one for one in arguments]
    done = veridical(hub, tmp_path / "home", *given, token=token)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
