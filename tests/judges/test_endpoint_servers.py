"""Servers as they are met with: other parameters, replies that never end or can't be read, and keys that leak."""

import base64
import io
import json
import time

import pytest
from PIL import Image
from tests.judges.misbehaving import answer, completion, say, send, serving
from tests.judges.test_endpoint import KEY, call, service

from veridical.errors import UserError
from veridical.http_client import join
from veridical.judges.cache import Cache
from veridical.judges.interface import Detect, Findings, JudgeError
from veridical.judges.language import LanguageJudge
from veridical.judges.messages import Call, ChatMessage
from veridical.judges.models import LanguageModelSettings, VisionLanguageModelSettings
from veridical.judges.registry import JudgeContext
from veridical.records import ImageFile, Message, Record

RECORD = Record("r", (), (Message("user", "?"),), reference="A cup.")
FINE = '{"objects": [], "faults": [], "missing": []}'


def refusing(name, message, unless):
    """A server that refuses a request with `message`, unless its body is right."""

    def deed(handler, body):
        good = unless(body)
        error = {"error": {"message": message, "param": name, "code": "unsupported_parameter"}}
        send(handler, 200 if good else 400, completion("ok") if good else error)

    return deed


def test_a_server_that_wants_max_completion_tokens_and_its_own_temperature():
    message = (
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    )
    deed = refusing("max_tokens", message, lambda body: "max_tokens" not in body and body.get("temperature", 1) == 1)
    with serving(deed) as server:
        asked = service(server, concurrency=1)
        assert [reply.text for reply in asked.reply([call("a", max_tokens=9), call("b")])] == ["ok", "ok"]
    assert [sorted(body.keys() & {"max_tokens", "max_completion_tokens", "temperature"}) for body in server.asked] == [
        ["max_tokens", "temperature"],
        ["max_completion_tokens", "temperature"],
        ["max_completion_tokens"],
        ["max_completion_tokens"],  # what was learnt holds for the next call
    ]
    assert server.asked[2]["max_completion_tokens"] == 9
    assert asked.usage.plain()["left_out"] == ["max_tokens", "temperature"]
    assert asked.usage.retries == 0


def test_a_refused_seed_is_left_out():
    with serving(refusing("seed", "Unrecognized request argument: seed", lambda body: "seed" not in body)) as server:
        assert service(server).reply([call()])[0].text == "ok"
    assert server.asked[1].keys() == server.asked[0].keys() - {"seed"}


def test_a_request_that_is_wrong_in_itself_changes_nothing():
    """A text that is too long is refused in words that name max_tokens, too."""
    message = "'max_tokens' or 'max_completion_tokens' is too large: 512. The maximum context length is 100 tokens"

    def deed(handler, body):
        short = body["messages"][0]["content"] == "short"
        send(handler, 200 if short else 400, completion("ok") if short else {"error": {"message": message}})

    with serving(deed) as server:
        asked = service(server, concurrency=1)
        long, short = asked.reply([call("long"), call("short")])
    assert (long.reason, long.passing, short.text) == ("judge-refused", False, "ok")
    assert "too large" in str(long)
    assert "max_tokens" in server.asked[-1]
    assert "temperature" in server.asked[-1]
    assert "left_out" not in asked.usage.plain()


def test_further_fields_are_sent_and_are_part_of_the_question(tmp_path):
    extra = '{"chat_template_kwargs": {"enable_thinking": false}, "max_completion_tokens": 7, "max_tokens": null}'
    with serving(say(FINE)) as server:
        for body in (extra, extra, "", '{"top_p": 0.5}'):
            settings = LanguageModelSettings(model="m", url=server.url, cache=tmp_path, extra_body=body)
            settings.open(JudgeContext()).detect([Detect(RECORD, "A cup.")])
    assert len(server.asked) == 3
    assert server.asked[0]["chat_template_kwargs"] == {"enable_thinking": False}
    assert server.asked[0]["max_completion_tokens"] == 7
    assert "max_tokens" not in server.asked[0]
    for wrong in ("{", "[1]", "[" * 10**5):
        with pytest.raises(UserError, match="extra_body"):
            LanguageModelSettings(model="m", url="http://x/v1", extra_body=wrong).open(JudgeContext())


