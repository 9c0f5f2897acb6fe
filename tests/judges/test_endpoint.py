"""Calls to an endpoint that misbehaves: retries, waits, the cache, the counts, and when to give up."""

import asyncio
import base64
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time

import pytest
from PIL import Image
from tests.judges.misbehaving import answer, completion, cut, no_choices, no_json, say, send, serving, slow, status

from veridical.errors import UserError
from veridical.http_client import HttpClient
from veridical.judges.cache import Cache
from veridical.judges.endpoint import Endpoint
from veridical.judges.interface import JudgeError
from veridical.judges.messages import Call, ChatMessage, Service
from veridical.judges.models import LanguageModelSettings
from veridical.judges.registry import JudgeContext
from veridical.records import ImageFile

KEY = "sk-not-to-be-seen"


def call(text="Hello?", **more) -> Call:
    return Call((ChatMessage("user", text),), **more)


def service(server, cache=None, **more) -> Service:
    settings = {"tries": 3, "first_wait": 0.01, "timeout": 5.0} | more
    return Service(Endpoint(server.url, "judge-1", sees=True, **settings), Cache(cache) if cache else None)


def test_a_reply_with_its_counts(monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", KEY)
    with serving(say("Hi.")) as server:
        asked = service(server, key_variable="JUDGE_KEY", price_in=2.0, price_out=10.0)
        [reply] = asked.reply([call(temperature=0.5, seed=7, max_tokens=9)])
    assert (reply.text, reply.finished, reply.cached) == ("Hi.", True, False)
    assert len(reply.date) == 10
    assert server.headers[0]["path"] == "/v1/chat/completions"
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert server.asked[0] == {
        "model": "judge-1",
        "messages": [{"role": "user", "content": "Hello?"}],
        "max_tokens": 9,
        "temperature": 0.5,
        "seed": 7,
        "stream": False,
    }
    plain = asked.usage.plain()
    assert (plain["calls"], plain["prompt_tokens"], plain["completion_tokens"]) == (1, 100, 10)
    assert plain["cost"] == pytest.approx((100 * 2 + 10 * 10) / 1e6)


def test_images_go_along_as_they_lie_on_disk(tmp_path):
    for name in ("a.png", "b.jpg", "c.bmp"):
        Image.new("RGB", (16, 12), "red").save(tmp_path / name)
    images = tuple(ImageFile(tmp_path / name, name) for name in ("a.png", "b.jpg", "c.bmp"))
    with serving(say("Red.")) as server:
        service(server).reply([Call((ChatMessage("user", "Colour?", images),))])
    small = ImageFile(tmp_path / "d.bmp", "d")
    Image.new("RGB", (2, 2)).save(small.path)
    with serving(say("Red.")) as other:
        [refused] = service(other).reply([Call((ChatMessage("user", "Colour?", (small,)),))])
    assert (refused.reason, other.asked) == ("image-too-small", [])
    *shown, text = server.asked[0]["messages"][0]["content"]
    assert text == {"type": "text", "text": "Colour?"}
    urls = [part["image_url"]["url"] for part in shown]
    assert [url.partition(";")[0] for url in urls] == ["data:image/png", "data:image/jpeg", "data:image/png"]
    assert base64.b64decode(urls[1].partition(",")[2]) == (tmp_path / "b.jpg").read_bytes()


def test_in_a_notebook_whose_loop_is_running_calls_are_answered_and_errors_raised():
    async def cell(server):
        return service(server).reply([call()])

    with serving(say("Hi.")) as server:
        [reply] = asyncio.run(cell(server))
    assert reply.text == "Hi."
    with serving(status(401)) as server, pytest.raises(UserError, match="refuses the key"):
        asyncio.run(cell(server))


@pytest.mark.parametrize("fault", [status(429), status(500), status(503), cut, no_json, no_choices, slow(2.5)])
def test_what_may_pass_is_tried_again(fault):
    with serving(fault, fault, say("At last.")) as server:
        asked = service(server, timeout=1.0)
        [reply] = asked.reply([call()])
    assert reply.text == "At last."
    assert (asked.usage.retries, asked.usage.failures) == (2, {})


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (status(429), "judge-http-429"),
        (status(500), "judge-http-500"),
        (cut, "judge-unreachable"),
        (no_json, "judge-bad-reply"),
        (slow(2.0), "judge-timeout"),
        (status(400), "judge-refused"),
    ],
)
def test_what_does_not_pass_is_a_counted_failure_of_its_call(fault, reason):
    with serving(fault) as server:
        asked = service(server, timeout=0.7)
        [reply] = asked.reply([call()])
    assert isinstance(reply, JudgeError)
    assert (reply.reason, asked.usage.failures) == (reason, {reason: 1})
    assert len(server.asked) == (1 if reason == "judge-refused" else 3)


def test_a_server_that_says_when_to_come_back_is_obeyed():
    with serving(status(429, {"Retry-After": "0.6"}), say("Now.")) as server:
        start = time.monotonic()
        assert service(server).reply([call()])[0].text == "Now."
        assert time.monotonic() - start >= 0.6


def test_waits_double_with_jitter_and_are_bounded():
    client = HttpClient("http://x/v1", first_wait=1.0)

    class PassingError(Exception):
        wait = None

    for attempt in range(1, 9):
        waits = [client._wait(attempt, PassingError()) for _ in range(50)]
        assert all(min(0.5 * 2 ** (attempt - 1), 60) <= wait <= min(1.5 * 2 ** (attempt - 1), 60) for wait in waits)
        assert attempt > 7 or len(set(waits)) > 1


