"""`veridical publish`: merge a trained adapter into its model, and push adapters and models to the Hugging Face Hub.

`align --merge` and `align --push` do the same at the end of a training.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
import yaml

from veridical import __version__
from veridical.align.card import NAME
from veridical.align.telling import say
from veridical.config import read_yaml
from veridical.errors import UserError
from veridical.files import read_json, write_text
from veridical.hub import check_repo, fetched_adapter, is_hub_name, push_model
from veridical.vlm.model.merging import MergedType, refuse_unmergeable

MERGED = "merged"
"""The folder beside `adapter/` that a merged model is written to, unless another is named."""


@dataclass(frozen=True)
class PublishConfig:
    """Merge an adapter into its model, and push adapters and models to the Hugging Face Hub."""

    run: Annotated[Path, tyro.conf.Positional]
    """A finished run of align, rl or loop; or the folder of an adapter in PEFT's layout, or of a whole model."""
    merge: bool = False
    """Write the whole model with the adapter in it: it loads in transformers, vLLM and others without PEFT. Adapters
    that act on answers only can't be merged."""
    merge_dtype: MergedType = "float32"
    """Number type of the merged model. The sum is made in float32; bfloat16 is half as large and rounds most of a short
    training's update away, how much is said."""
    to: Path | None = None
    """The folder of the merged model; `merged` in the run if left out."""
    model: str = ""
    """The model that the adapter belongs to, by name or folder; as its run or its own settings say if left out."""
    push: str = ""
    """OWNER/NAME of a model on the Hub, which is made unless it exists: the merged model goes there, or without --merge
    the adapter or whole model, with its card."""
    private: bool = False
    """With --push: make a new repository private."""
    license: str = ""
    """With --push: the licence in the Hub's words, such as apache-2.0, for the card."""
    allow_remote_code: bool = False
    """Run Python code that comes with the model. Only for models that you trust."""

    def __post_init__(self) -> None:
        if not self.merge and not self.push:
            raise UserError("give --merge, --push or both.")
        if self.to is not None and not self.merge:
            raise UserError("--to is where a merged model goes; give --merge too.")
        if not self.push and (self.private or self.license):
            raise UserError("private and license go with --push.")
        if self.push:
            check_repo(self.push)


def run(config: PublishConfig) -> Path:
    """Merge, push, or both; returns the folder of what was written or pushed.

    Raises UserError where there is nothing to publish, for an adapter that can't be merged, and for what the Hub
    refuses.
    """
    result = result_of(config.run)
    if config.merge:
        if not is_adapter(result):
            raise UserError(f"{result} is a whole model already; leave --merge out.")
        base = config.model or base_of(config.run, result)
        out = config.to or (result.parent if result.name == "adapter" else result) / MERGED
        result = merge(base, result, out, config.merge_dtype, allow_remote_code=config.allow_remote_code)
    if config.push:
        push(result, config.push, private=config.private, licence=config.license)
    return result


def result_of(place: Path) -> Path:
    """The adapter's or model's folder in a run, or the place itself where it is such a folder.

    Raises UserError where there is neither.
    """
    if is_hub_name(place):
        return fetched_adapter(place)
    for folder in (place / "adapter", place / "model", place):
        if is_adapter(folder) or (folder / "config.json").is_file():
            return folder
    raise UserError(
        f"{place}: holds neither an adapter nor a model; give a finished run of align, rl or loop, or such a folder."
    )


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter in PEFT's layout."""
    return (folder / "adapter_config.json").is_file()


def base_of(run: Path, adapter: Path) -> str:
    """The model that an adapter belongs to, by its run's settings or PEFT's own. Raises UserError if neither says."""
    for folder in (run, adapter.parent):
        if (folder / "config.yaml").is_file() and (model := read_yaml(folder / "config.yaml").get("model")):
            return str(model)
    named = read_json(adapter / "adapter_config.json").get("base_model_name_or_path")
    if not named:
        raise UserError(f"{adapter} doesn't say which model it belongs to; give --model.")
    return str(named)


