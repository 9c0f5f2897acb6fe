"""Finds out whether sharing is exact for a model of a family that no test covers."""

from __future__ import annotations

import dataclasses
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

from veridical.errors import UserError
from veridical.records import Message

if TYPE_CHECKING:
    from torch import Tensor

    from veridical.vlm.inputs.context import Context
    from veridical.vlm.model.loading import Vlm

# Per token: fp32 noise is 1e-6, a lost image or a wrong position 0.1 and more; bfloat16 noise lies between.
_TOLERANCE = 1e-3
_TOLERANCE_HALF = 0.25
_ANSWERS = ("Yes.", "There is a fork and a knife on the table.")


@dataclass(frozen=True, slots=True)
class Sharing:
    """Whether prefixes are shared: `reason` is empty if so, and says why not otherwise.

    `tested` is true for the families that the tests compare with separate forwards; for others `difference`
    is what a probe found when the model was loaded: the largest difference of a token's log-probability.
    """

    tested: bool
    reason: str = ""
    difference: float | None = None


def probed(vlm: Vlm) -> Vlm:
    """The model with what a comparison of shared and separate scores on one example says about it."""
    try:
        difference = _largest_difference(vlm)
    except UserError:
        raise
    except (RuntimeError, ValueError, TypeError, AttributeError, KeyError, IndexError) as error:
        return _unshared(vlm, f"sharing failed on the probe ({type(error).__name__}: {error})", None)
    if not difference <= tolerance(vlm):
        return _unshared(vlm, f"shared scores differ from separate ones by {difference:.2g} on the probe", difference)
    return dataclasses.replace(vlm, sharing=Sharing(tested=False, difference=difference))


def tolerance(vlm: Vlm) -> float:
    """By how much a token's log-probability may differ between shared and separate at the model's precision."""
    return _TOLERANCE if vlm.model.dtype.itemsize >= 4 else _TOLERANCE_HALF


def _unshared(vlm: Vlm, reason: str, difference: float | None) -> Vlm:
    warnings.warn(f"{vlm.name} ({vlm.family}): prefixes are not shared, because {reason}", stacklevel=4)
    return dataclasses.replace(vlm, sharing=Sharing(tested=False, reason=reason, difference=difference))


def _largest_difference(vlm: Vlm) -> float:
    import torch

    contexts = [example("Describe this image."), example("What is in it?")]
    alone = dataclasses.replace(vlm, sharing=Sharing(tested=False, reason="it is being probed"))
    with torch.no_grad():
        shared = _scores(vlm, contexts)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            separate = _scores(alone, contexts)
    return max(float((a - b).abs().max()) for a, b in zip(shared, separate, strict=True))


def _scores(vlm: Vlm, contexts: list[Context]) -> list[Tensor]:
    from veridical.vlm.prefix.encode import encode
    from veridical.vlm.scores.scoring import score

    scored = score(vlm, encode(vlm, contexts), [list(_ANSWERS), list(_ANSWERS)])
    return [answer for answers in scored for answer in answers]


def example(question: str) -> Context:
    """A question about a picture that needs no file."""
    import PIL.Image

    from veridical.vlm.inputs.context import Context

    image = PIL.Image.linear_gradient("L").convert("RGB").resize((224, 224))
    return Context(images=(image,), prompt=(Message("user", question),), key=("the probe",))
