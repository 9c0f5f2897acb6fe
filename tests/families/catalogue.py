"""Every family that is tested, by the name it has in the support table."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tests.families import apart, bidirectional, grids, llava, others, tiles
from tests.families.tiny import Tiny

FAMILIES: Mapping[str, Callable[[], Tiny]] = {
    "aria": others.aria,
    "aya_vision": tiles.aya_vision,
    "blip-2 (OPT)": apart.blip_2,
    "cohere2_vision": tiles.cohere2_vision,
    "deepseek_vl": others.deepseek_vl,
    "fast_vlm": others.fast_vlm,
    "gemma3": bidirectional.gemma3,
    "gemma4": others.gemma4,
    "git": apart.git,
    "glm4v": grids.glm4v,
    "got_ocr2": others.got_ocr2,
    "idefics2": tiles.idefics2,
    "idefics3": tiles.idefics3,
    "instructblip (Llama)": apart.instructblip,
    "internvl": tiles.internvl,
    "janus": others.janus,
    "kosmos-2": apart.kosmos_2,
    "lfm2_vl": others.lfm2_vl,
    "llama4": tiles.llama4,
    "llava (Pixtral)": llava.pixtral,
    "llava": llava.llava,
    "llava_next": llava.llava_next,
    "llava_onevision": llava.llava_onevision,
    "mistral3": llava.mistral3,
    "mllama": apart.mllama,
    "molmo2": others.molmo2,
    "ovis2": others.ovis2,
    "paligemma": bidirectional.paligemma,
    "perception_lm": others.perception_lm,
    "qwen2_5_vl": grids.qwen2_5_vl,
    "qwen2_vl": grids.qwen2_vl,
    "qwen3_5": grids.qwen3_5,
    "qwen3_vl": grids.qwen3_vl,
    "smolvlm": tiles.smolvlm,
    "vipllava": llava.vipllava,
}
