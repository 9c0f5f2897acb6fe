"""What a model's `generation_config.json` asks of decoding, as far as its answers depend on it.

transformers' `generate` applies these settings to every answer, greedy ones too. The same are followed here, by
transformers' own code, and those that are not are named when the model is loaded. Settings of sampling (temperature,
top_p, top_k) are neither: veridical's own take their place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

_SHOWN = 80
_NOT_FOLLOWED: Mapping[str, tuple[Any, ...]] = {
    "num_beams": (None, 1),
    "num_beam_groups": (None, 1),
    "penalty_alpha": (None, 0),
    "min_length": (None, 0),
    "min_new_tokens": (None, 0),
    "forced_bos_token_id": (None,),
    "forced_eos_token_id": (None,),
    "encoder_repetition_penalty": (None, 1.0),
    "encoder_no_repeat_ngram_size": (None, 0),
    "sequence_bias": (None,),
    "exponential_decay_length_penalty": (None,),
    "guidance_scale": (None, 1.0),
    "stop_strings": (None,),
    "watermarking_config": (None,),
    "dola_layers": (None,),
}
"""Settings that change answers and are not followed, with the values that change nothing."""


@dataclass(frozen=True, slots=True)
class GenerationSettings:
    """Settings that are followed; the defaults change nothing."""

    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    suppress_tokens: tuple[int, ...] = ()
    begin_suppress_tokens: tuple[int, ...] = ()
    bad_words_ids: tuple[tuple[int, ...], ...] = ()

    def __bool__(self) -> bool:
        """Whether they change anything."""
        return self != GenerationSettings()


def read_settings(config: Any) -> tuple[GenerationSettings, list[str]]:
    """What a model's generation settings ask, and those that change answers and are not followed, as texts.

    `config` is a GenerationConfig or None. A setting that holds something else than it must is not followed.
    """
    if config is None:
        return GenerationSettings(), []
    given = {name: getattr(config, name, None) for name in (*_NOT_FOLLOWED, *_READERS)}
    ignored = [name for name, nothing in _NOT_FOLLOWED.items() if given[name] not in nothing]
    followed = {}
    for name, read in _READERS.items():
        if given[name] is None:
            continue
        try:
            followed[name] = read(given[name])
        except (TypeError, ValueError):
            ignored.append(name)
    return GenerationSettings(**followed), [f"{name}={given[name]!r}"[:_SHOWN] for name in ignored]


def _penalty(value: Any) -> float:
    if isinstance(value, bool) or not 0 < float(value) < float("inf"):
        raise ValueError
    return float(value)


def _size(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError
    return value


def _ids(value: Any) -> tuple[int, ...]:
    return tuple(_size(number) for number in value)


def _words(value: Any) -> tuple[tuple[int, ...], ...]:
    words = tuple(_ids(word) for word in value)
    if not all(words):
        raise ValueError
    return words


_READERS: Mapping[str, Callable[[Any], Any]] = MappingProxyType(
    {
        "repetition_penalty": _penalty,
        "no_repeat_ngram_size": _size,
        "suppress_tokens": _ids,
        "begin_suppress_tokens": _ids,
        "bad_words_ids": _words,
    }
)
"""The settings that are followed. Each reader raises TypeError or ValueError for what is none."""
