"""Whole builds of the judged constructions, on a tiny model that speaks the picture world's grammar."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from veridical.constructions.bpo_image import BpoImageSettings
from veridical.constructions.bpo_inject import BpoInjectSettings
from veridical.constructions.ha_dpo import HaDpoSettings
from veridical.constructions.povid import PovidSettings
from veridical.constructions.ranked import RankedSettings
from veridical.constructions.self_correct import SelfCorrectSettings
from veridical.constructions.spa import SpaSettings
from veridical.errors import UserError
from veridical.judges.implicit import ImplicitSettings
from veridical.pairs.command import BuildConfig, config_type, run
from veridical.pairs.dataset import read_pairs

HOT = {"max_new_tokens": 64, "temperature": 1.0}
BUILDS = {
    "bpo-inject": BpoInjectSettings(image=BpoImageSettings(view="noise:600", keep_unfinished=True, **HOT)),
    "povid": PovidSettings(every_kind=True, verify=True),
    "ranked": RankedSettings(candidates=4, score="claims", check="model", pairs="all", likelihood_weight=0.1, **HOT),
    "self-correct": SelfCorrectSettings(max_new_tokens=96, enrich=True),
    "ha-dpo": HaDpoSettings(max_new_tokens=96, styles=2),
}


@pytest.fixture(scope="module")
def config(captioner_folder, tmp_path_factory) -> BuildConfig:
    out = tmp_path_factory.mktemp("judged")
    return BuildConfig(out, model=str(captioner_folder), limit=10, seed=3, batch_size=8, shard_size=4, device="cpu")


def made(pairs):
    return [(p.id, p.chosen, p.rejected, p.spans, p.provenance) for p in pairs]


@pytest.mark.end_to_end
@pytest.mark.parametrize("name", BUILDS)
def test_from_records_to_pairs_whatever_the_batch(config, name):
    given = replace(config, construction=name, settings=BUILDS[name])
    out = run(replace(given, out=config.out / name))
    pairs = read_pairs(out)
    manifest = json.loads((out / "manifest.json").read_text())
    assert len(pairs) >= 3
    assert manifest["records_in"] == 10 == manifest["records_used"] + sum(manifest["rejected"].values())
    assert len({pair.id for pair in pairs}) == len(pairs)
    for pair in pairs:
        assert pair.provenance.construction == name
        assert pair.provenance.parameters
        assert pair.provenance.judge == ("backbone" if name == "bpo-inject" else "oracle")
        assert pair.chosen != pair.rejected
    again = run(replace(given, out=config.out / f"{name}-again", batch_size=1, shard_size=99))
    assert made(read_pairs(again)) == made(pairs)


def test_styles_make_the_sides_alike(config):
    summary = json.loads((run(replace(config, out=config.out / "ha-dpo", construction="ha-dpo",
                                      settings=BUILDS["ha-dpo"])) / "summary.json").read_text())  # fmt: skip
    assert summary["variants"]["style"]["same_wording"] > 0.7
    assert summary["questions"]["chosen_yes"] == summary["questions"]["chosen_no"] > 0


def test_spa_needs_an_aligned_model_and_states_its_confidence(config, tmp_path):
    import torch

    from veridical.vlm.load import attach_lora, load
    from veridical.vlm.model.adapters import LoraSettings, save_trained

    given = replace(config, construction="spa", settings=SpaSettings(candidates=3, keep_unfinished=True, **HOT))
    with pytest.raises(UserError, match="spa needs --adapter"):
        run(replace(given, out=tmp_path / "none"))
    ranked = replace(config, construction="ranked", settings=RankedSettings(), judge=ImplicitSettings())
    with pytest.raises(UserError, match=r"judge\.name self needs --adapter"):
        run(replace(ranked, out=tmp_path / "none"))
    assert not (tmp_path / "none").exists()
    vlm = attach_lora(load(config.model, device="cpu"), LoraSettings(rank=4), seed=0)
    with torch.no_grad():
        for name, parameter in vlm.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.02, generator=torch.Generator().manual_seed(len(name)))
    save_trained(vlm, tmp_path / "adapter")
    pairs = read_pairs(run(replace(given, out=tmp_path / "spa", adapter=tmp_path / "adapter")))
    assert len(pairs) >= 3
    for pair in pairs:
        scores = pair.provenance.scores
        assert scores["chosen_reward"] - scores["rejected_reward"] == pytest.approx(scores["margin"])
        assert 0.5 < scores["confidence"] < 1


@pytest.mark.parametrize("name", ["ranked", "self-correct"])
def test_records_that_the_judge_cannot_judge_cost_no_model_time(config, tmp_path, name):
    """The model would refuse: its answers are all cut off at one token."""
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.new("RGB", (32, 32), "red").save(photos / "a.png")
    settings = replace(config_type({"construction": name})(Path("x")).settings, max_new_tokens=1)
    given = replace(config, construction=name, settings=settings, records=str(photos), limit=None, lexicon="world")
    with pytest.raises(UserError, match="1 no-annotations"):
        run(replace(given, out=tmp_path / "run"))
    [reject] = (json.loads(line) for line in (tmp_path / "run" / "rejects.jsonl").read_text().splitlines())
    assert reject["remedy"] == "list the objects that are in the image"
