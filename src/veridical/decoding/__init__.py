"""Hallucination mitigated at decoding: contrast, OPERA, calibration and best-of-N, one file a method.

The methods' classes are here by name (`decoding.Vcd`), and as `veridical.decoding` the package is the decorator for a
method of one's own.
"""

from __future__ import annotations

from typing import Any

from veridical.callables import callable_as

callable_as(__name__, "veridical.authoring:decoding")


def __getattr__(name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(name)
    from veridical.decoding.registry import DECODINGS

    return DECODINGS.attribute(__name__, name)


def __dir__() -> list[str]:
    from veridical.decoding.registry import DECODINGS

    return DECODINGS.attributes()
