"""What others answered and judged: files of answers, questions and judgements, replies of services, stores of them."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.fuzz import mutations
from benchmarks.fuzz.campaign import LostError, Target

from veridical.errors import UserError
from veridical.judges import reply_parsing
from veridical.judges.chat_completions import NoReplyError, read_reply
from veridical.judges.prompting import UnreadableError, json_object
from veridical.protocols.score import config_type, result_of
from veridical.store import Store

Files = Mapping[str, Any]
_LLAVA = [{"question_id": n, "image": f"{n}.png", "text": "What?", "category": "conv"} for n in range(3)]
_HALLUSION = [
    {"category": "VS", "subcategory": "chart", "visual_input": str(n), "set_id": "0", "figure_id": str(n),
     "question_id": "0", "sample_note": "note", "question": "Is there a cup?", "gt_answer": "1",
     "gt_answer_details": "Yes.", "filename": f"{n}.png"}
    for n in range(3)
]  # fmt: skip
_MMHAL = [
    {"question_type": "attribute", "image_id": f"x{n}", "image_src": f"https://example.org/{n}.png", "question": "?",
     "question_topic": "food", "image_content": ["Cup"], "gt_answer": "A cup.", "model_answer": "A cup."}
    for n in range(3)
]  # fmt: skip
PROTOCOLS: Mapping[str, tuple[Files, list[Any]]] = {
    "pope": (
        {"questions": [{"question_id": n, "image": f"{n}.png", "text": "Is there a cup in the image?", "label": "yes"}
                       for n in range(3)]},
        [{"question_id": n, "answer": "Yes, there is."} for n in range(3)],
    ),
    "chair": (
        {"objects": {str(n): ["cup", "dining table"] for n in range(3)}},
        [{"image_id": n, "caption": "A cup and a dog."} for n in range(3)],
    ),
    "gqa": (
        {"questions": {str(n): {"question": "?", "answer": "yes", "imageId": "1", "isBalanced": True,
                                "groups": {"global": "x"}, "entailed": [],
                                "types": {"structural": "verify", "semantic": "obj", "detailed": "x"}}
                       for n in range(3)}},
        [{"questionId": str(n), "prediction": "yes"} for n in range(3)],
    ),
    "textvqa": (
        {"questions": {"data": [{"image_id": str(n), "question_id": n, "question": "?", "answers": ["yes"] * 10}
                                for n in range(3)]}},
        [{"question_id": n, "answer": "yes"} for n in range(3)],
    ),
    "recall-coco": (
        {"objects": {str(n): ["cup", "fork"] for n in range(3)}},
        [{"image_id": n, "text": "A cup."} for n in range(3)],
    ),
}  # fmt: skip
"""Small files of questions or truth, by the setting that names them; and answers to them."""
JUDGED: Mapping[str, tuple[Files, list[Any], list[Any]]] = {
    "llava-bench": (
        {"questions": _LLAVA, "context": [{"image": row["image"], "caption": "A cup."} for row in _LLAVA],
         "references": [{"question_id": n, "text": "A cup."} for n in range(3)]},
        [{"question_id": n, "text": "A cup."} for n in range(3)],
        [{"question_id": n, "text": "8 6\nBecause."} for n in range(3)],
    ),
    "mmhal": (
        {"questions": _MMHAL}, [{"question_id": n, "model_answer": "A cup."} for n in range(3)],
        [{"id": n, "text": "Rating: 4"} for n in range(3)],
    ),
    "hallusionbench": (
        {"questions": _HALLUSION}, [{"id": f"VS/chart/0/{n}/0", "text": "Yes."} for n in range(3)],
        [{"id": f"VS/chart/0/{n}/0", "text": "correct"} for n in range(3)],
    ),
}  # fmt: skip
_SEVERAL = {"captions", "judgements"}
_TUPLES = {("pope", "questions"), ("pope", "answers")}


def _folder(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def score_mutated_answers(good: Path, draw: random.Random, work: Path) -> Mapping[str, int]:
    """Answers, or the file of questions, are mutated: every question is counted, or the files are refused."""
    name = draw.choice(sorted(PROTOCOLS))
    files, answers = PROTOCOLS[name]
    given, field = dict(files), "captions" if name == "chair" else "answers"
    in_questions = draw.random() < 0.35
    if in_questions:
        changed = draw.choice(sorted(given))
        given[changed] = mutations.row(given[changed], draw)
    else:
        answers = mutations.row(answers, draw, 4)
    counts = _scored(name, {**given, field: answers}, draw, work)["counts"]
    if not in_questions and counts["items"] != 3 and name != "chair":
        raise LostError(f"{name}: 3 questions, {counts}")
    return {"used": 1}


def score_mutated_judgements(good: Path, draw: random.Random, work: Path) -> Mapping[str, int]:
    """A judge's texts are mutated: each answer is judged or unjudged."""
    name = draw.choice(sorted(JUDGED))
    files, answers, judgements = JUDGED[name]
    judgements = mutations.row(judgements, draw, 4)
    counts = _scored(name, {**files, "answers": answers, "judgements": judgements}, draw, work, judge="x")["counts"]
    if counts["items"] < 3:
        raise LostError(f"{name}: 3 answers, {counts}")
    return {"used": 1}


