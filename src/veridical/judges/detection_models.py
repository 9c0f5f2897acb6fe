"""Object detection models of transformers, reduced to one number per object name: its best score in an image.

A closed-vocabulary model (DETR, RT-DETR, YOLOS, D-FINE, ...) scores the labels that it was trained on. A zero-shot
model (OWL-ViT, OWLv2, Grounding DINO, OmDet-Turbo) scores the names that it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from veridical.errors import UserError, panics_as_errors

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

Scores: TypeAlias = dict[str, float]
"""The best score, 0 to 1, of each name in an image."""

_PHOTO = "a photo of a {}"
"""How OWL-ViT's queries are worded (Minderer et al. 2022, arXiv 2205.06230)."""


class DetectionModel(Protocol):
    """Scores names in images."""

    @property
    def name(self) -> str:
        """The model, as the user called it."""

    @property
    def fingerprint(self) -> str:
        """A hash of its weights."""

    @property
    def labels(self) -> tuple[str, ...] | None:
        """The only names that it can score; None for a model that scores any name."""

    def scores(self, images: Sequence[Image], names: Sequence[str]) -> list[Scores]:
        """The best score of each name in each image. Images of one call may be of any size."""


@dataclass(frozen=True)
class ClosedModel:
    """A model with a fixed list of labels."""

    name: str
    model: Any = field(repr=False)
    processor: Any = field(repr=False)
    fingerprint: str = ""

    @property
    def labels(self) -> tuple[str, ...]:
        """Its labels; placeholders such as COCO's "N/A" are left out."""
        names = self.model.config.id2label.values()
        return tuple(dict.fromkeys(name for name in names if name.strip().lower() not in ("", "n/a", "no-object")))

    def scores(self, images: Sequence[Image], names: Sequence[str]) -> list[Scores]:
        """The best score of each label over all boxes.

        DETR and YOLOS have one more class, "nothing", in a softmax; every other family scores each label by itself.
        """
        places = {name: [] for name in names}  # type: dict[str, list[int]]
        for place, name in self.model.config.id2label.items():
            if name in places:
                places[name].append(place)
        results: list[Scores] = [{} for _ in images]
        for rows, inputs in _same_shapes([self.processor(images=image, return_tensors="pt") for image in images]):
            best = self._probabilities(_forward(self.model, inputs).logits.float()).amax(1)
            for row, scores in zip(rows, best.tolist(), strict=True):
                results[row] = {name: max(scores[place] for place in places[name]) for name in names}
        return results

    def _probabilities(self, logits: Tensor) -> Tensor:
        """Scores [images, boxes, labels]."""
        count = self.model.config.num_labels
        return logits.softmax(-1)[..., :-1] if logits.shape[-1] == count + 1 else logits.sigmoid()[..., :count]


@dataclass(frozen=True)
class ZeroShotModel:
    """A model that is told what to look for."""

    name: str
    model: Any = field(repr=False)
    processor: Any = field(repr=False)
    fingerprint: str = ""
    labels: None = None

    def scores(self, images: Sequence[Image], names: Sequence[str]) -> list[Scores]:
        """The best score of each name over all boxes; names of several tokens by the mean over these in a box."""
        results: list[Scores] = [{} for _ in images]
        family = self.model.config.model_type
        grounding = "grounding-dino" in family
        asked = [_PHOTO.format(name) for name in names] if family.startswith("owl") else list(names)
        text = " ".join(f"{name.lower()}." for name in names) if grounding else [asked]
        limits = {"truncation": True} if family.startswith("owl") else {}
        prepared = [self.processor(images=image, text=text, return_tensors="pt", **limits) for image in images]
        for places, inputs in _same_shapes(prepared):
            rows = len(places)
            outputs = _forward(self.model, inputs)
            if grounding:
                best = self._by_tokens(outputs.logits, text, names)
            elif family == "omdet-turbo":
                best = outputs.decoder_class_logits.sigmoid().amax(1)
            else:
                best = outputs.logits.reshape(rows, -1, len(names)).sigmoid().amax(1)
            for place, row in zip(places, best.float().tolist(), strict=True):
                results[place] = dict(zip(names, row, strict=True))
        return results

    def _by_tokens(self, logits: Tensor, text: Any, names: Sequence[str]) -> Tensor:
        """Scores [images, names] out of a score for each box and text token, as in GLIP and Grounding DINO."""
        import torch

        encoded = self.processor.tokenizer(text, return_offsets_mapping=True)
        if len(encoded["input_ids"]) > logits.shape[-1]:
            raise UserError(f"{self.name}: {len(names)} names are too many for one text; lower --judge.names-at-once.")
        probabilities = logits.sigmoid()
        columns = []
        for start, end in _spans(names):
            tokens = [
                place for place, (a, b) in enumerate(encoded["offset_mapping"]) if a < b and start <= a and b <= end
            ]
            columns.append(probabilities[:, :, tokens].mean(-1).amax(1))
        return torch.stack(columns, dim=1)


