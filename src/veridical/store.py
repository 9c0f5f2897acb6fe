"""Keep small JSON values in one SQLite file: replies of services, scores of detectors, anything asked twice.

A value is stored under a hash of everything it depends on. Several processes may use the same file at once, and a
process may be killed at any moment: SQLite keeps an entry whole or not at all. Each entry carries a checksum of its
own, so that an altered one counts as missing.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from veridical.errors import UserError

_WAIT = 60.0
"""Seconds to wait for another process that is writing."""
_AT_ONCE = 500
"""Keys looked up in one query; SQLite limits the number of its parameters."""


def default_folder() -> Path:
    """The folder for caches that all runs of a user share."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "veridical"


def key_of(request: Mapping[str, Any]) -> str:
    """The SHA-256 of a request, given as JSON values; the order of its keys makes no difference."""
    text = json.dumps(request, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass
class _Connections:
    """The open connections by process: a forked child must not use its parent's."""

    by_process: dict[int, sqlite3.Connection] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def __reduce__(self) -> tuple[type[_Connections], tuple[()]]:
        """Another process opens the file itself."""
        return _Connections, ()


@dataclass(frozen=True)
class Store:
    """A file of entries, opened (and made) when it is first used."""

    path: Path
    _connections: _Connections = field(default_factory=_Connections, repr=False, compare=False)

    def get(self, key: str) -> Any:
        """The value under a key; None where there is none, or where it was altered."""
        return self.get_many([key]).get(key)

    def get_many(self, keys: Iterable[str]) -> dict[str, Any]:
        """The values under those of the keys that have one."""
        wanted, rows = list(dict.fromkeys(keys)), []
        with self._open() as connection:
            for start in range(0, len(wanted), _AT_ONCE):
                part = wanted[start : start + _AT_ONCE]
                marks = ",".join("?" * len(part))
                query = f"SELECT key, value, checksum FROM entries WHERE key IN ({marks})"
                rows += connection.execute(query, part).fetchall()
        return {key: json.loads(text) for key, text, checksum in rows if checksum == _checksum(key, text)}

    def put(self, key: str, value: Any) -> None:
        """Store a JSON value; an earlier one under the same key is replaced."""
        self.put_many({key: value})

    def put_many(self, values: Mapping[str, Any]) -> None:
        """Store several JSON values in one transaction, which is much faster than one by one."""
        rows = [(key, text, _checksum(key, text)) for key, text in _texts(values)]
        with self._open() as connection, connection:
            connection.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?, ?)", rows)

    def forget(self, keys: Sequence[str]) -> None:
        """Remove entries, where they exist."""
        with self._open() as connection, connection:
            connection.executemany("DELETE FROM entries WHERE key = ?", [(key,) for key in keys])

    def keys(self) -> list[str]:
        """All keys, sorted."""
        with self._open() as connection:
            return [key for (key,) in connection.execute("SELECT key FROM entries ORDER BY key")]

    def close(self) -> None:
        """Close this process's connection; the next use opens it again."""
        with self._connections.lock:
            if connection := self._connections.by_process.pop(os.getpid(), None):
                connection.close()

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """The connection, used by one thread at a time. Raises UserError for a file that can't be used."""
        with self._connections.lock:
            try:
                connection = self._connections.by_process.get(os.getpid())
                if connection is None:
                    connection = self._connections.by_process[os.getpid()] = _connect(self.path)
                yield connection
            except (sqlite3.Error, OSError) as error:
                raise UserError(
                    f"{self.path}: can't be used as a cache ({error}). If the file is damaged, delete it, and what it "
                    "held is computed again; if its folder can't be written to, choose another one."
                ) from error


def _connect(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=_WAIT, check_same_thread=False)
    try:
        # The default journal, not a write-ahead log: that one does not work on the network disks of clusters.
        connection.execute("PRAGMA synchronous = NORMAL")
        with connection:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS entries (key TEXT PRIMARY KEY, value TEXT, checksum TEXT) WITHOUT ROWID"
            )
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _texts(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Each value as ASCII JSON, in which half an emoji is an escape that SQLite can hold."""
    for key, value in values.items():
        yield key, json.dumps(value, ensure_ascii=True)


def _checksum(key: str, text: str) -> str:
    return hashlib.sha256(f"{key}\n{text}".encode()).hexdigest()[:16]
