"""A local stand-in of the Hub's HTTP interface: data sets and models are made, written to, listed and read, as its
client asks."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

TOKEN = "hf_of_a_test"
_LARGE = (".parquet", ".png", ".safetensors")


class Hub(ThreadingHTTPServer):
    """The data sets and models by name, which no two share; each is its files by path, as of its last commit."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.sets: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.uploads: dict[str, bytes] = {}
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def commit(self, name: str) -> str:
        """The number of a set's state: another one for other files."""
        told = [(path, hashlib.sha1(content).hexdigest()) for path, content in sorted(self.sets[name].items())]
        return hashlib.sha1(json.dumps(told).encode()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def _send(self, content: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        told = {"Content-Type": "application/json", "Content-Length": str(len(body)), **(headers or {})}
        for name, value in told.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _refuse(self, code: str, status: int) -> None:
        self._send({"error": code}, status, {"X-Error-Code": code, "X-Error-Message": code})

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            found = b""
            while size := int(self.rfile.readline().strip(), 16):
                found += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return found
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _may(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _parts(self) -> list[str]:
        path = urlsplit(self.path).path
        self.server.asked.append(f"{self.command} {path}")
        return [unquote(part) for part in path.strip("/").split("/")]

    def do_POST(self) -> None:
        parts, body = self._parts(), self._body()
        if parts == ["api", "validate-yaml"]:
            return self._send({"errors": [], "warnings": []})
        if not self._may():
            return self._refuse("Unauthorized", 401)
        if parts == ["api", "repos", "create"]:
            asked = json.loads(body)
            kind = "datasets/" if asked.get("type") == "dataset" else ""
            name = f"{asked.get('organization') or 'me'}/{asked['name']}"
            if name in self.server.sets:
                return self._send({"error": "exists", "url": f"{self.server.url}/{kind}{name}"}, 409)
            self.server.sets[name] = {}
            self.server.private[name] = bool(asked.get("private") or asked.get("visibility") == "private")
            return self._send({"url": f"{self.server.url}/{kind}{name}", "name": name, "id": name})
        if "lfs" in parts:
            objects = json.loads(body)["objects"]
            actions = [
                {**one, "actions": {"upload": {"href": f"{self.server.url}/upload/{one['oid']}"}}} for one in objects
            ]
            return self._send({"transfer": "basic", "objects": actions})
        name, verb = "/".join(parts[2:4]), parts[4]
        if name not in self.server.sets:
            return self._refuse("RepoNotFound", 404)
        if verb == "preupload":
            files = [
                {
                    "path": one["path"],
                    "uploadMode": "lfs" if PurePosixPath(one["path"]).suffix in _LARGE else "regular",
                    "shouldIgnore": False,
                }
                for one in json.loads(body)["files"]
            ]
            return self._send({"files": files, "commitOid": self.server.commit(name)})
        if verb == "commit":
            for line in body.splitlines():
                self._apply(self.server.sets[name], **json.loads(line))
            commit = self.server.commit(name)
            url = f"{self.server.url}/{'datasets/' if parts[1] == 'datasets' else ''}{name}/commit/{commit}"
            return self._send({"success": True, "commitUrl": url, "commitOid": commit, "hookOutput": ""})
        if verb == "paths-info":
            return self._send([])
        return self._refuse(f"unknown {self.path}", 404)

    def _apply(self, files: dict[str, bytes], key: str, value: dict[str, str]) -> None:
        if key == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        elif key == "lfsFile":
            files[value["path"]] = self.server.uploads[value["oid"]]
        elif key == "deletedFile":
            del files[value["path"]]

    def do_PUT(self) -> None:
        parts, body = self._parts(), self._body()
        assert hashlib.sha256(body).hexdigest() == parts[1]
        self.server.uploads[parts[1]] = body
        self._send({})

    def do_GET(self) -> None:
        parts = self._parts()
        if parts[0] == "api" and parts[1] in ("datasets", "models"):
            name = "/".join(parts[2:4])
            if not self._there(name):
                return self._refuse("RepoNotFound", 401 if not self._may() else 404)
            files = self.server.sets[name]
            if len(parts) > 4 and parts[4] == "tree":
                below = "".join(f"{part}/" for part in parts[6:])
                found = [self._entry(path, one) for path, one in sorted(files.items()) if path.startswith(below)]
                return self._send(found) if found or not below else self._refuse("EntryNotFound", 404)
            if len(parts) > 5 and parts[4] == "revision" and parts[5] not in ("main", self.server.commit(name)):
                return self._refuse("RevisionNotFound", 404)
            siblings = [{"rfilename": path} for path in sorted(files)]
            about = {"id": name, "sha": self.server.commit(name), "private": False, "tags": [], "siblings": siblings}
            return self._send(about)
        return self._resolve(parts)

    def do_HEAD(self) -> None:
        self.do_GET()

    def _there(self, name: str) -> bool:
        return name in self.server.sets and (self._may() or not self.server.private[name])

    @staticmethod
    def _entry(path: str, content: bytes) -> dict[str, object]:
        oid = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        return {"type": "file", "path": path, "size": len(content), "oid": oid}

    def _resolve(self, parts: list[str]) -> None:
        parts = parts[1:] if parts[0] == "datasets" else parts
        if len(parts) < 5 or parts[2] != "resolve":
            return self._refuse(f"unknown {self.path}", 404)
        name, path = "/".join(parts[:2]), "/".join(parts[4:])
        if not self._there(name):
            return self._refuse("RepoNotFound", 404)
        if path not in self.server.sets[name]:
            return self._refuse("EntryNotFound", 404)
        content = self.server.sets[name][path]
        told = {"X-Repo-Commit": self.server.commit(name), "ETag": f'"{hashlib.sha1(content).hexdigest()}"'}
        return self._send(content, headers={**told, "Content-Type": "application/octet-stream"})


@contextmanager
def running() -> Iterator[Hub]:
    """A Hub on this machine while the block lasts."""
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