def test_calls_under_way_are_bounded():
    def deed(handler, body):
        time.sleep(0.1)
        send(handler, 200, completion(body["messages"][0]["content"]))

    with serving(deed) as server:
        replies = service(server, concurrency=3).reply([call(str(i)) for i in range(9)])
    assert [reply.text for reply in replies] == [str(i) for i in range(9)]
    assert server.most == 3


def test_wrong_keys_and_unknown_models_end_the_run_at_once(monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", KEY)
    for code, said in ((401, "JUDGE_KEY"), (403, "JUDGE_KEY"), (404, "judge-1")):
        with serving(status(code)) as server, pytest.raises(UserError, match=said) as caught:
            service(server, key_variable="JUDGE_KEY").reply([call()])
        assert KEY not in str(caught.value)
        assert len(server.asked) == 1


def test_an_endpoint_that_is_gone_ends_the_run_and_rejects_nothing():
    with serving(say("Hi.")) as server:
        asked = service(server, tries=1)
        asked.reply([call()])
    with pytest.raises(UserError, match="run the same command again"):
        asked.reply([call(str(i)) for i in range(20)])


def test_now_and_then_a_failure_is_not_the_end():
    with serving(answer(lambda body: "fine")) as server:
        server.deeds = [status(400) if i % 2 else say("fine") for i in range(40)]
        replies = service(server, concurrency=1).reply([call(str(i)) for i in range(40)])
    assert sum(isinstance(reply, JudgeError) for reply in replies) == 20


def test_a_call_is_made_once_for_all_runs(tmp_path):
    with serving(answer(lambda body: body["messages"][0]["content"].upper())) as server:
        first = service(server, tmp_path).reply([call("a"), call("b"), call("a")])
        again = service(server, tmp_path)
        second = again.reply([call("b"), call("c")])
        assert [reply.text for reply in (*first, *second)] == ["A", "B", "A", "B", "C"]
        assert len(server.asked) == 3
        assert (again.usage.calls, again.usage.cached) == (2, 1)
        assert second[0].cached
        again.forget(call("b"))
        assert service(server, tmp_path).reply([call("b")])[0].cached is False


@pytest.mark.parametrize(
    "other", [{"temperature": 1.0}, {"seed": 1}, {"max_tokens": 9}, {"model": "judge-2"}, {"image": 1}]
)
def test_the_cache_is_keyed_by_the_whole_request(tmp_path, other):
    image = ImageFile(tmp_path / "x.png", "00")
    Image.new("RGB", (16, 12)).save(image.path)
    with serving(say("x")) as server:
        service(server, tmp_path / "cache").reply([call()])
        changed = Service(Endpoint(server.url, other.pop("model", "judge-1"), sees=True), Cache(tmp_path / "cache"))
        messages = (ChatMessage("user", "Hello?", (image,) if other.pop("image", None) else ()),)
        changed.reply([Call(messages, **other)])
        assert len(server.asked) == 2


def test_an_altered_reply_in_the_cache_counts_as_missing(tmp_path):
    with serving(say("x")) as server:
        service(server, tmp_path).reply([call()])
        with sqlite3.connect(tmp_path / "replies.sqlite") as kept:
            assert kept.execute("UPDATE entries SET value = replace(value, 'x', 'y')").rowcount == 1
        assert service(server, tmp_path).reply([call()])[0].text == "x"
        assert len(server.asked) == 2


def test_the_key_reaches_no_file_and_no_message(tmp_path, monkeypatch, caplog, capfd):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving(say("x"), status(500)) as server:
        asked = service(server, tmp_path)
        replies = asked.reply([call("one"), call("two")])
    written = [path.read_bytes().decode("latin-1") for path in tmp_path.rglob("*") if path.is_file()]
    assert written
    said = [*written, repr(asked), str(replies), caplog.text, *capfd.readouterr(), json.dumps(asked.usage.plain())]
    assert not any(KEY in text for text in said)


def test_replies_that_came_before_an_interruption_are_kept(tmp_path):
    """Ctrl-C while one call hangs: the process ends at once, and what was answered is not asked again."""
    script = (
        "import sys; from pathlib import Path; from tests.judges.test_endpoint import *\n"
        "s = Service(Endpoint(sys.argv[1], 'judge-1', sees=True), Cache(Path(sys.argv[2])))\n"
        "s.reply([call('a'), call('hang')])\n"
    )

    def deed(handler, body):
        if body["messages"][0]["content"] == "hang":
            time.sleep(20)
        send(handler, 200, completion("ok"))

    with serving(deed) as server:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        process = subprocess.Popen(
            [sys.executable, "-c", script, server.url, str(tmp_path)], env=environment, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 30
        while not Cache(tmp_path).store.keys() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        start = time.monotonic()
        process.wait(10)
        assert time.monotonic() - start < 5
        assert process.returncode
        assert service(server, tmp_path).reply([call("a")])[0].cached


def test_settings_open_a_service_with_the_users_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with serving(say('{"claims": ["There is a cup."]}')) as server:
        judge = LanguageModelSettings(model="judge-1", url=server.url).open(JudgeContext())
        judge.service.reply([call()])
    assert len(Cache(tmp_path / "veridical").store.keys()) == 1
    with pytest.raises(UserError, match=r"--judge\.model"):
        LanguageModelSettings().open(JudgeContext())
