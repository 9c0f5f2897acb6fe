"""A real HTTP server on this machine that speaks the chat-completions protocol and misbehaves on purpose."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Deed = Callable[[BaseHTTPRequestHandler, dict[str, Any]], None]


@dataclass
class Server:
    """What the server does, one deed a request in turn, the last again and again; and what it was asked."""

    deeds: list[Deed]
    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    busy: int = 0
    most: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


def say(*texts: str, finish: str = "stop") -> Deed:
    """A proper completion: the texts in turn, by the number of requests so far."""
    rest = iter(texts)
    last = texts[-1]

    def deed(handler, body):
        send(handler, 200, completion(next(rest, last), finish))

    return deed


def answer(function: Callable[[dict[str, Any]], str]) -> Deed:
    """A completion that depends on the request."""
    return lambda handler, body: send(handler, 200, completion(function(body)))


def status(code: int, headers: dict[str, str] | None = None) -> Deed:
    return lambda handler, body: send(handler, code, {"error": {"message": "no"}}, headers)


def slow(seconds: float) -> Deed:
    def deed(handler, body):
        time.sleep(seconds)
        send(handler, 200, completion("late"))

    return deed


def cut(handler, body):
    """Promises more than it sends, and hangs up."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')
    handler.wfile.flush()
    handler.connection.close()


def no_json(handler, body):
    send(handler, 200, None, raw=b"<html>Gateway</html>")


def no_choices(handler, body):
    send(handler, 200, {"choices": []})


def completion(text: str | None, finish: str = "stop") -> dict[str, Any]:
    return {
        "choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": finish}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 10},
    }


def send(handler, code: int, content: Any, headers: dict[str, str] | None = None, raw: bytes | None = None) -> None:
    payload = raw if raw is not None else json.dumps(content).encode()
    handler.send_response(code)
    for name, value in (headers or {}).items():
        handler.send_header(name, value)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(payload)))
    handler.end_headers()
    handler.wfile.write(payload)


@contextmanager
def serving(*deeds: Deed) -> Iterator[Server]:
    """Serve on a free port until the block ends."""
    server = Server(list(deeds))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with server.lock:
                place = len(server.asked)
                server.asked.append(body)
                server.headers.append({**self.headers, "path": self.path})
                server.busy += 1
                server.most = max(server.most, server.busy)
            try:
                server.deeds[min(place, len(server.deeds) - 1)](self, body)
            finally:
                with server.lock:
                    server.busy -= 1

        def log_message(self, *args):
            """Say nothing."""

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, request, client_address):
            """A client that hung up is what these tests are about."""

    http = Quiet(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    server.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
    thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
