"""The published formats by name. A format is a file in this folder with a `FORMAT`, and a line here.

The first whose rows a file's first row looks like is taken, so narrower formats come before wider ones.
"""

from __future__ import annotations

from typing import Any

from veridical.formats.published.types import Format
from veridical.registry import Own, Registry


def _own(module: str, summary: str) -> Own:
    return Own(f"veridical.formats.published.{module}:FORMAT", summary)


def _wrong_with(made: Any) -> str | None:
    """What keeps something from being a format; None where nothing does."""
    return None if isinstance(made, Format) else f"it is a {type(made).__name__}, not a veridical Format"


FORMATS: Registry[Format] = Registry(
    kind="format",
    group="veridical.formats",
    own={
        "veridical": _own("own", "veridical's own pairs, with all that is known of them (parquet, JSON lines)"),
        "rlhf-v": _own("rlhf_v", "RLHF-V: answers corrected by people (parquet with JSON in `text`; older JSON lines)"),
        "bpo": _own("bpo", "BPO: annotated answers against injected and self-made errors (JSON)"),
        "vlfeedback": _own(
            "vlfeedback", "VLFeedback: several models' answers with ratings in three aspects (parquet, JSON lines)"
        ),
        "povid": _own("povid", "POVID, CSR, V-DPO: LLaVA conversations beside rejected ones (JSON)"),
        "llava-rlhf": _own("llava_rlhf", "LLaVA-RLHF: two answers and which one people preferred (JSON)"),
        "opa-dpo": _own("opa_dpo", "OPA-DPO: gold and revised answers above the model's own (saved data set)"),
        "sentinel": _own("sentinel", "SENTINEL: single sentences after a shared context (JSON lines)"),
        "ha-dpo": _own("ha_dpo", "HA-DPO: corrected descriptions and yes/no questions on Visual Genome (JSON)"),
        "align-anything": _own(
            "align_anything", "align-anything, SafeRLHF-V: two responses and the better one's number (parquet, JSON)"
        ),
        "hsa-dpo": _own("hsa_dpo", "HSA-DPO: rewritten answers with severity scores (JSON lines)"),
        "spa-vl": _own("spa_vl", "SPA-VL: safety preferences (parquet)"),
        "rlaif-v": _own("rlaif_v", "RLAIF-V: a model's answers ranked claim by claim (parquet, JSON lines)"),
        "ms-swift": _own("ms_swift", "ms-swift: messages with a rejected response, messages or images (JSON lines)"),
        "llama-factory": _own("llama_factory", "LLaMA-Factory: sharegpt and alpaca with ranking (JSON, parquet)"),
        "mdpo": _own("mdpo", "mDPO: 10,000 pairs with Vicuna prompts (JSON)"),
        "mm-rlhf": _own("mm_rlhf", "MM-RLHF: pairs out of people's rankings (JSON lines)"),
        "vl-rewardbench": _own(
            "vl_rewardbench", "VL-RewardBench: two responses and people's ranking (JSON lines, parquet)"
        ),
        "trl": _own(
            "trl",
            "TRL: prompt, chosen, rejected as messages or texts, with images (parquet, JSON lines, saved data sets)",
        ),
        "mmpr": _own("mmpr", "MMPR and other flat sets: question, chosen, rejected (JSON lines, meta.json)"),
        "llava": _own("llava", "LLaVA: conversations as records with references (JSON)"),
        "coco": _own("coco", "COCO: instances as annotations, captions as references (JSON)"),
        "visual-genome": _own(
            "visual_genome", "Visual Genome: regions and objects as annotations (JSON, with image_data.json beside it)"
        ),
    },
    check=_wrong_with,
)
