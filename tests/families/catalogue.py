"""Every family that is tested, by the name it has in the support table."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tests.families import bidirectional, grids, llava, tiles
from tests.families.tiny import Tiny

FAMILIES: Mapping[str, Callable[[], Tiny]] = {
    "aya_vision": tiles.aya_vision,
    "cohere2_vision": tiles.cohere2_vision,
    "gemma3": bidirectional.gemma3,
    "glm4v": grids.glm4v,
    "idefics2": tiles.idefics2,
    "idefics3": tiles.idefics3,
    "internvl": tiles.internvl,
    "llava": llava.llava,
    "llava (Pixtral)": llava.pixtral,
    "llava_next": llava.llava_next,
    "llava_onevision": llava.llava_onevision,
    "mistral3": llava.mistral3,
    "paligemma": bidirectional.paligemma,
    "qwen2_5_vl": grids.qwen2_5_vl,
    "qwen2_vl": grids.qwen2_vl,
    "qwen3_5": grids.qwen3_5,
    "qwen3_vl": grids.qwen3_vl,
    "smolvlm": tiles.smolvlm,
    "vipllava": llava.vipllava,
}
