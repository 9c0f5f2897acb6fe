"""How alike two texts are in meaning: the cosine of their sentence embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from veridical.errors import UserError
from veridical.judges.interface import Similarity

if TYPE_CHECKING:
    from torch import Tensor

_LONGEST = 512


@dataclass(frozen=True)
class EmbeddingSimilarity:
    """A text encoder whose token states are averaged, as all-mpnet-base-v2 and all-MiniLM-L6-v2 are used.

    A text longer than the encoder takes is read up to there, as sentence-transformers does.
    """

    name: str
    model: Any = field(repr=False)
    tokenizer: Any = field(repr=False)
    batch_size: int = 32

    def similarity(self, requests: Sequence[Similarity]) -> list[float]:
        """Cosines, those below 0 as 0. Each distinct text is embedded once."""
        texts = list(dict.fromkeys(text for request in requests for text in (request.first, request.second)))
        places = {text: place for place, text in enumerate(texts)}
        embedded = self._embedded(texts)
        return [
            max(0.0, float(embedded[places[request.first]] @ embedded[places[request.second]])) for request in requests
        ]

    def _embedded(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors [texts, width] on the CPU."""
        import torch

        found = []
        for start in range(0, len(texts), self.batch_size):
            batch = list(texts[start : start + self.batch_size])
            longest = min(self.tokenizer.model_max_length, _LONGEST)
            inputs = self.tokenizer(batch, padding=True, truncation=True, max_length=longest, return_tensors="pt")
            inputs = inputs.to(self.model.device)
            with torch.inference_mode():
                states = self.model(**inputs).last_hidden_state.float()
            shown = inputs["attention_mask"][:, :, None].float()
            found.append(torch.nn.functional.normalize((states * shown).sum(1) / shown.sum(1), dim=-1).cpu())
        return torch.cat(found)


def load_embedding(model: str) -> EmbeddingSimilarity:
    """A sentence encoder by folder or hub name. Raises UserError where it can't be had."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    from veridical.vlm.model.loading import source_of, without_bars

    source = str(source_of(model))
    try:
        # Encoders count positions from the left: padding there would move the words.
        tokenizer = AutoTokenizer.from_pretrained(source, padding_side="right")
        with without_bars(source):
            loaded = AutoModel.from_pretrained(source, use_safetensors=True)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise UserError(
            f"similarity {model!r}: can't be loaded ({error}); it is `tokens` or a sentence encoder, such as "
            "sentence-transformers/all-mpnet-base-v2."
        ) from error
    loaded.to("cuda" if torch.cuda.is_available() else "cpu").requires_grad_(False).eval()
    return EmbeddingSimilarity(Path(model).name, loaded, tokenizer)
