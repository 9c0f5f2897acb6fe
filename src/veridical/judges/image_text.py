"""Judge by how well an image and a text go together: CLIP, SigLIP and their relatives.

CSR (arXiv 2405.14622) ranks sentences by CLIP's similarity, CLIP-DPO whole captions, PDS-DPO (arXiv 2412.17417) images
that were made for a prompt. A text longer than the model reads is cut there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from veridical.bounds import Positive
from veridical.errors import UserError, panics_as_errors
from veridical.judges.interface import Compare, JudgeError, Kind, Preference, Rate
from veridical.judges.rewards import Scorable, each, preference
from veridical.records import Record
from veridical.runs import INCIDENTAL

if TYPE_CHECKING:
    from veridical.judges.registry import JudgeContext


@dataclass(frozen=True)
class ImageTextJudge:
    """A dual encoder of images and texts, with its processor."""

    name: str
    model: Any = field(repr=False)
    processor: Any = field(repr=False)
    batch_size: int = 8

    def lacks(self, kind: Kind, record: Record) -> JudgeError | None:
        """An image."""
        if record.images:
            return None
        return JudgeError(f"{record.id}: has no image", "no-image", "give the record an image")

    def rate(self, requests: Sequence[Rate]) -> list[float | JudgeError]:
        """The model's logit of image and text, which for CLIP is 100 times their cosine; of several images the mean."""
        return each([Scorable.of(request) for request in requests], self._together, self.batch_size)

    def compare(self, requests: Sequence[Compare]) -> list[Preference | JudgeError]:
        """By the difference of the two logits."""
        return preference(requests, self.rate)

    def _together(self, batch: Sequence[Scorable]) -> list[float]:
        import torch

        from veridical.vlm.images.files import open_image

        scores = []
        for request in batch:
            if not request.images:
                raise UserError(f"{request.record_id}: has no image to compare the text with.")
            inputs = self.processor(
                text=[request.text],
                images=[open_image(image) for image in request.images],
                padding="max_length",
                truncation=True,
                return_tensors="pt",
            ).to(self.model.device)
            with torch.inference_mode():
                scores.append(float(self.model(**inputs).logits_per_image.float().mean()))
        return scores


@dataclass(frozen=True)
class ImageTextSettings:
    """Judge by the similarity of image and text."""

    name: Literal["image-text"] = "image-text"
    """Which judge: image-text rates a text by its similarity to the image, by a model such as CLIP."""
    model: str = ""
    """A dual encoder of transformers (CLIP, SigLIP, ...), by folder or hub name; CSR's is
    openai/clip-vit-large-patch14-336."""
    batch_size: Positive = field(default=8, metadata=INCIDENTAL)
    """Texts rated at a time."""
    device: str = field(default="auto", metadata=INCIDENTAL)
    """Where the model runs: auto, cpu, cuda, ...."""

    def open(self, context: JudgeContext) -> ImageTextJudge:
        """Load the judge. Raises UserError where the model can't be loaded."""
        import torch
        from transformers import AutoModel, AutoProcessor

        from veridical.vlm.model.loading import source_of, without_bars

        if not self.model:
            raise UserError("judge.name image-text: give --judge.model, such as openai/clip-vit-large-patch14-336.")
        source = str(source_of(self.model))
        try:
            with panics_as_errors(), without_bars(source):
                processor = AutoProcessor.from_pretrained(source, trust_remote_code=False)
                loaded = AutoModel.from_pretrained(source, trust_remote_code=False, use_safetensors=True)
        except Exception as error:  # a stranger's files: whatever is wrong with them gets a sentence
            raise UserError(f"judge.model {self.model!r}: can't be loaded ({error}).") from error
        if not hasattr(loaded, "logit_scale"):
            raise UserError(
                f"judge.model {self.model!r}: compares no images with texts; take CLIP, SigLIP or the like."
            )
        place = self.device if self.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
        return ImageTextJudge(Path(self.model).name, loaded.to(place).requires_grad_(False).eval(), processor)
