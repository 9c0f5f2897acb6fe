"""Texts by id, kept in a temporary file instead of in memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, MutableMapping

LENGTH = 4
"""Bytes before each text that say how long it is."""


class SpooledTexts(MutableMapping[str, str]):
    """A mapping from ids to texts of which only ids and places are in memory; its file goes with it."""

    def __init__(self) -> None:
        """Begin with no text."""
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 (it lives as long as this mapping)
        self._places: dict[str, int] = {}
        self._end = 0
        self._at_end = True  # moving there again would flush what is not written yet

    def __setitem__(self, key: str, text: str) -> None:
        content = text.encode("utf-8", "surrogatepass")
        if not self._at_end:
            self._file.seek(self._end)
            self._at_end = True
        self._file.write(len(content).to_bytes(LENGTH, "big") + content)
        self._places[key] = self._end
        self._end += LENGTH + len(content)

    def __getitem__(self, key: str) -> str:
        self._at_end = False
        self._file.seek(self._places[key])
        size = int.from_bytes(self._file.read(LENGTH), "big")
        return self._file.read(size).decode("utf-8", "surrogatepass")

    def __contains__(self, key: object) -> bool:
        return key in self._places

    def __delitem__(self, key: str) -> None:
        del self._places[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)