def test_large_images_are_scaled_down_and_turned_ones_are_sent_upright(tmp_path):
    Image.new("RGB", (4000, 1000), "red").save(tmp_path / "large.jpg")
    turned = Image.new("RGB", (40, 20), "red").getexif()
    turned[274] = 6
    Image.new("RGB", (40, 20), "red").save(tmp_path / "turned.jpg", exif=turned)
    Image.new("RGB", (300, 100), "red").save(tmp_path / "fits.png")
    images = tuple(ImageFile(tmp_path / name, name) for name in ("large.jpg", "turned.jpg", "fits.png"))
    with serving(say("Red.")) as server:
        settings = VisionLanguageModelSettings(model="m", url=server.url, cache=tmp_path / "cache", image_side=300)
        for side in (settings, VisionLanguageModelSettings(model="m", url=server.url, cache=tmp_path / "cache")):
            side.open(JudgeContext()).service.reply([Call((ChatMessage("user", "Colour?", images),))])
    urls = [part["image_url"]["url"] for part in server.asked[0]["messages"][0]["content"][:3]]
    contents = [base64.b64decode(url.partition(",")[2]) for url in urls]
    assert [Image.open(io.BytesIO(content)).size for content in contents] == [(300, 75), (20, 40), (300, 100)]
    assert contents[2] == (tmp_path / "fits.png").read_bytes()
    # The size is part of the question: the second time it was asked again.
    assert len(server.asked) == 2


def test_a_reply_that_drips_is_bounded_as_a_whole():
    def drip(handler, body):
        handler.send_response(200)
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        for _ in range(50):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.1)

    with serving(drip) as server:
        start = time.monotonic()
        [reply] = service(server, timeout=0.5, tries=2).reply([call()])
        assert time.monotonic() - start < 4
    assert (reply.reason, reply.passing) == ("judge-timeout", True)


def test_a_huge_reply_is_bounded_by_its_size():
    with serving(lambda handler, body: send(handler, 200, None, raw=b" " * (20 * 2**20))) as server:
        [reply] = service(server, tries=1).reply([call()])
    assert reply.reason == "judge-bad-reply"
    assert "larger than 16 MiB" in str(reply)


def raw(content):
    return lambda handler, body: send(handler, 200, None, raw=content)


def with_type(handler, body):
    payload = json.dumps(completion(FINE)).encode()
    handler.send_response(200)
    handler.send_header("Content-Type", "text/plain; charset=utf-16")
    handler.send_header("Content-Length", str(len(payload)))
    handler.end_headers()
    handler.wfile.write(payload)


DEEP = "[" * 100_000 + "]" * 100_000
HALF = '{"objects": [], "faults": [], "missing": ["\ud83d"]}'


@pytest.mark.parametrize(
    ("deed", "reason"),
    [
        (say(HALF), "judge-unreadable"),
        (say(HALF.encode("utf-8", "backslashreplace").decode()), "judge-unreadable"),
        (say(f'{{"objects": {DEEP}}}'), "judge-unreadable"),
        (raw(f'{{"choices": {DEEP}}}'.encode()), "judge-bad-reply"),
        (raw(json.dumps(completion(FINE)).encode("utf-16")), "judge-bad-reply"),
        (raw(json.dumps(completion(FINE)).encode()[:-9] + b'\xff\xed\xa0\x80"}}'), "judge-bad-reply"),
        (raw(json.dumps(completion(FINE)).encode().replace(b"100", b"9" * 5000)), "judge-bad-reply"),
        (raw(json.dumps(completion(FINE)).encode().replace(b"100", b"1e999")), None),
        (raw(json.dumps(completion(FINE)).encode().replace(b"100", b"NaN")), None),
        (raw(json.dumps(completion(FINE)).encode().replace(b"100", b"-100")), None),
        (with_type, None),
    ],
)
def test_odd_replies_are_read_or_unreadable(tmp_path, deed, reason):
    with serving(deed) as server:
        asked = service(server, tmp_path, tries=2)
        [said] = LanguageJudge(asked).detect([Detect(RECORD, "A cup.")])
    if reason is None:
        assert said == Findings()
        assert asked.usage.prompt_tokens == 0 or deed is with_type
    else:
        assert isinstance(said, JudgeError)
        assert (said.reason, said.passing) == (reason, reason == "judge-bad-reply")
        str(said).encode()
        assert not Cache(tmp_path).store.keys()


