"""A judge that is down for a while: nothing is rejected for it, and the same command asks again."""

import json
from dataclasses import replace

import pytest
from tests.judges.misbehaving import send, serving
from tests.pairs.test_served_builds import judge

from veridical.constructions.ha_dpo import HaDpoSettings
from veridical.errors import UserError
from veridical.judges.models import VisionLanguageModelSettings
from veridical.pairs.command import BuildConfig, run
from veridical.pairs.dataset import read_pairs
from veridical.world.records import world_records


def completion(body):
    return {"choices": [{"message": {"content": judge(body)}, "finish_reason": "stop"}]}


@pytest.mark.end_to_end
def test_records_stay_open_through_an_outage(captioner_folder, tmp_path):
    world_records("pairs", 10, 3, tmp_path / "photos")
    down = set()

    def deed(handler, body):
        """Every third picture can't be asked about while the server is down."""
        content = body["messages"][1]["content"]
        shown = content[0]["image_url"]["url"] if isinstance(content, list) else ""
        failing = bool(down) and bool(shown) and sum(shown.encode()) % 3 == 0
        send(handler, 503 if failing else 200, {"error": "down"} if failing else completion(body))

    with serving(deed) as server:
        asked = VisionLanguageModelSettings(
            model="judge-1", url=server.url, cache=tmp_path / "cache", tries=1, first_wait=0.0, concurrency=1
        )
        config = BuildConfig(
            tmp_path / "out", construction="ha-dpo", records=str(tmp_path / "photos"), model=str(captioner_folder),
            batch_size=4, shard_size=3, device="cpu", judge=asked, held_out=0,
            settings=HaDpoSettings(max_new_tokens=96, styles=0, questions=False),
        )  # fmt: skip
        whole = run(replace(config, out=tmp_path / "whole", judge=replace(asked, cache=tmp_path / "other")))
        down.add(True)
        with pytest.raises(UserError, match="--accept-failures") as stopped:
            run(config)
        assert "judge-http-503" in str(stopped.value)
        assert not (config.out / "manifest.json").exists()
        rejected = replace(config, out=tmp_path / "rejected", accept_failures=True)
        run(rejected)
        down.clear()
        before = len(server.asked)
        run(config)
        # Only what was open is asked about.
        assert 0 < len(server.asked) - before < 10
    expected = [(pair.id, pair.chosen, pair.rejected) for pair in read_pairs(whole)]
    assert [(pair.id, pair.chosen, pair.rejected) for pair in read_pairs(config.out)] == expected
    manifest = json.loads((config.out / "manifest.json").read_text())
    assert "judge-http-503" not in manifest["rejected"]
    closed = json.loads((rejected.out / "manifest.json").read_text())
    assert closed["rejected"]["judge-http-503"] > 0
    assert closed["records_in"] == 10 == closed["records_used"] + sum(closed["rejected"].values())