def merge(base: str, adapter: Path, out: Path, dtype: MergedType, *, allow_remote_code: bool = False) -> Path:
    """Write a model with an adapter merged into it to a folder, with a card, and say how much the number type keeps.

    Raises UserError for an adapter that can't be merged or doesn't fit, and a folder that holds something else.
    """
    refuse_unmergeable(adapter)
    if out.exists() and any(out.iterdir()) and not (out / "config.json").is_file():
        raise UserError(f"{out}: holds something else than a model; give --to another folder.")
    from veridical.vlm.load import load
    from veridical.vlm.model.merging import write_merged

    vlm = load(base, adapter=adapter, dtype="float32", device="cpu", allow_remote_code=allow_remote_code)
    done = write_merged(vlm, out, dtype)
    write_text(out / NAME, _card(base, adapter, dtype, done.kept))
    say(f"{out}: {base} with the adapter merged in, in {dtype}{_kept(dtype, done.kept)}")
    return out


def push(folder: Path, repo: str, *, private: bool = False, licence: str = "") -> str:
    """Push an adapter's or a model's folder to the Hub, with its card; returns its address.

    Paths of this machine are left out of the card's head, where the Hub wants names. Raises UserError for what the Hub
    refuses.
    """
    import shutil

    check_repo(repo)
    what = "adapter" if is_adapter(folder) else "model"
    with tempfile.TemporaryDirectory(prefix="veridical-push-") as work:
        copy = Path(work) / "model"
        # Weights are linked, not copied, where the disk allows.
        shutil.copytree(folder, copy, copy_function=_linked, ignore=shutil.ignore_patterns(MERGED))
        card = copy / NAME
        text = card.read_text(encoding="utf-8") if card.is_file() else f"# {repo.partition('/')[2]}\n"
        card.unlink(missing_ok=True)
        write_text(card, _for_hub(text, repo, licence))
        _without_local_base(copy / "adapter_config.json")
        address = push_model(copy, repo, f"{what}, written by veridical {__version__}", private=private)
    use = f"use it as hf://{repo}" if what == "adapter" else f"use it as {repo}"
    say(f"{what} pushed to {address}; {use}")
    return address


def _linked(source: str, target: str) -> None:
    import os
    import shutil

    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _without_local_base(path: Path) -> None:
    """Take a folder's name out of PEFT's settings: it is of this machine, and others name the base that they have."""
    if not path.is_file():
        return
    content = read_json(path)
    if Path(str(content.get("base_model_name_or_path") or "")).exists():
        import json

        path.unlink()  # a link to the run's own file
        write_text(path, json.dumps({**content, "base_model_name_or_path": None}, indent=2) + "\n")


def _for_hub(card: str, repo: str, licence: str) -> str:
    """A card whose head the Hub takes: a base that is a name and no folder, and the licence."""
    head, text = _parts(card)
    base = str(head.get("base_model", ""))
    if "/" not in base or Path(base).expanduser().exists():
        head.pop("base_model", None)
    if licence:
        head["license"] = licence
    return f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n{text.replace('this folder', repo)}"


def _parts(card: str) -> tuple[dict[str, Any], str]:
    if not card.startswith("---\n"):
        return {}, card
    _, head, text = card.split("---\n", 2)
    return dict(yaml.safe_load(head) or {}), text


_MERGED_CARD = """# {name}

`{base}` with a LoRA adapter merged into it, which [veridical](https://pypi.org/project/veridical/) {version} trained so
that the model says less that is not in the image. The sum was made in float32 and is stored in {dtype}{kept}.

## Load
```python
from transformers import AutoModelForImageTextToText, AutoProcessor

model = AutoModelForImageTextToText.from_pretrained("this folder", dtype="{dtype}")
processor = AutoProcessor.from_pretrained("this folder")
```
```sh
vllm serve "this folder" --dtype {dtype}
```
"""


def _card(base: str, adapter: Path, dtype: MergedType, kept: float) -> str:
    """The card of a merged model: how it was made, how to load it, and what the adapter's card says of its training."""
    own = adapter / NAME
    head, text = _parts(own.read_text(encoding="utf-8")) if own.is_file() else ({}, "")
    tags = [tag for tag in head.get("tags", ("veridical",)) if tag != "lora"]
    front = {"base_model": base, "library_name": "transformers", "pipeline_tag": "image-text-to-text", "tags": tags}
    wanted = ("Base and pairs", "Results", "Settings")
    sections = [one for one in text.split("\n## ")[1:] if one.partition("\n")[0] in wanted]
    made = _MERGED_CARD.format(
        name=adapter.parent.name, base=base, version=__version__, dtype=dtype, kept=_kept(dtype, kept)
    )
    return f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n{made}" + "".join(
        f"\n## {section}" for section in sections
    )


def _kept(dtype: MergedType, kept: float) -> str:
    return "" if dtype == "float32" else f", whose rounding keeps {100 * kept:.0f} % of the adapter's update"
