"""What the builders of tiny models share: a text model, a tokenizer, and random weights.

All are two layers deep and 32 wide, and built in memory from the family's own configuration, image processor and
processor; nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from tests.families.templates import Chat

from models import SENTENCES

WIDTH = 32


@dataclass(frozen=True)
class Tiny:
    """A model's configuration, the processor that goes with it, and what its chat template is known to write.

    `images` is how many images a prompt may hold; `seed` and `spread` are those of the random weights; `note` says
    why something doesn't work.
    """

    config: Any
    processor: Any
    chat: Chat
    images: int = 2
    seed: int = 0
    spread: float = 0.25
    note: str = ""


def tokenizer(chat: Chat, *specials: str, named: Mapping[str, str] | None = None, **more: Any) -> Any:
    """A byte-level BPE of 340 tokens; those of `chat` and `specials` are single ones, `named` ones attributes too."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    named = dict(named or {})
    if chat.bos:
        more["bos_token"] = chat.bos
    control = ["<pad>", "<unk>", chat.eos, *more.values(), *chat.tokens]
    tokens = list(dict.fromkeys([*control, *specials, *named.values()]))
    bpe = Tokenizer(models.BPE(unk_token="<unk>"))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=340, special_tokens=tokens, initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator(SENTENCES, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token=chat.eos,
        pad_token="<pad>",
        unk_token="<unk>",
        extra_special_tokens=named or [token for token in tokens if token not in control],
        padding_side="left",
        **more,
    )


def text(words: Any, **more: Any) -> dict[str, Any]:
    """Settings of a language model; `more` are the family's own."""
    settings = {
        "vocab_size": len(words),
        "hidden_size": WIDTH,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 1024,
        "pad_token_id": words.pad_token_id,
        "bos_token_id": None,
        "eos_token_id": words.eos_token_id,
        "tie_word_embeddings": False,
    }
    return settings | more


def vision(**more: Any) -> dict[str, Any]:
    """Settings of a tower that sees 32 x 32 pixels in patches of 8."""
    settings = {
        "hidden_size": WIDTH,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 32,
        "patch_size": 8,
    }
    return settings | more


def square(side: int = 32) -> dict[str, int]:
    """An image size as processors take it."""
    return {"height": side, "width": side}


def random_model(tiny: Tiny) -> Any:
    """A model of the configuration whose weights are random and wide, so that every input shows in the scores."""
    from transformers import AutoModelForImageTextToText

    with torch.random.fork_rng():
        torch.manual_seed(tiny.seed)
        model = AutoModelForImageTextToText.from_config(tiny.config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Gates that start closed would hide the image.
            closed = not name.endswith("bias") and not parameter.any()
            if parameter.ndim >= 2 or closed:
                generator = torch.Generator().manual_seed(tiny.seed + sum(map(ord, name)))
                parameter.normal_(0.0, tiny.spread, generator=generator)
    words = tiny.processor.tokenizer
    model.generation_config.eos_token_id = words.convert_tokens_to_ids([tiny.chat.eos, *tiny.chat.stops])
    model.generation_config.pad_token_id = words.pad_token_id
    return model.eval()
