"""Defences against edited text-to-image models.

``detect`` scores prompts on a suspect model, ``audit`` compares a suspect's weights with its
base's, ``repair`` computes a patch that takes an edit out again. ``detectors``, ``audit`` and
``repair`` are packages too; the latter two are called by their own names.

Arrows run one way: ``defenses`` may import ``redediting`` and never ``experiments``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

import redediting as redediting  # first of all: makes torchvision importable beside a CPU torch

if TYPE_CHECKING:
    from defenses.audit.front import audit as audit
    from defenses.detectors.detect import detect as detect
    from defenses.repair.front import repair as repair

__all__ = ["audit", "detect", "repair"]


def __getattr__(name: str) -> object:
    """Imports a function when it is first asked for."""
    if name == "detect":
        return importlib.import_module("defenses.detectors.detect").detect
    if name in __all__:
        return importlib.import_module(f"defenses.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