def test_a_key_with_a_stray_line_end_is_used_without_it(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\r\n")
    with serving(say("x")) as server:
        assert service(server).reply([call()])[0].text == "x"
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("key", [f"{KEY}\r{KEY}", f"{KEY}é", f"a {KEY}"])
def test_a_key_that_no_header_can_hold_is_refused_without_being_shown(monkeypatch, key):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with serving(say("x")) as server, pytest.raises(UserError, match="OPENAI_API_KEY") as caught:
        LanguageModelSettings(model="m", url=server.url).open(JudgeContext())
    with pytest.raises(UserError):
        service(server).reply([call()])
    assert KEY not in str(caught.value)


def echo(code):
    def deed(handler, body):
        said = f"Incorrect key: {handler.headers['Authorization']}"
        send(handler, code, completion(said) if code == 200 else {"error": {"message": said}})

    return deed


@pytest.mark.parametrize("code", [200, 400, 402, 429, 500])
def test_a_server_that_says_the_key_is_never_quoted(monkeypatch, tmp_path, code):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving(echo(code)) as server:
        [said] = service(server, tmp_path, tries=1).reply([call()])
    text = said.text if code == 200 else str(said)
    assert "Bearer [key]" in text
    assert KEY not in text
    assert not any(KEY.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_a_bad_reply_with_the_key_in_it_is_not_quoted_either(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving(raw(f"<html>{KEY}</html>".encode())) as server:
        [said] = service(server, tries=1).reply([call()])
    assert "[key]" in str(said)
    assert KEY not in str(said)


def test_words_that_stand_for_no_key_are_no_secret(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "EMPTY")
    with serving(say("The plate is EMPTY.")) as server:
        assert service(server).reply([call()])[0].text == "The plate is EMPTY."


@pytest.mark.parametrize("url", ["http://me:secret@x/v1", "http://x/v1?api-key=secret", "http://secret@x:1/v1"])
def test_a_url_with_a_key_in_it_is_refused_without_being_shown(url):
    with pytest.raises(UserError, match="key-variable") as caught:
        LanguageModelSettings(model="m", url=url).open(JudgeContext())
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["localhost:8000/v1", "ftp://x/v1", "http:///v1", "http://[::1"])
def test_what_is_no_url_is_refused_before_work(url):
    with pytest.raises(UserError, match="no URL"):
        LanguageModelSettings(model="m", url=url).open(JudgeContext())


def test_the_path_goes_before_the_query():
    path = "/chat/completions"
    assert join("http://x/v1/", path) == "http://x/v1/chat/completions"
    assert join("http://x/v1?api-version=1", path) == "http://x/v1/chat/completions?api-version=1"
    assert join("http://x/v1/?a=1", "//tokenize") == "http://x/tokenize?a=1"


def test_images_that_cant_be_read_are_not_the_servers_fault(tmp_path):
    (tmp_path / "x.png").write_bytes(b"")
    calls = [Call((ChatMessage("user", str(i), (ImageFile(tmp_path / "x.png", "x"),)),)) for i in range(12)]
    with serving(answer(lambda body: "fine")) as server:
        replies = service(server).reply([*calls, call("good")])
    assert {reply.reason for reply in replies[:-1]} == {"not-an-image"}
    assert replies[-1].text == "fine"
