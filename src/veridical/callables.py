"""Packages that are functions too: `veridical.align` holds the code of alignment, and `veridical.align(...)` aligns."""

from __future__ import annotations

import importlib
import inspect
import sys
from types import ModuleType
from typing import Any


def callable_as(package: str, target: str) -> None:
    """Let a call of `package`, which is being imported, be a call of `target`, `module:function`, imported then."""
    module, _, name = target.partition(":")

    def function() -> Any:
        return getattr(importlib.import_module(module), name)

    class Callable(ModuleType):
        def __call__(self, *arguments: Any, **named: Any) -> Any:
            return function()(*arguments, **named)

        @property
        def __signature__(self) -> inspect.Signature:
            return inspect.signature(function())

    sys.modules[package].__class__ = Callable
