"""Preference pairs in memory or in a run folder, as `veridical.build` gives them and `veridical.align` takes them."""

from __future__ import annotations

import html
import io
import itertools
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from veridical.errors import UserError
from veridical.records import ImageFile, Pair, Rejection

if TYPE_CHECKING:
    import datasets

    from veridical.pairs.joining import Counts

_SHOWN = 5


class PairSet:
    """A sequence of pairs. `folder` is where they are on disk, None where they are in memory only.

    `rejects` says what could not be made into a pair, with reason and remedy.
    """

    def __init__(
        self,
        pairs: Iterable[Pair],
        *,
        folder: Path | None = None,
        rejects: Sequence[Rejection] = (),
        keep: Any = None,
    ) -> None:
        """`keep` is held as long as the set is, such as the temporary folder that its images are in."""
        self._pairs = tuple(pairs)
        self.folder = folder
        self.rejects = tuple(rejects)
        self._keep = keep
        self.counts: tuple[Counts, ...] = ()
        """What became of each set's pairs, where this one was mixed."""

    @classmethod
    def load(
        cls, source: str | Path, *, format: str = "", image_root: str | Path | Sequence[str | Path] = ()
    ) -> PairSet:
        """The pairs of a run folder of `veridical build`; or of a file, a folder or a data set on the Hub
        ("hf://OWNER/NAME:SPLIT") in a published format, which is imported first.

        `format` is the format's name, recognised if left out; `image_root` the folder that its image paths start from.
        Raises UserError where there are none.
        """
        from veridical.pairs.dataset import read_pairs
        from veridical.pairs.opening import pairs_folder

        work = tempfile.TemporaryDirectory(prefix="veridical-pairs-")
        roots = [image_root] if isinstance(image_root, str | Path) else image_root
        where = pairs_folder(Path(source), Path(work.name), [Path(root) for root in roots], format)
        return cls(read_pairs(where), folder=where, rejects=_rejects(where), keep=work)

    @classmethod
    def from_trl(cls, dataset: Iterable[Mapping[str, Any]], *, image_root: str | Path = ".") -> PairSet:
        """Pairs out of rows in TRL's shape: `images`, `prompt`, `chosen`, `rejected`, as messages or texts.

        As `from_rows`.
        """
        return cls.from_rows(dataset, format="trl", image_root=image_root)

    @classmethod
    def from_rows(cls, rows: Iterable[Mapping[str, Any]], *, format: str = "", image_root: str | Path = ".") -> PairSet:
        """Pairs out of rows in any format that is known, such as a `datasets.Dataset` or a list of dictionaries.

        `format` is the format's name, recognised by the first row if left out. Images may be PIL images, file contents,
        or paths below `image_root`. A row that can't be used is among the `rejects`. Raises UserError where none can.
        """
        from veridical.formats.published.catalogue import read_rows
        from veridical.formats.published.images import ImageFinder
        from veridical.pairs.importing import outcome, unrepeated

        work = tempfile.TemporaryDirectory(prefix="veridical-pairs-")
        find = ImageFinder((Path(image_root),), Path(work.name) / "images")
        pairs, rejects, seen = list[Pair](), list[Rejection](), Counter[str]()
        reading, items = read_rows(((f"row {number}", _with_files(row)) for number, row in enumerate(rows)), format)
        for item in items:
            name = item.id if isinstance(item, Rejection) else unrepeated(item.id, seen)
            done = outcome(item, find, reading.format, name)
            if isinstance(done, Rejection):
                rejects.append(done)
            else:
                pairs += done
        if not pairs:
            first = f" The first: {rejects[0].detail}; {rejects[0].remedy}." if rejects else ""
            raise UserError(f"PairSet: none of {reading.rows} rows can be used as {reading.format.name}.{first}")
        return cls(pairs, rejects=rejects, keep=work)

    @property
    def summary(self) -> Mapping[str, Any]:
        """What `veridical build` prints of the pairs in `folder`: lengths, objects, inventions, counts; else empty."""
        from veridical.files import read_json

        path = None if self.folder is None else self.folder / "summary.json"
        return read_json(path) if path is not None and path.is_file() else {}

    def to_trl(self, *, embed: bool = False) -> datasets.Dataset:
        """The pairs as a `datasets.Dataset` that TRL's trainers read; with `embed`, the images' bytes are in it."""
        from veridical.pairs import dataset

        if self.folder is not None:
            return dataset.to_trl(self.folder, embed=embed)
        work = tempfile.TemporaryDirectory(prefix="veridical-trl-")
        rows = dataset.to_trl(dataset.write_build(Path(work.name), self._pairs), embed=True)
        work.cleanup()
        return rows

    def save(self, folder: str | Path) -> PairSet:
        """Write the pairs, with their images, as a folder that `veridical align --pairs` takes; returns it as a set.

        Raises UserError for a folder that holds something.
        """
        from veridical.pairs.dataset import write_build

        where = Path(folder).expanduser()
        if where.exists() and (not where.is_dir() or any(where.iterdir())):
            raise UserError(f"{where}: exists; give a new folder to save the pairs in.")
        if not self._pairs:
            raise UserError(f"{where}: there are no pairs to save.")
        write_build(where, self._pairs)
        return PairSet.load(where)

    def push(self, name: str, *, format: str = "", private: bool = False, license: str = "") -> None:
        """Write the pairs to the data set `name` ("OWNER/NAME") on the Hugging Face Hub, with a card.

        Raises UserError for what the Hub refuses.
        """
        from functools import partial

        from veridical.pairs.dataset import write_build
        from veridical.pairs.export import export
        from veridical.pairs.pushing import push

        with tempfile.TemporaryDirectory(prefix="veridical-push-") as work:
            folder = self.folder or write_build(Path(work) / "pairs", self._pairs)
            push(folder, name, partial(export, folder), format, private=private, licence=license)

    def mix(self, *others: PairSet, **settings: Any) -> PairSet:
        """These pairs joined with `others`, or a part of them, by the settings of `veridical align --mix`: `weights`,
        `size`, `stratify`, `keep`, `copies`, `seed`.

        The sets are called set-1, set-2, …; `counts` of the result says what became of each. Raises UserError for
        settings that don't fit, and where no pair is left.
        """
        from veridical.bounds import check
        from veridical.pairs.joining import MixSettings, join

        try:
            given = MixSettings(**settings)
        except TypeError as error:
            raise UserError(f"mix: {str(error).partition(') ')[2] or error}.") from None
        check(given)
        sets = [(f"set-{number}", each.__iter__) for number, each in enumerate((self, *others), start=1)]
        pairs, counts = join(sets, given)
        mixed = PairSet(pairs, keep=(self, *others))
        mixed.counts = tuple(counts)
        return mixed

    def filter(self, keep: Callable[[Pair], bool]) -> PairSet:
        """The pairs for which `keep` is true."""
        return PairSet(filter(keep, self._pairs), rejects=self.rejects, keep=self)

    def concatenate(self, *others: PairSet) -> PairSet:
        """These pairs and then those of `others`. Raises UserError where two have the same id."""
        pairs = tuple(itertools.chain(self._pairs, *others))
        counted = Counter(pair.id for pair in pairs)
        if twice := next((name for name, count in counted.items() if count > 1), None):
            raise UserError(f"two of the pairs have the id {twice!r}; filter one out, or use `mix`, which renames it.")
        rejects = (*self.rejects, *(reject for other in others for reject in other.rejects))
        return PairSet(pairs, rejects=rejects, keep=(self, *others))

    def __len__(self) -> int:
        return len(self._pairs)

    def __iter__(self) -> Iterator[Pair]:
        return iter(self._pairs)

    @overload
    def __getitem__(self, place: int) -> Pair: ...
    @overload
    def __getitem__(self, place: slice) -> PairSet: ...
    def __getitem__(self, place: int | slice) -> Pair | PairSet:
        if isinstance(place, slice):
            return PairSet(self._pairs[place], rejects=self.rejects, keep=self)
        return self._pairs[place]

    def __repr__(self) -> str:
        made = Counter(pair.provenance.construction for pair in self._pairs)
        by = ", ".join(f"{name} {count}" for name, count in made.items())
        left = f", {len(self.rejects)} rejected" if self.rejects else ""
        return f"PairSet({len(self)} pairs: {by or 'none'}{left}{f'; {self.folder}' if self.folder else ''})"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{_picture(pair.images[0]) if pair.images else ''}</td>"
            f"<td>{html.escape(pair.prompt[-1].text)}</td>"
            f"<td>{html.escape(pair.chosen)}</td><td>{html.escape(pair.rejected)}</td></tr>"
            for pair in self._pairs[:_SHOWN]
        )
        head = "<tr><th></th><th>prompt</th><th>chosen</th><th>rejected</th></tr>"
        return f"<p>{html.escape(repr(self))}</p><table>{head}{rows}</table>"


def _rejects(folder: Path) -> list[Rejection]:
    from veridical.files import read_json_lines

    path = folder / "rejects.jsonl"
    if not path.is_file():
        return []
    try:
        return [Rejection(**row) for row in read_json_lines(path)]
    except TypeError as error:
        raise UserError(f"{path}: holds a row that is no rejection ({error}); build or import again.") from None


def _with_files(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row whose PIL images are the contents of PNG files, as a row of a file on disk has them."""
    filled = dict(row)
    for name in ("images", "image"):
        value = filled.get(name)
        if value is not None:
            filled[name] = [_content(one) for one in value] if isinstance(value, list | tuple) else _content(value)
    return filled


def _content(image: Any) -> Any:
    from PIL import Image

    if not isinstance(image, Image.Image):
        return image
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _picture(image: ImageFile) -> str:
    """A small picture inside the page."""
    import base64

    from veridical.vlm.images.files import open_image

    small = open_image(image)
    small.thumbnail((160, 160))
    buffer = io.BytesIO()
    small.save(buffer, "PNG")
    return f'<img src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}">'
