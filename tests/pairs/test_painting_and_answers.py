"""Pictures painted for prompts, and pools of several models' answers, up to the pairs that are made of them."""

from __future__ import annotations

import base64
import io
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image

from veridical.errors import UserError
from veridical.formats.sources import read_records
from veridical.pairs import answers, command, painting
from veridical.pairs.answers import AnswersConfig
from veridical.pairs.config import config_type
from veridical.pairs.dataset import read_pairs
from veridical.pairs.painting import PaintConfig
from veridical.records import Record


@pytest.fixture
def endpoint():
    """An images endpoint: the first call is refused for now, a prompt with "forbidden" for good."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            asked.append((self.path, body))
            status = 503 if len(asked) == 1 else 400 if "forbidden" in body["prompt"] else 200
            pictures = []
            for number in range(body["n"]):
                buffer = io.BytesIO()
                Image.new("RGB", (8, 8), (number * 60, 0, 0)).save(buffer, "JPEG")
                pictures.append({"b64_json": base64.b64encode(buffer.getvalue()).decode()})
            content = json.dumps({"data": pictures}).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1", asked
    server.shutdown()


def test_an_endpoint_paints_and_what_it_refuses_is_left_out(tmp_path, endpoint, capsys):
    url, asked = endpoint
    prompts = tmp_path / "prompts.jsonl"
    rows = [{"prompt": "a cat", "question": "What is it?"}, {"prompt": "forbidden"}, {"prompt": "a dog"}]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = PaintConfig(prompts, tmp_path / "out", url=url, model="painter", candidates=2, first_wait=0.0)
    painting.run(config)
    assert "prompt 2" in capsys.readouterr().out
    assert len(asked) == 4  # one was asked twice
    assert asked[0] == ("/v1/images/generations", {**asked[0][1], "model": "painter", "n": 2, "prompt": "a cat"})
    records = list(read_records(str(config.out), tmp_path))
    assert [record.prompt[-1].text for record in records] == ["What is it?", "Describe this image."]
    painting.run(config)
    assert len(asked) == 5  # only the refused one is asked again
    with pytest.raises(UserError, match="--painter world"):
        painting.run(PaintConfig(prompts, tmp_path / "other"))
    (tmp_path / "bad.jsonl").write_text('{"text": "a cat"}\n')
    with pytest.raises(UserError, match="line 1"):
        painting.run(PaintConfig(tmp_path / "bad.jsonl", tmp_path / "other", painter="world"))


def test_the_world_paints_answers_come_in_and_pairs_go_out(tmp_path):
    painted = painting.run(PaintConfig("world", tmp_path / "painted", painter="world", candidates=2, limit=4))
    records = [one for one in read_records(str(painted), tmp_path) if isinstance(one, Record)]
    assert len(records) == 4
    named = json.loads((painted / "metadata.jsonl").read_text().splitlines()[0])
    assert {one["name"] for one in named["objects"]} == records[0].annotations.names
    config = AnswersConfig(
        models=("bundled",), records=str(painted), out=tmp_path / "pool.jsonl", answers=3, temperature=1.2, batch_size=3
    )
    answers.run(config)
    rows = [json.loads(line) for line in config.out.read_text().splitlines()]
    assert {row["id"] for row in rows} <= {record.id for record in records}
    assert {row["model"] for row in rows} == {"bundled"}
    # Killed in the middle of a line, it continues to the same.
    whole = config.out.read_text()
    kept = whole.splitlines()[:3]
    config.out.write_text("\n".join([*kept, whole.splitlines()[3][:20]]))
    answers.run(config)
    assert {tuple(json.loads(line).items()) for line in config.out.read_text().splitlines()} >= {
        tuple(json.loads(line).items()) for line in kept
    }
    choice = {"construction": "ranked"}
    made = config_type(choice)
    settings = made(out=tmp_path / "x").settings.__class__(candidates=0, pool=(config.out,), length_gap=1.0)
    built = made(
        out=tmp_path / "pairs", records=str(painted), settings=settings, lexicon="world", held_out=0.0, limit=4
    )
    command.run(built)
    pairs = read_pairs(built.out)
    assert pairs
    assert all(pair.provenance.chosen_source == "answer of bundled" for pair in pairs)
