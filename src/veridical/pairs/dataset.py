"""Pairs on disk: parquet shards in TRL's vision-preference shape, with images beside them.

The columns `images`, `prompt`, `chosen` and `rejected` are what TRL's DPOTrainer reads; the others say how each
pair came to be. Image paths in the shards are relative to the run folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from veridical.errors import UserError, describe
from veridical.files import write_json, write_whole
from veridical.formats.published.own import TEXTS, pair_row
from veridical.formats.rows import UnusableError
from veridical.pairs.images import store_image
from veridical.pairs.rows import MANIFEST, image_path, stream_rows
from veridical.records import FurtherAnswer, ImageFile, Message, Pair, Provenance, Spans

if TYPE_CHECKING:
    import datasets
    import pyarrow  # type: ignore[import-untyped]


def read_pairs(run: Path) -> list[Pair]:
    """The pairs of a build, in order, with absolute image paths. Raises UserError where there are none."""
    return list(stream_pairs(run))


def stream_pairs(run: Path) -> Iterator[Pair]:
    """What `read_pairs` gives, pair by pair: only some hundreds are in memory at a time."""
    return (_checked_pair(row, run, place) for place, row in stream_rows(run))


def to_trl(run: Path, *, embed: bool = False) -> datasets.Dataset:
    """The pairs of a build as TRL reads them, from anywhere.

    Images decode to PIL images: from absolute paths, or, with `embed`, from bytes inside the dataset.
    Raises UserError where the folder holds no pairs.
    """
    import datasets

    def cells(images: Sequence[ImageFile] | None) -> list[dict[str, Any]] | None:
        if images is None:
            return None
        return [_embedded(image) if embed else {"bytes": None, "path": str(image.path)} for image in images]

    return datasets.Dataset(pyarrow_table([pair_row(pair, cells) for pair in stream_pairs(run)]))


def write_build(run: Path, pairs: Sequence[Pair]) -> Path:
    """Make a run folder of pairs that are there already: their images, one shard, and a manifest with its hash.

    Returns the folder.
    """
    (run / MANIFEST).unlink(missing_ok=True)
    shard = {"file": "pairs/00000.parquet", "sha256": write_shard(pairs, run, "00000"), "pairs": len(pairs)}
    records = len({pair.record_id for pair in pairs})
    counts = {"records_in": records, "records_used": records, "rejected": {}, "pairs_out": len(pairs)}
    write_json(run / MANIFEST, {**counts, "shards": [shard]})
    return run


def write_shard(pairs: Sequence[Pair], run: Path, name: str) -> str:
    """Store the images of some pairs and then the pairs as `pairs/NAME.parquet`; returns the shard's SHA-256."""
    return write_stored(store(pairs, run), run, name)


def store(pairs: Sequence[Pair], run: Path) -> list[Pair]:
    """Store the images of pairs in a run folder; returns the pairs with the stored images."""
    images = {image: store_image(image, run / "images") for image in {i for pair in pairs for i in all_images(pair)}}
    return [_with_images(pair, images) for pair in pairs]


def write_stored(pairs: Sequence[Pair], run: Path, name: str) -> str:
    """Write pairs whose images are stored as `pairs/NAME.parquet`; returns the shard's SHA-256."""
    import pyarrow.parquet  # type: ignore[import-untyped]

    buffer = BytesIO()
    pyarrow.parquet.write_table(pyarrow_table([row_of(pair, run) for pair in pairs]), buffer)
    write_whole(run / "pairs" / f"{name}.parquet", buffer.getvalue())
    return hashlib.sha256(buffer.getvalue()).hexdigest()


def all_images(pair: Pair) -> Iterator[ImageFile]:
    """The images of a pair and of its answers."""
    yield from pair.images
    yield from pair.rejected_images or ()
    for other in pair.others:
        yield from other.images or ()


def _with_images(pair: Pair, stored: Mapping[ImageFile, ImageFile]) -> Pair:
    def moved(images: tuple[ImageFile, ...] | None) -> tuple[ImageFile, ...] | None:
        return None if images is None else tuple(stored[image] for image in images)

    others = tuple(replace(other, images=moved(other.images)) for other in pair.others)
    return replace(pair, images=moved(pair.images) or (), rejected_images=moved(pair.rejected_images), others=others)


def pyarrow_table(rows: Sequence[dict[str, Any]]) -> pyarrow.Table:
    """Rows as an Arrow table that says in its schema, for `datasets`, that images are images."""
    import pyarrow
    from datasets import Features, Image, List, Value

    messages = List({"role": Value("string"), "content": Value("string")})
    features = Features(
        {
            "images": List(Image()),
            "prompt": messages,
            "chosen": messages,
            "rejected": messages,
            "id": Value("string"),
            "record_id": Value("string"),
            "image_sha256": List(Value("string")),
            **{name: Value("string") for name in TEXTS},
            "parameters": Value("string"),
            "scores": Value("string"),
            "seed": Value("int64"),
            "attempts": Value("int64"),
            "chosen_spans": List(List(Value("int64"))),
            "rejected_spans": List(List(Value("int64"))),
            "open_ended": Value("bool"),
            "context": Value("string"),
            "weights": List(Value("float64")),
            "rejected_images": List(Image()),
            "rejected_image_sha256": List(Value("string")),
            "others": List(
                {
                    "text": Value("string"),
                    "source": Value("string"),
                    "score": Value("float64"),
                    "images": List(Image()),
                    "image_sha256": List(Value("string")),
                    "weight": Value("float64"),
                    "chosen_spans": List(List(Value("int64"))),
                    "rejected_spans": List(List(Value("int64"))),
                }
            ),
        }
    )
    return pyarrow.Table.from_pylist(rows, schema=features.arrow_schema)


