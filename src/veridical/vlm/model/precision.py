"""Mixed precision of training: weights that train are float32, and are computed with in the model's own type.

In bfloat16 an update smaller than 1/256 of a weight is rounded away, which at usual learning rates is most of them. So
trained weights are kept in float32, and matrix products run in the type that the model was loaded in (autocast).
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from veridical.errors import UserError

_HALF = (torch.bfloat16, torch.float16)


def compute_dtype(model: Any) -> torch.dtype:
    """The type that a model's matrix products run in: that of its half-precision weights, or float32."""
    return next((weight.dtype for weight in model.parameters() if weight.dtype in _HALF), torch.float32)


def train_in_float32(model: Any) -> None:
    """Cast every weight that requires gradients to float32, in place."""
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()


def autocast(model: Any, dtype: torch.dtype) -> AbstractContextManager[object]:
    """Run matrix products in `dtype`; changes nothing for float32."""
    return torch.autocast(model.device.type, dtype) if dtype in _HALF else nullcontext()


def refuse_float16(dtype: torch.dtype) -> None:
    """Raise UserError for float16, in which small gradients become zero."""
    if dtype == torch.float16:
        raise UserError(
            "Training in float16 would need its gradients scaled, which is not offered: small ones become zero. "
            "Give --dtype bfloat16, or float32."
        )