def _spans(names: Sequence[str]) -> Iterator[tuple[int, int]]:
    """The characters of each name in "cat. remote control."."""
    start = 0
    for name in names:
        yield start, start + len(name)
        start += len(name) + 2


def _same_shapes(prepared: Sequence[Any]) -> Iterator[tuple[list[int], dict[str, Tensor]]]:
    """Inputs of equal shapes stacked, with their places: padding an image to another's size would change its scores."""
    import torch

    groups: dict[Any, list[int]] = {}
    for place, inputs in enumerate(prepared):
        groups.setdefault(tuple((key, tuple(value.shape)) for key, value in inputs.items()), []).append(place)
    for places in groups.values():
        keys = prepared[places[0]].keys()
        yield places, {key: torch.cat([torch.as_tensor(prepared[place][key]) for place in places]) for key in keys}


def _forward(model: Any, inputs: Mapping[str, Tensor]) -> Any:
    import torch

    moved = {
        key: value.to(model.device, model.dtype) if value.is_floating_point() else value.to(model.device)
        for key, value in inputs.items()
    }
    with torch.inference_mode():
        return model(**moved)


def load_detection_model(model: str, device: str = "auto") -> ClosedModel | ZeroShotModel:
    """A detection model by folder or hub name. Raises UserError where there is none."""
    from transformers import (
        AutoConfig,
        AutoImageProcessor,
        AutoModelForObjectDetection,
        AutoModelForZeroShotObjectDetection,
        AutoProcessor,
    )
    from transformers.models.auto.modeling_auto import MODEL_FOR_ZERO_SHOT_OBJECT_DETECTION_MAPPING

    from veridical.vlm.model.loading import source_of, without_bars
    from veridical.vlm.model.weights import hash_in_memory

    source = str(source_of(model))
    try:
        zero_shot = (
            type(AutoConfig.from_pretrained(source, trust_remote_code=False))
            in MODEL_FOR_ZERO_SHOT_OBJECT_DETECTION_MAPPING
        )
        auto = AutoModelForZeroShotObjectDetection if zero_shot else AutoModelForObjectDetection
        with panics_as_errors(), without_bars(source):
            processor = (AutoProcessor if zero_shot else AutoImageProcessor).from_pretrained(
                source, trust_remote_code=False
            )
            loaded, info = auto.from_pretrained(
                source, trust_remote_code=False, use_safetensors=True, output_loading_info=True
            )
    except Exception as error:  # a stranger's files: whatever is wrong with them gets a sentence
        raise UserError(
            f"The detector {model!r} can't be loaded: {error}. Give an object detection model of transformers, by "
            "folder or hub name, such as PekingU/rtdetr_r50vd or google/owlv2-base-patch16-ensemble."
        ) from error
    if missing := sorted(info["missing_keys"]):
        raise UserError(f"{model}: its files lack {len(missing)} weights, such as {missing[0]}; give the whole model.")
    loaded.to(_place(device)).requires_grad_(False).eval()
    kind = ZeroShotModel if zero_shot else ClosedModel
    return kind(model, loaded, processor, hash_in_memory(loaded))


def _place(device: str) -> str:
    import torch

    return device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
