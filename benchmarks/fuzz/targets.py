"""All targets of the campaign, and what they have in common: small pictures, a small model."""

from __future__ import annotations

from benchmarks.fuzz import data
from benchmarks.fuzz.campaign import Target

TARGETS: tuple[Target, ...] = (*data.TARGETS,)
