"""`veridical view`: serves studies and runs to a browser on this machine, live while they run.

A page is made anew when it is asked for and something has changed; while a study runs, the page asks every few seconds
whether it has.
"""

from __future__ import annotations

import html
import json
import socket
import threading
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote, urlparse

import tyro
from annotated_types import Ge, Le

from veridical.errors import UserError
from veridical.study import definition

STATES = ("study.yaml", "steps", "results.json", "manifest.json", "log.jsonl", "summary.json")
POLL = """
<script>
(() => {
  let seen = null;
  const look = async () => {
    const now = await (await fetch('/state' + location.pathname)).text();
    if (seen !== null && now !== seen) location.reload();
    seen = now;
  };
  setInterval(() => look().catch(() => {}), 4000);
})();
</script>
"""


@dataclass(frozen=True)
class ViewConfig:
    """Which runs to show, and where."""

    runs: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="RUN [RUN ...]")] = ()
    """Folders of studies, or of run, build, align and eval: studies have a page each, the others one together."""
    host: str = "127.0.0.1"
    """The address to listen at; others than this machine's can then read the runs too."""
    port: Annotated[int, Ge(0), Le(65535)] = 8765
    """The port; 0 takes any that is free."""


def run(config: ViewConfig) -> None:
    """Serve until Ctrl-C. Raises UserError for folders that aren't there, or a port that is taken."""
    with serving(config) as server:
        print(f"http://{config.host}:{server.server_port}/   (Ctrl-C ends it)", flush=True)
        server.serve_forever()


def serving(config: ViewConfig) -> ThreadingHTTPServer:
    """The server, listening; `serve_forever` answers."""
    if not config.runs:
        raise UserError("veridical view needs at least one folder of a study or a run.")
    for folder in config.runs:
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder; check the path.")
    pages = Pages(tuple(folder.resolve() for folder in config.runs))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            kind, status, body = pages.answer(unquote(urlparse(self.path).path))
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Requests of one's own browser are no news."""

    try:
        return ThreadingHTTPServer((config.host, config.port), Handler)
    except (OSError, socket.gaierror, OverflowError) as error:
        raise UserError(f"--port {config.port}: can't listen at {config.host} ({error}); give another one.") from None


class Pages:
    """What is served: a page for each study, one for all other runs, and an index where there are several."""

    def __init__(self, folders: tuple[Path, ...]) -> None:
        self.studies = {f"/study-{number}": folder for number, folder in enumerate(folders) if is_study(folder)}
        self.runs = tuple(folder for folder in folders if folder not in self.studies.values())
        self._made: dict[str, tuple[str, str]] = {}
        self._lock = threading.Lock()

    def answer(self, path: str) -> tuple[str, int, bytes]:
        """(content type, status, body) for a path."""
        text = "text/html; charset=utf-8"
        try:
            if path.startswith("/state"):
                return "text/plain", HTTPStatus.OK, self.state(self._place(path.removeprefix("/state"))).encode()
            place = self._place(path)
            if place == "/":
                return text, HTTPStatus.OK, self.index().encode()
            if place in self.studies or place == "/runs":
                return text, HTTPStatus.OK, self.page(place).encode()
        except UserError as error:
            return text, HTTPStatus.OK, _message(str(error)).encode()
        return text, HTTPStatus.NOT_FOUND, _message("There is no such page.").encode()

    def _place(self, path: str) -> str:
        """The page of a path; where there is only one, the root is it."""
        names = [*self.studies, *(["/runs"] if self.runs else [])]
        return names[0] if path in ("", "/") and len(names) == 1 else path or "/"

    def index(self) -> str:
        """Links to all pages."""
        links = [(name, folder.name) for name, folder in self.studies.items()]
        links += [("/runs", ", ".join(folder.name for folder in self.runs))] if self.runs else []
        items = "".join(f'<li><a href="{name}">{html.escape(told)}</a></li>' for name, told in links)
        return _message(f"<ul>{items}</ul>", escaped=True)

    def state(self, place: str) -> str:
        """Something that changes when a page would."""
        folders = [self.studies[place]] if place in self.studies else list(self.runs)
        found = [_changed(folder) for folder in folders]
        return json.dumps(found)

    def page(self, place: str) -> str:
        """The page, made again if something has changed."""
        with self._lock:
            state = self.state(place)
            if self._made.get(place, ("", ""))[0] != state:
                made = study_page(self.studies[place]) if place in self.studies else runs_page(self.runs)
                self._made[place] = (state, _polling(made))
            return self._made[place][1]


def is_study(folder: Path) -> bool:
    """Whether a folder is that of a study."""
    return (folder / "study.yaml").is_file() and (folder / "steps").is_dir()


def study_page(folder: Path) -> str:
    """The page about what a study has measured so far. Raises UserError where that is nothing yet."""
    from veridical.report.study_page import page
    from veridical.steps.stamps import read_stamp
    from veridical.study.measure import measure
    from veridical.study.plan import plan
    from veridical.study.results import collect

    study = definition.read(folder / "study.yaml")
    made = plan(study, folder)
    stamps = [read_stamp(folder, step) for step in made.steps]
    ended = sum(stamp is not None and stamp.state != "begun" for stamp in stamps)
    try:
        return page(folder, collect(study, made, measure(made)))
    except UserError as error:
        raise UserError(f"{study.title}: {ended} of {len(made.steps)} steps have ended. {error}") from None


def runs_page(folders: tuple[Path, ...]) -> str:
    """The report about runs, those that are finished."""
    from veridical.report.command import DEFAULT_TITLE
    from veridical.report.page import render
    from veridical.report.runs import read_runs, run_folders

    ready = [
        folder
        for folder in (one for given in folders for one in run_folders(given))
        if any((folder / name).exists() for name in ("results.json", "manifest.json", "log.jsonl"))
    ]
    if not ready:
        raise UserError("None of the runs has anything to show yet.")
    return render(read_runs(ready), DEFAULT_TITLE, 8, 12)


def _changed(folder: Path) -> list[Any]:
    """When the files that a page is made of were last written."""
    found: list[Any] = []
    for name in STATES:
        path = folder / name
        if path.is_dir():
            found.append(sorted((one.name, one.stat().st_mtime_ns) for one in path.glob("*.json")))
        elif path.exists():
            found.append((name, path.stat().st_mtime_ns))
    return found


def _polling(page: str) -> str:
    """The page with the script that notices changes, which its policy is made to allow."""
    from veridical.report.vega import source_hash

    script = POLL.strip().removeprefix("<script>").removesuffix("</script>")
    more = f"{source_hash(script)}"
    old = "script-src " if "script-src " in page[:4000] else "style-src "
    new = f"connect-src 'self'; script-src {more} " + ("" if old == "script-src " else "; style-src ")
    allowed = page.replace(old, new, 1)
    return allowed.replace("</body>", f"<script>{script}</script></body>", 1)


def _message(text: str, escaped: bool = False) -> str:
    shown = text if escaped else f"<p>{html.escape(text)}</p>"
    return (
        '<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>veridical</title>'
        "<style>:root{color-scheme:light dark}"
        "body{font:1rem/1.6 system-ui,sans-serif;max-width:42rem;margin:3rem auto}</style>"
        f"<body>{shown}{POLL}</body></html>"
    )
