"""`veridical.evaluate`: measure models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from veridical.api.results import Evaluation, Run
from veridical.api.settings import as_loaded, checked_settings, named_model, run_folder

if TYPE_CHECKING:
    from veridical.vlm.model.loading import Vlm


def evaluate(
    models: str | Path | Vlm | Run | Sequence[str | Path | Vlm | Run],
    protocols: Sequence[Any] = (),
    *,
    records: str | Path | None = None,
    out: str | Path | None = None,
    **more: Any,
) -> Evaluation:
    """Measure what models make up and what they leave out, with intervals, paired, and at equal recall.

    Args:
        models: the base first, then runs, adapters or other models: loaded ones, what `align` gave, names or folders.
        protocols: names (`veridical list protocols`), or published benchmarks with their files, such as
            `veridical.protocols.Pope(questions=..., images=...)`. By default what the records allow.
        records: the pictures to measure on, as `veridical eval --records` takes them.
        out: the run folder; the same call continues what is there. A temporary one by default.
        more: further settings of `veridical eval`, such as `limit` or `seed`.

    Raises:
        UserError: models, files or settings that can't be, a folder of another run.
    """
    from veridical.protocols.config import config_type
    from veridical.protocols.evaluation import evaluate as measure
    from veridical.protocols.registry import block_name

    several: list[Any] = list(models) if isinstance(models, list | tuple) else [models]
    blocks = {str(protocol.protocol): protocol for protocol in protocols if not isinstance(protocol, str)}
    names = [protocol if isinstance(protocol, str) else str(protocol.protocol) for protocol in protocols]
    settings: dict[str, Any] = {**more, **({} if records is None else {"records": str(records)})}
    if names:
        settings |= {"protocols": tuple(names)} | {block_name(name): block for name, block in blocks.items()}
    with run_folder(out, "eval") as (where, keep):
        given = _measured(several)
        config = checked_settings(
            config_type({"protocols": " ".join(names)}), settings, out=where, models=tuple(name for name, _ in given)
        )
        first = next((entry for entry in several if not isinstance(entry, str | Path | Run)), None)
        results = measure(config if first is None else as_loaded(config, first))
        return Evaluation(where, results, (keep, given))


def _measured(models: Sequence[str | Path | Vlm | Run]) -> list[tuple[str, Any]]:
    """Each model as `--models` names it, and what it needs to stay there."""
    named: list[tuple[str, Any]] = []
    runs = sum(isinstance(model, Run) for model in models)
    for number, entry in enumerate(models):
        if isinstance(entry, Run):
            label = "aligned" if runs == 1 else f"aligned-{number}"
            named.append((f"{label}={entry.result}" if entry.keep[0] is not None else str(entry.result), entry))
        else:
            with named_model(entry) as (source, held):
                named.append((source, held))
    return named
