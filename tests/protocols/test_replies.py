"""Replies on disk: whole batches, shared by request, never mixed."""

import math
from pathlib import Path

import pytest

from veridical.errors import UserError
from veridical.protocols.answering import outstanding
from veridical.protocols.eval_task import Request
from veridical.protocols.replies import FILE, Replies, open_store
from veridical.records import ImageFile, Message
from veridical.vlm.generation.params import SamplingParams
from veridical.vlm.images.views import Noise

IMAGES = tuple(ImageFile(Path(f"{n}.png"), str(n) * 64) for n in range(3))


def request(image: int, text: str = "What is it?", **more) -> Request:
    return Request((IMAGES[image],), (Message("user", text),), **more)


def test_replies_come_back_as_they_were_to_their_own_model(tmp_path):
    kept = Replies(open_store(tmp_path), "one")
    kept.add({"a": "a text\u2028with a strange end of line, half an emoji \ud83d", "b": (-0.25, -math.inf)})
    kept.add({"c": ""})
    again = Replies(open_store(tmp_path), "one")
    expected = {"a": "a text\u2028with a strange end of line, half an emoji \ud83d", "b": (-0.25, -math.inf), "c": ""}
    for one in (kept, again):
        assert one.find(["a", "b", "c", "d"]) == expected
    assert Replies(open_store(tmp_path), "another").find(["a", "b", "c"]) == {}


def test_a_file_that_holds_no_replies_is_named(tmp_path):
    (tmp_path / FILE).write_text("hello\n" * 1000)
    with pytest.raises(UserError, match=r"replies\.sqlite: can't be used"):
        Replies(open_store(tmp_path), "one").find(["a"])


def test_answers_of_an_earlier_version_are_not_read_which_is_said(tmp_path, capsys):
    (tmp_path / "abc-float32").mkdir()
    (tmp_path / "abc-float32" / "000000-1-all.jsonl").write_text('{"request": "a", "text": "A cup."}\n')
    assert Replies(open_store(tmp_path), "abc-float32").find(["a"]) == {}
    assert "an earlier version left answers here" in capsys.readouterr().out


def test_what_a_reply_depends_on_is_in_the_digest():
    base = request(0)
    others = [
        request(1),
        request(0, "What else?"),
        request(0, sampling=SamplingParams(max_new_tokens=17, temperature=0.0)),
        request(0, choices=("Yes", "No")),
        request(0, view=Noise(500), key=("a",)),
        request(0, view=Noise(500), key=("b",)),
        request(0, sampling=SamplingParams(max_new_tokens=16, temperature=1.0), key=("a",)),
        request(0, sampling=SamplingParams(max_new_tokens=16, temperature=1.0), key=("b",)),
    ]
    digests = {one.digest() for one in [base, *others]}
    assert len(digests) == len(others) + 1
    # Nothing is drawn, so that a key changes nothing, nor does a file's place.
    assert request(0, key=("another",)).digest() == base.digest()
    moved = Request((ImageFile(Path("elsewhere.png"), IMAGES[0].sha256),), base.prompt)
    assert moved.digest() == base.digest()


def test_questions_about_an_image_stand_together_and_are_asked_once(tmp_path):
    kept = Replies(open_store(tmp_path), "one")
    asked = [request(0), request(1), request(0, "More?"), request(1), request(2), request(1, "More?")]
    kept.add({request(2).digest(): "known"})
    missing = list(outstanding(asked, kept).values())
    assert missing == [asked[0], asked[2], asked[1], asked[5]]
