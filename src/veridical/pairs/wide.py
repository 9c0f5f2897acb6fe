"""What a pair has beyond a prompt, images and two texts."""

from __future__ import annotations

from veridical.records import Pair


def wide_features(pair: Pair) -> set[str]:
    """What a pair has beyond a prompt, images and two texts, in the words of `Format.carries`."""
    has = {
        "others": bool(pair.others),
        "rejected_images": pair.rejected_images is not None or any(one.images is not None for one in pair.others),
        "weights": pair.weights is not None,
        "context": bool(pair.context),
        "spans": pair.spans is not None,
        "open_ended": pair.open_ended,
        "provenance": True,
    }
    return {name for name, there in has.items() if there}