def _scored(name: str, files: Files, draw: random.Random, work: Path, **more: Any) -> dict[str, Any]:
    paths: dict[str, Any] = {}
    for setting, content in files.items():
        lines = isinstance(content, list) and (draw.random() < 0.5 or name in ("llava-bench", "pope"))
        path = work / f"{setting}.{'jsonl' if lines else 'json'}"
        whole = mutations.lines(content) if lines else mutations.as_json(content).encode(errors="surrogatepass")
        if setting in ("answers", "captions", "judgements") and draw.random() < 0.2:
            whole = mutations.content(whole, draw)
        path.write_bytes(whole)
        paths[setting] = (path,) if setting in _SEVERAL or (name, setting) in _TUPLES else path
    made = config_type({"protocol": name})
    return result_of(made(**paths, **more))


REPLIES: Mapping[str, tuple[Callable[[Any], Any], Any]] = {
    "findings": (
        lambda reply: reply_parsing.findings(reply, "A cup on a table."),
        {"objects": [{"name": "cup", "quote": "cup"}], "missing": ["fork"],
         "faults": [{"kind": "object", "quote": "table", "reason": "no table", "correction": ""}]},
    ),
    "better": (reply_parsing.better, {"better": 1}),
    "grade": (reply_parsing.grade, {"grade": 7}),
    "holds": (reply_parsing.holds, {"holds": "yes"}),
    "presence": (
        lambda reply: reply_parsing.presence(reply, ["cup"]), {"objects": [{"name": "cup", "there": "yes"}]},
    ),
    "text": (lambda reply: reply_parsing.changed_text(reply, "A cup."), {"text": "A fork."}),
    "texts": (lambda reply: reply_parsing.texts(reply, 2), {"texts": ["a", "b"]}),
    "questions": (reply_parsing.questions, {"questions": [{"question": "Is it?", "answer": "yes"}]}),
}  # fmt: skip
BODY = {
    "id": "x", "model": "m", "choices": [{"index": 0, "message": {"role": "assistant", "content": "{}"},
    "finish_reason": "stop"}], "usage": {"prompt_tokens": 5, "completion_tokens": 7},
}  # fmt: skip


def parse_mutated_replies(good: Path, draw: random.Random, work: Path) -> Mapping[str, int]:
    """Twenty bodies of a server and replies of a judge: each is read, or is of no use and says why."""
    found: Counter[str] = Counter()
    for _ in range(20):
        name = draw.choice(sorted(REPLIES))
        read, reply = REPLIES[name]
        text = mutations.as_json(mutations.row(reply, draw))
        if draw.random() < 0.2:
            text = mutations.content(text.encode(errors="surrogatepass"), draw).decode("utf-8", "replace")
        body = mutations.row(BODY, draw) if draw.random() < 0.5 else json.loads(json.dumps(BODY))
        if body.get("choices") == BODY["choices"]:
            body["choices"] = [{**BODY["choices"][0], "message": {"role": "assistant", "content": text}}]
        whole = mutations.as_json(body).encode(errors="surrogatepass")
        try:
            read(json_object(read_reply(whole if draw.random() < 0.8 else mutations.content(whole, draw)).text))
            found["used"] += 1
        except (NoReplyError, UnreadableError):
            found["rejected"] += 1
    return found


def _good_store(folder: Path) -> bytes:
    folder.mkdir(parents=True, exist_ok=True)
    store = Store(folder / "store.sqlite")
    store.put_many({f"key{n}": {"text": f"A cup {n}.", "n": n} for n in range(40)})
    store.close()
    return (folder / "store.sqlite").read_bytes()


def open_mutated_stores(good: bytes, draw: random.Random, work: Path) -> Mapping[str, int]:
    """A damaged store gives what was put into it, or nothing, or is refused by name; never something else."""
    path = work / "store.sqlite"
    path.write_bytes(mutations.content(good, draw))
    store = Store(path)
    try:
        found = store.get_many([f"key{n}" for n in range(40)])
        wrong = [key for key, value in found.items() if value != {"text": f"A cup {key[3:]}.", "n": int(key[3:])}]
        if wrong:
            raise LostError(f"{wrong[0]} holds {found[wrong[0]]!r}")
        store.put("new", [1])
    except UserError:
        return {"refused": 1}
    finally:
        store.close()
    return {"used": 1}


TARGETS = (
    Target("answers", 900, _folder, score_mutated_answers),
    Target("judgements", 700, _folder, score_mutated_judgements),
    Target("replies", 100, _folder, parse_mutated_replies),
    Target("stores", 200, _good_store, open_mutated_stores),
)
