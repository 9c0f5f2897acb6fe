"""Which models to measure, as a user names them: the base first, then adapters on it or others, local or served."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from veridical.config import read_yaml
from veridical.errors import UserError
from veridical.files import read_json
from veridical.http_client import check_url
from veridical.hub import fetched_adapter, is_hub_name


@dataclass(frozen=True)
class Measured:
    """One model of an evaluation: its name in the results, the full model, the adapter on it if any, and for a served
    model its URL; `model` is then the id there."""

    name: str
    model: str
    adapter: Path | None = None
    url: str = ""


def measured_models(names: Sequence[str]) -> list[Measured]:
    """Read what stands after `--models`.

    The first is the base: a folder, a hub name or "bundled", called "base"; or an adapter, with which the others are
    then compared. Each further one is a folder with an adapter on that base, or hf://OWNER/NAME, a run of `veridical
    align`, or another full model. Each full model may be "URL#MODEL", one that is served. "NAME=" before any of them
    gives the name that is used in the results; else that is the run's or the model's own.

    Raises:
        UserError: nothing is given, a folder is not what it should be, or two have one name.
    """
    if not names:
        raise UserError("--models: give the base model first, then what to compare with it")
    base_label, base = _split(names[0])
    first_adapter = _adapter_folder(Path(base).expanduser())
    if first_adapter is not None:
        # An adapter is the first: others are compared with it, on the model that it belongs to.
        run = Path(base).expanduser()
        first = Measured(base_label or _own_name(run), _model_of(run, first_adapter), first_adapter)
    else:
        first = _served(base_label or "base", base) or Measured(base_label or "base", base)
    models = [first]
    for given in names[1:]:
        label, place = _split(given)
        if (served := _served(label, place)) is not None:
            models.append(served)
            continue
        adapter = _adapter_folder(Path(place).expanduser())
        if adapter:
            models.append(Measured(label or _own_name(Path(place)), first.model, adapter, first.url))
        else:
            model = str(_model_folder(Path(place).expanduser()) or place)
            models.append(Measured(label or _own_name(Path(place)), model))
    taken = [one.name for one in models]
    for name in taken:
        if taken.count(name) > 1:
            raise UserError(f"--models: two are called {name!r}; tell them apart with NAME=FOLDER")
        if not name.strip(". ") or set(name) & set('/\\:*?"<>|\0'):
            raise UserError(f"--models: {name!r} cannot be a folder's name; give another as NAME=FOLDER")
    return models


def _split(given: str) -> tuple[str, str]:
    """("NAME", "PLACE") of "NAME=PLACE"; a "=" inside a path is part of the path."""
    label, equals, place = given.partition("=")
    if equals and "/" not in label and not Path(given).expanduser().exists():
        return label, place
    return "", given


def _served(label: str, place: str) -> Measured | None:
    """The served model that "URL#MODEL" names; None for what is no URL. Raises UserError for one without a model."""
    if not place.startswith(("http://", "https://")):
        return None
    url, _, model = place.partition("#")
    check_url(url, "served")
    if not model:
        raise UserError(f"--models {url}: say which model of those served there, as {url}#MODEL")
    return Measured(label or model.rpartition("/")[2], model, None, url)


def _adapter_folder(place: Path) -> Path | None:
    """Where the adapter is, or None where `place` is a full model.

    Raises:
        UserError: the place is a folder with neither in it.
    """
    place = fetched_adapter(place)
    for folder in (place, place / "adapter"):
        if (folder / "adapter_config.json").is_file():
            return folder
    if place.is_dir() and not (place / "config.json").is_file() and not _model_folder(place):
        raise UserError(
            f"--models {place}: this folder holds neither an adapter (adapter_config.json) nor a model "
            "(config.json); give a finished run of `veridical align`, its adapter folder, or a model"
        )
    return None


def _model_of(place: Path, adapter: Path) -> str:
    """The model that an adapter belongs to, by its run's settings or by PEFT's own.

    Raises:
        UserError: neither says.
    """
    for run in (place, adapter.parent):
        if (run / "config.yaml").is_file() and (model := read_yaml(run / "config.yaml").get("model")):
            return str(model)
    named = read_json(adapter / "adapter_config.json").get("base_model_name_or_path")
    if not named:
        raise UserError(f"--models {place}: its adapter doesn't say which model it belongs to; give that model first")
    return str(named)


def _model_folder(place: Path) -> Path | None:
    """Where the model of a run of `veridical align` is that trained one whole; None for anything else."""
    inside = place / "model"
    return inside if (inside / "config.json").is_file() and not (place / "config.json").is_file() else None


def _own_name(place: Path) -> str:
    if is_hub_name(place):
        return place.name.partition("@")[0]
    resolved = place.expanduser().resolve() if place.expanduser().exists() else place
    return resolved.parent.name if resolved.name == "adapter" else resolved.name
