"""The hand-over to lmms-eval: what it returned for a task of POPE's questions, read into the table; refusals.

`lmms_eval_results.json` is what lmms-eval 0.7.3 gave on 15 questions with the bundled model, but for its longest parts.
"""

import copy
import io
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image
from rich.console import Console

from veridical.errors import UserError
from veridical.protocols import lmms_eval
from veridical.protocols.config import EvalConfig
from veridical.protocols.eval_task import Request
from veridical.protocols.lmms_eval import Harnessed
from veridical.protocols.replies import Replies, open_store
from veridical.protocols.table import show
from veridical.records import Message
from veridical.vlm.generation.params import SamplingParams

FOUND = json.loads((Path(__file__).parent / "lmms_eval_results.json").read_text())


def test_its_numbers_are_read_and_its_own_marks_of_absence_left_out():
    (task,) = lmms_eval.read_results(FOUND)
    assert task.metrics == {"pope_accuracy": (0.0, None), "pope_yes_ratio": (7 / 15, None)}
    assert task.protocol.startswith("lmms-eval ")
    assert task.protocol.endswith("pope_local/0.0")


def test_they_stand_in_the_table_beside_what_is_measured_here():
    better = copy.deepcopy(FOUND)
    better["results"]["pope_local"] |= {"pope_accuracy,none": 0.5, "pope_accuracy_stderr,none": 0.1}
    results = {
        "protocols": {}, "metrics": {}, "notes": [], "cut_curves": {}, "records": {"seed": 0, "splits": {}},
        "models": {"base": {}, "tuned": {}},
        "comparisons": [{"base": "base", "model": "tuned", "differences": {}, "at_equal_recall": None}],
    }  # fmt: skip
    tuned = Harnessed(lmms_eval.read_results(better), {"digest": "ImageError: it is gone"})
    lmms_eval.add_to(results, {"base": Harnessed(lmms_eval.read_results(FOUND)), "tuned": tuned})
    key = "lmms_eval_pope_local_pope_accuracy"
    assert results["models"]["tuned"][key] == {"value": 0.5, "low": 0.5 - 1.96 * 0.1, "high": 0.5 + 1.96 * 0.1}
    assert results["comparisons"][0]["differences"][key] == {"difference": 0.5, "low": None, "high": None}
    assert results["notes"] == [
        "lmms-eval, tuned: 1 questions could not be asked and count as answered with nothing; the first: ImageError: "
        "it is gone"
    ]
    console = Console(width=80, record=True, file=io.StringIO())
    show(results, console)
    assert "pope_local/0.0" in console.export_text()


def test_a_request_of_its_kind_becomes_one_of_ours(tmp_path):
    document = SimpleNamespace(image=Image.linear_gradient("L"))
    arguments = (
        "<image>\nIs there a cup?",
        {"max_new_tokens": 16, "temperature": 0, "do_sample": False, "until": ["\n\n", "Q:"]},
        lambda doc: [doc.image], 3, "pope_local", "test",
    )  # fmt: skip
    request = lmms_eval._request(arguments, {"pope_local": {"test": {3: document}}}, tmp_path)
    assert [turn.text for turn in request.prompt] == ["Is there a cup?"]
    assert request.sampling == SamplingParams(max_new_tokens=16, temperature=0.0, stop=("Q:",))
    assert Image.open(request.images[0].path).size == document.image.size
    again = lmms_eval._request(arguments, {"pope_local": {"test": {3: document}}}, tmp_path)
    assert again.digest() == request.digest()
    video = (*arguments[:2], lambda doc: ["a.mp4"], *arguments[3:])
    with pytest.raises(UserError, match="shows strs"):
        lmms_eval._request(video, {"pope_local": {"test": {3: document}}}, tmp_path)


def test_an_image_that_was_set_aside_is_answered_with_nothing(tmp_path):
    known, gone = (Request((), (Message("user", text),)) for text in ("Is there a cup?", "Is there a dog?"))
    replies, failed = Replies(open_store(tmp_path), "model"), {}
    replies.add({known.digest(): "Yes"})
    replies.set_aside([gone.digest()], OSError("it is gone"))
    assert lmms_eval.texts_of([known, gone, known], replies, failed) == ["Yes", "", "Yes"]
    assert failed == {gone.digest(): "OSError: it is gone"}


def test_what_is_missing_is_said_before_the_work(tmp_path):
    lmms_eval.check(EvalConfig(out=tmp_path))
    with pytest.raises(UserError, match="add --harness"):
        lmms_eval.check(EvalConfig(out=tmp_path, tasks=("pope",)))
    if not lmms_eval.util.find_spec("lmms_eval"):
        with pytest.raises(UserError, match="pip install lmms-eval"):
            lmms_eval.check(EvalConfig(out=tmp_path, harness="lmms-eval", tasks=("pope",)))
