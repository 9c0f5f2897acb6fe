"""Finds out whether sharing is exact for a model of a family that no test covers."""

from __future__ import annotations

import dataclasses
import warnings
from typing import TYPE_CHECKING

from veridical.errors import Notice, UserError
from veridical.records import Message
from veridical.vlm.model.loading import Sharing, Vlm

if TYPE_CHECKING:
    from torch import Tensor

    from veridical.vlm.inputs.context import Context
    from veridical.vlm.prefix.encode import Prefix

# Per token: fp32 noise is 1e-6, a lost image or a wrong position 0.1 and more; bfloat16 noise lies between.
_TOLERANCE = 1e-3
_TOLERANCE_HALF = 0.25
_ANSWERS = ("Yes.", "There is a fork and a knife on the table.")


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
    warnings.warn(f"{vlm.name} ({vlm.family}): prefixes are not shared, because {reason}", Notice, stacklevel=4)
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


def shared_prompt_obstacle(vlm: Vlm) -> str:
    """Why prompts can't be read from a shared start, found on an example; empty if they can.

    Where image tokens see the question after them (PaliGemma), a start depends on what follows it.
    """
    import torch

    from veridical.vlm.prefix.shared_prompt import encode_together

    if vlm.sharing.reason:
        return vlm.sharing.reason
    contexts = [example("Is there a fork in the image?"), example("Describe it.")]
    try:
        with torch.no_grad():
            together, each = (_predictions(vlm, encode_together(vlm, contexts, apart=apart)) for apart in (False, True))
    except (RuntimeError, ValueError, TypeError, AttributeError, KeyError, IndexError) as error:
        return f"a shared start failed on the probe ({type(error).__name__}: {error})"
    difference = float((together - each).abs().max())
    return "" if difference <= tolerance(vlm) else f"a shared start differs by {difference:.2g} on the probe"


def _predictions(vlm: Vlm, prefix: Prefix) -> Tensor:
    import torch

    from veridical.vlm.scores.scoring import first_logits

    return torch.log_softmax(first_logits(vlm, prefix).float(), -1)


def answer_only_obstacle(vlm: Vlm) -> str:
    """Why the model can't have an answer-only adapter, known of its family or found on an example; empty if it can."""
    from veridical.vlm.model import support
    from veridical.vlm.model.alora import invocation_tokens

    if known := support.refusal(vlm.family, "answer_only_adapter"):
        return known
    try:
        invocation_tokens(vlm)
    except UserError as error:
        return str(error)
    return shared_prompt_obstacle(vlm)
