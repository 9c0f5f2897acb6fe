"""All targets of the campaign."""

from __future__ import annotations

from benchmarks.fuzz import data, evaluation, models, state
from benchmarks.fuzz.campaign import Target

TARGETS: tuple[Target, ...] = (*data.TARGETS, *evaluation.TARGETS, *state.TARGETS, *models.TARGETS)
