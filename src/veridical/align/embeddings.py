"""What pairs' prompts and images are like, as vectors: for objectives that compare pairs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from veridical.align.types import Example
from veridical.judges.embedding import PackagedSimilarity, is_packaged
from veridical.objectives.base import Embedded
from veridical.records import Message
from veridical.vlm.model import families
from veridical.vlm.model.loading import Vlm
from veridical.vlm.model.modes import evaluating
from veridical.vlm.scores.image_embeddings import image_embeddings


class PairEmbeddings:
    """Embeds each distinct prompt and each distinct image once, when it is first asked for.

    Prompts are embedded by the installed sentence encoder (`judges.embedding`), as in RPO's released code; where there
    is none, by the mean of the model's own input embeddings of their tokens. Images by the model's vision tower.
    """

    def __init__(self, vlm: Vlm) -> None:
        self._vlm = vlm
        self._encoder = PackagedSimilarity() if is_packaged() else None
        self._prompts: dict[str, Tensor] = {}
        self._images: dict[str, Tensor] = {}

    def of(self, examples: Sequence[Example], wanted: Sequence[Embedded]) -> dict[str, Tensor]:
        """Unit vectors (fp32, on the CPU) [examples, width] by what they are of; zeros for pairs without an image."""
        embeddings = {}
        if "prompt" in wanted:
            texts = [_text(example.prompt) for example in examples]
            new = [text for text in dict.fromkeys(texts) if text not in self._prompts]
            self._prompts.update(zip(new, self._embedded(new), strict=True) if new else ())
            embeddings["prompt"] = torch.stack([self._prompts[text] for text in texts])
        if "image" in wanted:
            fresh = {one.images_key(): one.images for one in examples if one.images_key() not in self._images}
            if fresh:
                with evaluating(self._vlm.model):
                    vectors = image_embeddings(self._vlm, list(fresh.values()))
                self._images.update(zip(fresh, vectors.nan_to_num(), strict=True))
            known = [self._images[example.images_key()] for example in examples]
            width = max(map(len, known))
            embeddings["image"] = torch.stack([one if len(one) == width else torch.zeros(width) for one in known])
        return embeddings

    def _embedded(self, texts: Sequence[str]) -> Tensor:
        if self._encoder is not None:
            return self._encoder.embed(texts)
        table = families.base_model(self._vlm.model).get_input_embeddings()
        ids = [self._vlm.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        with torch.no_grad():
            means = [
                table.weight[one].float().mean(0).cpu() if one else table.weight[0].float().cpu() * 0 for one in ids
            ]
        return torch.nn.functional.normalize(torch.stack(means), dim=-1)


def _text(prompt: Sequence[Message]) -> str:
    return "\n".join(turn.text for turn in prompt)
