"""Measure how busy the model and a slow judge behind HTTP are: `self-correct` on the bundled model.

    python benchmarks/lanes.py [--records 96] [--seconds 0.5] [--concurrency 4]

The judge is a server that answers every call after SECONDS, now and then after ten times as long, and takes CONCURRENCY
calls at a time. Printed: how long its places were taken by calls, divided by their number, how long the build took, and
the ratio of the two, beside that of taking turns.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from veridical.constructions.protocol import Request, Steps
from veridical.constructions.self_correct import SelfCorrectSettings, self_correct
from veridical.generators.local import LocalGenerator
from veridical.judges.endpoint import Endpoint
from veridical.judges.language import LanguageJudge
from veridical.judges.messages import Service
from veridical.judges.panel import Panel
from veridical.lanes import LOCAL, Lane
from veridical.pairs.engine import Engine
from veridical.pairs.runner import run_concurrently
from veridical.vlm.load import load
from veridical.world.records import world_records

REPLY = json.dumps({"objects": [], "faults": [], "missing": []})
BATCH = 16


class Judge:
    """What the server has done."""

    def __init__(self, seconds: float, straggles_every: int) -> None:
        self.seconds, self.straggles_every = seconds, straggles_every
        self.calls, self.worked, self.lock = 0, 0.0, threading.Lock()

    def think(self) -> None:
        """Take as long as a call takes."""
        with self.lock:
            self.calls += 1
            seconds = self.seconds * (10 if self.calls % self.straggles_every == 0 else 1)
        time.sleep(seconds)

    def add(self, seconds: float) -> None:
        """Count how long a call had one of the judge's places, from its arrival to its reply."""
        with self.lock:
            self.worked += seconds


def served(judge: Judge) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            arrived = time.monotonic()
            self.rfile.read(int(self.headers["Content-Length"]))
            judge.think()
            body = json.dumps({"choices": [{"message": {"content": REPLY}, "finish_reason": "stop"}]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            judge.add(time.monotonic() - arrived)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=96)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--concurrency", type=int, default=4)
    parser.add_argument("--straggles-every", type=int, default=20)
    given = parser.parse_args()
    generator = LocalGenerator(load("bundled"))
    with tempfile.TemporaryDirectory() as folder:
        records = world_records("pairs", given.records, 5, Path(folder))
        rows = {}
        for name, together in (("lanes", True), ("taking turns", False)):
            judge = Judge(given.seconds, given.straggles_every)
            server = served(judge)
            url = f"http://127.0.0.1:{server.server_address[1]}/v1"
            panel = Panel((LanguageJudge(Service(Endpoint(url, "judge", sees=True, concurrency=given.concurrency))),))
            engine = Engine(generator, panel)
            at_model = [0.0]

            def serve(requests: Any, engine: Engine = engine, at_model: list[float] = at_model) -> list[Any]:
                start = time.monotonic()
                answers = engine(requests)
                if engine.lane(requests[0]) == LOCAL:
                    at_model[0] += time.monotonic() - start
                return answers

            def lane(request: Request, engine: Engine = engine, together: bool = together) -> Lane:
                return engine.lane(request) if together else LOCAL

            start = time.monotonic()
            settings = SelfCorrectSettings(enrich=False, max_new_tokens=48, temperature=1.0)
            starts: list[tuple[int, str, Steps]] = [
                (index, record.id, self_correct(record, settings, 0)) for index, record in enumerate(records)
            ]
            for _ in run_concurrently(starts, serve, BATCH, lane_of=lane):
                pass
            took = time.monotonic() - start
            server.shutdown()
            alone = judge.worked / given.concurrency
            rows[name] = {
                "seconds": round(took, 2),
                "judge's places taken": round(alone, 2),
                "judge busy %": round(100 * alone / took, 1),
                "model's batches": None if not together else round(at_model[0], 2),
                "calls": judge.calls,
            }
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
