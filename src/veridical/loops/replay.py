"""What a training by steps remembers between steps: a replay buffer, and pairs written into a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from veridical.files import read_json, write_text
from veridical.records import FurtherAnswer, ImageFile, Message, Pair, Provenance, Spans
from veridical.vlm.seeds import generator


@dataclass
class Buffer:
    """Pairs that are trained on again, the last `size`: each is drawn with weight 1 / (times drawn + 1), as SAPO's
    released code does."""

    size: int
    pairs: list[Pair] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)

    def add(self, pairs: Sequence[Pair]) -> None:
        """Take new pairs in; the oldest leave where there is no room."""
        self.pairs = [*self.pairs, *pairs][-self.size :]
        self.counts = [*self.counts, *[0] * len(pairs)][-self.size :]

    def draw(self, count: int, seed: int, step: int) -> list[Pair]:
        """Up to `count` different pairs, drawn by the weights; each counts as drawn once more."""
        if not self.pairs:
            return []
        weights = [1 / (drawn + 1) for drawn in self.counts]
        total = sum(weights)
        random = generator("replay", (seed, step))
        places = random.choice(
            len(self.pairs), min(count, len(self.pairs)), replace=False, p=[weight / total for weight in weights]
        )
        for place in places:
            self.counts[place] += 1
        return [self.pairs[place] for place in sorted(places.tolist())]

    def save(self, path: Path) -> None:
        """Write pairs and counts."""
        write_text(path, json.dumps({"counts": self.counts, "pairs": [row_of(pair) for pair in self.pairs]}))

    def load(self, path: Path) -> None:
        """Read them again."""
        state = read_json(path)
        self.counts, self.pairs = state["counts"], [pair_of(row) for row in state["pairs"]]


def row_of(pair: Pair) -> dict[str, Any]:
    """A pair as JSON, images by their paths here."""
    row: dict[str, Any] = json.loads(json.dumps(asdict(pair), default=str))
    return row


def pair_of(row: Mapping[str, Any]) -> Pair:
    """The pair that `row_of` wrote."""
    others = [FurtherAnswer(one["text"], one["source"], one["score"], _images(one["images"])) for one in row["others"]]
    spans = row["spans"]
    return Pair(
        **{
            **row,
            "images": _images(row["images"]) or (),
            "prompt": tuple(Message(**turn) for turn in row["prompt"]),
            "provenance": Provenance(**row["provenance"]),
            "spans": None if spans is None else Spans(_ranges(spans["chosen"]), _ranges(spans["rejected"])),
            "rejected_images": _images(row["rejected_images"]),
            "weights": None if row["weights"] is None else tuple(row["weights"]),
            "others": tuple(others),
        }
    )


def _images(rows: Sequence[Mapping[str, str]] | None) -> tuple[ImageFile, ...] | None:
    return None if rows is None else tuple(ImageFile(Path(row["path"]), row["sha256"]) for row in rows)


def _ranges(rows: Sequence[Sequence[int]]) -> tuple[tuple[int, int], ...]:
    return tuple((start, end) for start, end in rows)
