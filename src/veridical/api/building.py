"""`veridical.build`: preference pairs out of records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from veridical.api.settings import as_loaded, checked_settings, judge_settings, run_folder
from veridical.errors import UserError
from veridical.pairset import PairSet

if TYPE_CHECKING:
    from veridical.records import Record
    from veridical.vlm.model.loading import Vlm


@overload
def build(construction: str | Callable[..., Any] = ..., **given: Any) -> PairSet: ...
@overload
def build(construction: Sequence[str | Callable[..., Any]], **given: Any) -> dict[str, PairSet]: ...


def build(
    construction: str | Callable[..., Any] | Sequence[str | Callable[..., Any]] = "bpo-image",
    *,
    records: str | Path | Sequence[Record] = "world",
    model: str | Path | Vlm = "bundled",
    out: str | Path | None = None,
    judge: Any = None,
    writer: Any = None,
    settings: Any = None,
    **more: Any,
) -> PairSet | dict[str, PairSet]:
    """Make preference pairs that expose what a model makes up.

    Args:
        construction: a name (`veridical list constructions`), a function, or the place of one (`path/file.py:name`);
            or several of these, over the same records.
        records: world, a folder of images, a file of records, or a sequence of `Record`s.
        model: a loaded model, or what `load` takes.
        out: the run folder; the same call continues what is there. A temporary one by default.
        judge: who says what is true, by name or by its settings.
        writer: who makes texts, likewise; the judge by default.
        settings: those of the construction, or a mapping of some of them; of several, a mapping from their names.
        more: further settings of `veridical build`, such as `limit`, `seed` or `batch_size`.

    Returns:
        The pairs, with everything that was left out in `rejects`; of several constructions, those of each by its name.
        With `length_matched` or `size_matched` the part that these make, where there is one.

    Raises:
        UserError: settings that can't be, a folder of another run, and where no pair came out.
    """
    from veridical.constructions.registry import CONSTRUCTIONS
    from veridical.pairs.config import BuildConfig, settings_of
    from veridical.pairs.produce import produce

    several = not isinstance(construction, str) and isinstance(construction, Sequence)
    made = [one if isinstance(one, str) else CONSTRUCTIONS.name_of(one) for one in _listed(construction)]
    chosen = {"constructions": tuple(made)} if several else {"construction": made[0]}
    loaded = None if isinstance(model, str | Path) else model
    given = None if isinstance(records, str | Path) else list(records)
    with run_folder(out, "pairs") as (where, keep):
        config = checked_settings(
            BuildConfig,
            more,
            out=where,
            **{"construction": made[0], "constructions": ()} | chosen,
            records="in memory" if given is not None else str(records),
            model=str(model) if loaded is None else loaded.name,
            settings=settings_of(made, several, settings),
            judge=judge_settings(judge),
            writer=judge_settings(writer),
        )
        if loaded is not None:
            config = as_loaded(config, loaded)
            if config.processes > 1:
                raise UserError("processes is above 1: several processes load the model by its name; give that.")
        sets = {name: _pairs_of(folder, keep) for name, folder in produce(config, loaded, given).items()}
    return sets if several else sets[made[0]]


def _listed(given: Any) -> list[Any]:
    """Several things as a list, and one as a list of one."""
    return list(given) if not isinstance(given, str) and isinstance(given, Sequence) else [given]


def _pairs_of(folder: Path, keep: Any) -> PairSet:
    pairs = PairSet.load(folder)
    return PairSet(pairs, folder=folder, rejects=pairs.rejects, keep=keep)
