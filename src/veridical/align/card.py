"""The card of a trained adapter or model: base, pairs, settings, results, and how to load it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from veridical import __version__
from veridical.align.config import AlignConfig
from veridical.config import to_plain
from veridical.runs import identity_of
from veridical.vlm.model.image_limits import ImageLimits
from veridical.world.bundled import is_bundled

NAME = "README.md"

_LOAD_ADAPTER = """from peft import PeftModel
from transformers import AutoModelForImageTextToText

base = {base}
model = AutoModelForImageTextToText.from_pretrained(base, dtype="auto")
model = PeftModel.from_pretrained(model, "this folder")
"""
_LOAD_MODEL = """from transformers import AutoModelForImageTextToText, AutoProcessor

model = AutoModelForImageTextToText.from_pretrained("this folder")  # in float32, as it was trained
processor = AutoProcessor.from_pretrained("this folder")
"""


def card(config: AlignConfig, summary: Mapping[str, Any]) -> str:
    """Markdown with the hub's front matter."""
    adapter = config.train == "adapter"
    front = {
        "base_model": config.model,
        **({"library_name": "peft"} if adapter else {"library_name": "transformers"}),
        "pipeline_tag": "image-text-to-text",
        "tags": ["veridical", "hallucination", config.objective.name, *(["lora"] if adapter else [])],
    }
    settings = identity_of(config, by_content=False) | {"learning_rate": config.learning_rate}
    what = "A LoRA adapter" if adapter else "A model"
    pairs = summary["pairs"]
    load = (_LOAD_ADAPTER if adapter else _LOAD_MODEL).format(base=_path(config.model))
    load_ours = f'vd.load({config.model!r}, adapter="this folder")' if adapter else 'vd.load("this folder")'
    return "\n".join(
        [
            f"---\n{yaml.safe_dump(front, sort_keys=False)}---",
            f"# {config.out.name}",
            "",
            f"{what} that [veridical](https://pypi.org/project/veridical/) {__version__} trained on preference pairs, "
            "so that the model says less that is not in the image.",
            "",
            "## Base and pairs",
            f"Base model: `{config.model}` (fingerprint `{summary['inputs']['model'][:16]}`). Pairs: {pairs['used']} "
            f"of {pairs['read']}, of which {pairs['held_out']} were held out (hash "
            f"`{summary['inputs']['pairs'][:16]}`). {_constructions(pairs['constructions'])}",
            "",
            "## Results",
            *_results(summary),
            "",
            "These are changes in log-probability on pairs. What the model makes up in its answers, and what it leaves "
            "out, is measured by `veridical eval`.",
            "",
            "## Load",
            f"```python\n{load}```",
            "or, with veridical:",
            f"```python\nimport veridical as vd\n\nvlm = {load_ours}\n```",
            "",
            *_limits(config),
            "## Settings",
            f"```yaml\n{yaml.safe_dump(to_plain(settings), sort_keys=False)}```",
            "",
        ]
    )


def _limits(config: AlignConfig) -> list[str]:
    """What whoever loads the adapter without veridical has to know about the size of images."""
    limits = ImageLimits(config.max_pixels, config.max_image_tokens)
    if not limits:
        return []
    return [
        f"It was trained on images that the processor made smaller (`{limits}`). With veridical this holds wherever it "
        "is loaded; with transformers alone, set the processor so.",
        "",
    ]


def _path(model: str) -> str:
    """What transformers loads a model by, as Python writes it."""
    return f"bundled_model_path({model!r})  # from veridical.world.bundled" if is_bundled(model) else repr(model)


def _constructions(counts: Mapping[str, int]) -> str:
    return "Made by " + ", ".join(f"{name} ({count})" for name, count in counts.items()) + "." if counts else ""


def _results(summary: Mapping[str, Any]) -> list[str]:
    rows = ["| | pairs | chosen gains more, % | margin, nats | chosen, nats | rejected, nats |", f"|{'---|' * 6}"]
    for name, numbers in (("training pairs", summary["final"]), ("held-out pairs", summary["held_out"])):
        if numbers is not None:
            cells = [_cell(numbers, "accuracy", 100), *(_cell(numbers, key, 1) for key in _COLUMNS)]
            rows.append(f"| {name} | {numbers['pairs']} | {' | '.join(cells)} |")
    told = [f"- {finding['found']}. {finding['remedy']}." for finding in summary["verdict"]]
    return [*rows, "", *told]


_COLUMNS = ("margin", "chosen_drift", "rejected_drift")


def _cell(numbers: Mapping[str, Any], name: str, scale: float) -> str:
    low, high = (scale * bound for bound in numbers["intervals"][name])
    return f"{scale * numbers[name]:.1f} [{low:.1f}, {high:.1f}]"
