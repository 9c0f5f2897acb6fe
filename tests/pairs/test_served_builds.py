"""Whole builds with a judge behind HTTP: no annotations, nonsense now and then, and what the manifest says of it."""

import json
import re
from dataclasses import replace

import pytest
from tests.judges.misbehaving import answer, serving

from veridical.constructions.balanced_correction import BalancedCorrectionSettings
from veridical.judges.models import VisionLanguageModelSettings
from veridical.pairs.command import BuildConfig, run
from veridical.pairs.dataset import read_pairs
from veridical.world.records import world_records

KEY = "sk-not-to-be-seen"
PHRASE = re.compile(r"\b(?:an?|two|three) (\w+)")


def judge(body) -> str:
    """Finds the first thing that a text names invented, and takes it out; answers every fifth text with nonsense."""
    system, user = body["messages"][0]["content"], body["messages"][1]["content"]
    asked = user if isinstance(user, str) else user[-1]["text"]
    text = asked.split("text to check:\n" if "hallucinations" in system else "The text:\n")[1].split("\n")[0]
    if len(text) % 5 == 0:
        return "Sure, happy to help!"
    if "hallucinations" not in system:
        return json.dumps({"text": PHRASE.sub("nothing", text, count=1)})
    match = PHRASE.search(text)
    if match is None:
        return json.dumps({"objects": [], "faults": [], "missing": []})
    named = {"name": match.group(1), "quote": match.group()}
    fault = {"kind": "object", "quote": match.group(), "correction": "", "reason": "it is not there"}
    return json.dumps({"objects": [named], "faults": [fault], "missing": []})


@pytest.mark.end_to_end
def test_a_vision_language_judge_over_http(captioner_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    folder = tmp_path / "photos"
    world_records("pairs", 16, 3, folder)  # pictures and nothing else: no captions, no annotations
    with serving(answer(judge)) as server:
        asked = VisionLanguageModelSettings(
            model="judge-1", url=server.url, cache=tmp_path / "cache", price_in=1.0, tries=2
        )
        config = BuildConfig(
            tmp_path / "out", construction="balanced-correction", records=str(folder), batch_size=4,
            model=str(captioner_folder),
            shard_size=6, device="cpu", judge=asked, held_out=0,
            settings=BalancedCorrectionSettings(max_new_tokens=96, omission_share=0.0, candidates=2, temperature=1.0),
        )  # fmt: skip
        run(config)
        requests = len(server.asked)
        again = run(replace(config, out=tmp_path / "again", batch_size=16))
        # Only what could not be read is asked again.
        assert requests < len(server.asked) < 2 * requests

    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    usage = manifest["judges"]["judge-1"]
    failed = manifest["rejected"].get("judge-unreadable", 0)
    assert manifest["records_in"] == 16 == manifest["records_used"] + sum(manifest["rejected"].values())
    assert failed > 0
    assert usage["failures"] == {"judge-unreadable": failed}
    assert usage["repairs"] >= failed
    assert usage["calls"] - usage["cached"] == requests
    assert (usage["prompt_tokens"], usage["cost"]) == (100 * requests, pytest.approx(1e-4 * requests))
    assert {tag.partition("/")[0] for tag in usage["prompts"]} == {"detect", "rewrite"}
    assert len(usage["dates"]) in (1, 2)

    pairs = read_pairs(tmp_path / "out")
    assert {pair.provenance.judge for pair in pairs} == {"judge-1"}
    assert all("nothing" in pair.chosen for pair in pairs)
    assert [(p.id, p.chosen, p.rejected) for p in read_pairs(again)] == [(p.id, p.chosen, p.rejected) for p in pairs]
    # The server saw the pictures, and nobody else saw the key.
    assert all(server.asked[i]["messages"][1]["content"][0]["type"] == "image_url" for i in (0, 1))
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(KEY.encode() in content for content in written)
