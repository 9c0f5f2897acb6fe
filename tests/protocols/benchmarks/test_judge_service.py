"""Benchmarks judged by a model behind a real HTTP server: asked, asked again, saved, failed, shown images."""

from __future__ import annotations

import json

import pytest
from PIL import Image
from tests.judges.misbehaving import answer, say, serving, status

from protocols.benchmarks.conftest import column


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def mmhal(write):
    rows = [
        {
            "image_src": f"https://x.org/{n}.png", "image_content": ["Dog"], "question": f"What {n}?",
            "gt_answer": "Truth.", "model_answer": f"Answer {n}",
        }
        for n in (1, 2)
    ]  # fmt: skip
    return ("mmhal", "--answers", write("mmhal.json", rows), "--service.first-wait", "0.01", "--service.tries", "2")


def rate(body: dict) -> str:
    return "Rating: 5" if "Answer 1" in json.dumps(body) else "Rating: 2"


def test_a_model_is_asked_and_its_texts_are_kept(score, mmhal, tmp_path):
    saved = tmp_path / "judged.jsonl"
    with serving(answer(rate)) as server:
        service = ("--service.url", server.url, "--service.model", "judge-1")
        found = score(*mmhal, *service, "--save-judgements", saved)
        assert len(server.asked) == 2
        assert (server.asked[0]["max_tokens"], server.asked[0]["temperature"]) == (1024, 0.0)
        again = score(*mmhal, *service)
        assert len(server.asked) == 2  # out of the cache
    assert found["judge"]["name"] == "judge-1"
    assert column(found, "parsed") == [5, 2]
    assert again == found
    from_file = score(*mmhal, "--judgements", saved)
    assert from_file.pop("made_with")["inputs"]["judgements"][0]["name"] == "judged.jsonl"
    assert from_file == {name: value for name, value in found.items() if name != "made_with"}


def test_a_call_without_a_reply_is_named_and_left_out(score, mmhal):
    with serving(say("Rating: 4"), status(500), status(500)) as server:
        service = ("--service.url", server.url, "--service.model", "judge-1", "--service.concurrency", "1")
        found = score(*mmhal, *service)
    assert found["counts"]["judge_failed"] == 1
    assert found["faults"]["unjudged"] == ["2"]
    assert found["metrics"]["score"] == 4


def test_mm_vet_asks_again_warmer_until_there_is_a_number(write, score):
    q = write("q.json", {"v1_0": {"imagename": "a", "question": "x?", "answer": "one", "capability": ["ocr"]}})
    a = write("a.json", {"v1_0": "1"})
    with serving(say("I think", "Score: 1", "0.8")) as server:
        service = ("--service.url", server.url, "--service.model", "judge-1")
        found = score("mm-vet", "--questions", q, "--answers", a, *service)
    assert column(found, "score") == [0.8]
    assert [body["temperature"] for body in server.asked] == [0.0, 0.0, 0.5]
    assert server.asked[1]["messages"][-1]["content"].endswith("nothing else: ")
    with serving(say("never")) as server:
        service = ("--service.url", server.url, "--service.model", "judge-2")
        found = score("mm-vet", "--questions", q, "--answers", a, *service)
    assert len(server.asked) == 6
    assert found["faults"]["unparsed"] == ["v1_0"]
    assert found["metrics"]["total"] == 0


def test_a_judge_that_sees_the_image_is_another_judge(score, refused, mmhal, tmp_path):
    with serving(answer(rate)) as server:
        service = ("--service.url", server.url, "--service.model", "judge-1", "--judge-sees")
        assert "needs --judge-images" in refused(*mmhal, *service)
        assert "1.png" in refused(*mmhal, *service, "--judge-images", tmp_path)
        for n in (1, 2):
            Image.new("RGB", (16, 16)).save(tmp_path / f"{n}.png")
        found = score(*mmhal, *service, "--judge-images", tmp_path)
        content = server.asked[0]["messages"][-1]["content"]
    assert content[0]["image_url"]["url"].startswith("data:image/png;base64,")
    assert found["judge"]["name"] == "judge-1 (sees the image)"


def test_objects_listed_by_a_model(write, score):
    objects = write("o.json", {"1": ["dog"]})
    a = write("a.jsonl", [{"image_id": 1, "text": "There is a dog and a cat."}])
    with serving(say('["dog", "cat"]')) as server:
        service = ("--service.url", server.url, "--service.model", "judge-1")
        found = score("object-halbench", "--objects", objects, "--answers", a, *service)
    assert found["protocol"] == "object-halbench[coco80,judge]/1"
    assert found["items"][0]["invented"] == ["cat"]