def _embedded(image: ImageFile) -> dict[str, Any]:
    from veridical.vlm.images.files import read_image_file

    return {"bytes": read_image_file(image), "path": image.path.name}


def _checked_pair(row: dict[str, Any], run: Path, place: str) -> Pair:
    """The pair of a row. Raises UserError for a row that is none, or whose images lie outside the run folder."""
    try:
        if row["images"] is None:
            raise ValueError("it has no list of images")
        pair = pair_of(row, run)
        check_fields(pair)
        return pair
    except UnusableError as error:
        raise UserError(f"{place} ({row.get('id')}): {error.detail}; {error.remedy}, or delete the row.") from error
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise UserError(
            f"{place}: no pair as veridical writes them ({describe(error)}). Build again, or, if another tool wrote "
            f"the file, give the file itself, which is imported then."
        ) from error


def check_fields(pair: Pair) -> None:
    """Raise ValueError where a field of a pair that came from elsewhere holds what no shard can."""
    made = pair.provenance
    texts = [
        pair.id,
        pair.record_id,
        pair.chosen,
        pair.rejected,
        pair.context,
        *(getattr(made, name) for name in TEXTS),
    ]
    texts += [text for turn in pair.prompt for text in (turn.role, turn.text)]
    texts += [text for other in pair.others for text in (other.text, other.source)]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("its id, a turn, an answer or another text is no text")
    if not isinstance(pair.open_ended, bool):
        raise ValueError("its open_ended is neither true nor false")
    stated = json.dumps([made.parameters, made.scores], ensure_ascii=False, default=str)
    "".join((*texts, stated)).encode()  # half of a character is no Unicode, which is a ValueError too
    spans = () if pair.spans is None else (*pair.spans.chosen, *pair.spans.rejected)
    whole = [made.seed, made.attempts, *(end for span in spans for end in span)]
    if not all(isinstance(number, int) and abs(number) < 2**63 for number in whole):
        raise ValueError("its seed, attempts or spans are no whole numbers")
    numbers = [*(pair.weights or ()), *(other.score for other in pair.others if other.score is not None)]
    if not all(isinstance(number, int | float) for number in numbers):
        raise ValueError("its weights or scores are no numbers")
    if not isinstance(made.parameters, dict) or not isinstance(made.scores, dict):
        raise ValueError("its parameters or scores are no JSON object")


def row_of(pair: Pair, run: Path) -> dict[str, Any]:
    """A pair whose images are stored in a run folder, as a row of its shards."""
    return pair_row(pair, lambda images: None if images is None else [_image_cell(image, run) for image in images])


def _image_cell(image: ImageFile, run: Path) -> dict[str, Any]:
    return {"bytes": None, "path": path_within(image, run)}


def path_within(image: ImageFile, run: Path) -> str:
    """The path of an image that is stored in a run folder, from there, whichever of the two is relative."""
    return image.path.resolve().relative_to(run.resolve()).as_posix()


def pair_of(row: dict[str, Any], run: Path) -> Pair:
    """The pair of a row that `row_of` made, with absolute image paths."""
    provenance = Provenance(
        **{name: row[name] for name in TEXTS},
        parameters=json.loads(row["parameters"]),
        scores=json.loads(row["scores"]),
        seed=row["seed"],
        attempts=row["attempts"],
    )
    return Pair(
        id=row["id"],
        record_id=row["record_id"],
        images=_images(row["images"], row["image_sha256"], run) or (),
        prompt=tuple(Message(turn["role"], turn["content"]) for turn in row["prompt"]),
        chosen=row["chosen"][0]["content"],
        rejected=row["rejected"][0]["content"],
        provenance=provenance,
        spans=_spans(row),
        open_ended=row.get("open_ended") or False,
        context=row.get("context") or "",
        rejected_images=_images(row.get("rejected_images"), row.get("rejected_image_sha256"), run),
        weights=None if row.get("weights") is None else (row["weights"][0], row["weights"][1]),
        others=tuple(
            FurtherAnswer(
                further["text"],
                further["source"],
                further["score"],
                _images(further["images"], further["image_sha256"], run),
                further.get("weight"),
                _spans(further),
            )
            for further in row.get("others") or ()
        ),
    )


def _images(
    cells: Sequence[dict[str, Any]] | None, hashes: Sequence[str] | None, run: Path
) -> tuple[ImageFile, ...] | None:
    """The images of a cell; None where the row has none of its own."""
    if cells is None or hashes is None:
        return None
    return tuple(ImageFile(image_path(run, cell["path"]), sha) for cell, sha in zip(cells, hashes, strict=True))


def _spans(row: dict[str, Any]) -> Spans | None:
    """None, too, for pairs of a version that had no such columns."""
    if row.get("chosen_spans") is None or row.get("rejected_spans") is None:
        return None
    chosen, rejected = (tuple((start, end) for start, end in row[f"{side}_spans"]) for side in ("chosen", "rejected"))
    return Spans(chosen, rejected)
