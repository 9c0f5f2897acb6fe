"""Whole builds, loops and evaluations with a served model, beside the same with the model in this process."""

from __future__ import annotations

import json
from dataclasses import replace

import httpx
import pytest
from tests.generators.server import MODEL, serving

from veridical.cli import main
from veridical.constructions.bdhs import BdhsSettings
from veridical.constructions.povid import PovidSettings
from veridical.constructions.spa import SpaSettings
from veridical.errors import UserError
from veridical.generators.config import GeneratorSettings
from veridical.loops.config import LoopConfig
from veridical.loops.rounds import run as run_loop
from veridical.pairs.command import BuildConfig, run
from veridical.pairs.dataset import read_pairs
from veridical.protocols.config import EvalConfig
from veridical.protocols.evaluation import evaluate

GUIDED = BdhsSettings(view="blur:40", temperature=0.0, tries=1, max_new_tokens=24)


def texts(out):
    return [(pair.id, pair.chosen, pair.rejected) for pair in read_pairs(out)]


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> BuildConfig:
    """A build in this process: sentences of the reference completed greedily on a blurred picture."""
    out = tmp_path_factory.mktemp("builds")
    config = BuildConfig(
        out / "local", construction="bdhs", settings=GUIDED, limit=10, batch_size=4, shard_size=4, device="cpu"
    )
    run(config)
    return config


def served(built, url, out, **more) -> BuildConfig:
    # A model that is nowhere: were any loaded, it would be refused.
    asked = GeneratorSettings(url=url, model=MODEL, tries=2, first_wait=0.01, concurrency=4)
    return replace(built, out=out, model="nowhere", generator=asked, **more)


@pytest.mark.end_to_end
def test_a_build_by_a_server_makes_the_same_pairs_and_loads_no_model(built, url, tmp_path, capsys):
    run(served(built, url, tmp_path / "served"))
    assert texts(tmp_path / "served") == texts(built.out)
    assert {pair.provenance.model for pair in read_pairs(tmp_path / "served")} == {f"{MODEL} (served)"}
    manifest = json.loads((tmp_path / "served" / "manifest.json").read_text())
    assert manifest["identity"]["generated_by"] == f"{MODEL} at {url}"
    assert manifest["identity"]["generator"]["model"] == MODEL
    assert "url" not in manifest["identity"]["generator"]
    usage = manifest["judges"]["generator"]
    assert usage["calls"] > 0 < usage["completion_tokens"]
    # The same by the command line, in which the server may be elsewhere by now.
    flags = ["--construction", "bdhs", "--settings.view", "blur:40", "--settings.temperature", "0", "--limit", "10"]
    flags += ["--settings.tries", "1", "--settings.max-new-tokens", "24", "--shard-size", "4"]
    flags += ["--out", str(tmp_path / "flags"), f"--generator.url={url}", f"--generator.model={MODEL}"]
    with pytest.raises(SystemExit) as ended:
        main(["build", *flags])
    assert ended.value.code == 0
    assert texts(tmp_path / "flags") == texts(built.out)


@pytest.mark.end_to_end
def test_what_a_server_cant_is_refused_before_the_build(built, url, tmp_path):
    masked = replace(GUIDED, view="token-mask:0.9")
    with pytest.raises(UserError, match="it can't hide or change image tokens"):
        run(served(built, url, tmp_path / "masked", settings=masked))
    noised = replace(GUIDED, view="noise:400")
    with pytest.raises(UserError, match="noise:450:pixels"):
        run(served(built, url, tmp_path / "noised", settings=noised))
    with pytest.raises(UserError, match="spa needs --adapter"):
        run(served(built, url, tmp_path / "spa", construction="spa", settings=SpaSettings()))
    assert not list(tmp_path.glob("*/pairs"))
    with pytest.raises(UserError, match=r"needs --generator\.model"):
        GeneratorSettings(url=url)


def test_a_construction_that_asks_no_model_loads_none(tmp_path):
    config = BuildConfig(
        tmp_path / "out", construction="povid", settings=PovidSettings(), model="nowhere", limit=4, device="cpu"
    )
    run(config)
    assert {pair.provenance.model for pair in read_pairs(config.out)} == {"none"}


@pytest.mark.end_to_end
def test_a_server_that_dies_keeps_what_was_made_and_another_one_finishes_it(built, bundled_folder, url, tmp_path):
    config = served(built, url, tmp_path / "out")
    with (
        serving(bundled_folder, "--die-after", "20") as dying,
        pytest.raises(UserError, match=r"[Rr]un the same command"),
    ):
        run(replace(config, generator=replace(config.generator, url=dying)))
    assert (config.out / ".work" / "journal").exists()
    run(config)
    assert texts(config.out) == texts(built.out)


@pytest.mark.end_to_end
def test_a_served_model_beside_a_local_one_in_one_table(url, tmp_path):
    config = EvalConfig(
        out=tmp_path / "eval",
        models=("bundled", f"server={url}#{MODEL}"),
        protocols=("world-chair", "world-pope"),
        limit=3,
        questions=1,
        device="cpu",
    )
    results = evaluate(config)
    local, remote = results["models"]["base"], results["models"]["server"]
    assert {key: one["value"] for key, one in remote.items()} == {key: one["value"] for key, one in local.items()}
    assert results["measured"]["server"]["url"] == url
    assert results["served"]["server"]["calls"] > 0
    # What was answered is kept: only the probes are asked again.
    asked = httpx.get(url.replace("/v1", "/asked")).json()["completions"]
    again = evaluate(config)
    probes = httpx.get(url.replace("/v1", "/asked")).json()["completions"] - asked
    assert again["models"] == results["models"]
    assert probes < 20 < results["served"]["server"]["calls"]
    with pytest.raises(UserError, match="can't change every token's logits"):
        evaluate(replace(config, out=tmp_path / "vcd", methods=("vcd",)))
    with pytest.raises(UserError, match=f"say which model of those served there, as {url}#MODEL"):
        evaluate(replace(config, out=tmp_path / "none", models=("bundled", url)))


BUILD = """
construction: ranked
limit: 6
settings: {candidates: 3, temperature: 1.2, max_new_tokens: 64, length_gap: 1.0}
generator: {url: URL, model: MODEL}
"""
ALIGN = """
epochs: 1
batch_size: 4
learning_rate: 3.0e-3
workers: 0
device: cpu
lora: {rank: 2, alpha: 4}
"""


@pytest.mark.end_to_end
def test_a_loop_samples_each_round_with_its_adapter_on_the_server(url, tmp_path):
    (tmp_path / "build.yaml").write_text(BUILD.replace("URL", url).replace("MODEL", MODEL))
    (tmp_path / "align.yaml").write_text(ALIGN)
    config = LoopConfig(out=tmp_path / "out", build=tmp_path / "build.yaml", align=tmp_path / "align.yaml", rounds=2)
    run_loop(config)
    first, second = (
        json.loads((config.out / f"round-{number}" / "pairs" / "manifest.json").read_text())["identity"]
        for number in (1, 2)
    )
    assert first["model_fingerprint"] != second["model_fingerprint"]
    assert first["generated_by"] == f"{MODEL} at {url}"
    assert second["generated_by"] == f"{MODEL} with {config.out / 'round-1' / 'run' / 'adapter'} at {url}"
    assert (config.out / "adapter" / "adapter_model.safetensors").exists()
    # The server was asked to forget the adapter again.
    assert [one["id"] for one in httpx.get(f"{url}/models").json()["data"]] == [MODEL]
