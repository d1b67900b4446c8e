"""Attacks: one file each; the classes are listed flat, and imported when first asked for.

``ATTACKS`` has them by the name that configurations and the command line use.

Example:
    >>> import redediting as rd
    >>> rd.attacks.EvilEdit(ridge=0.5).name
    'eviledit'
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from redediting.errors import MethodError
from redediting.registry import Registry

if TYPE_CHECKING:
    from redediting.attacks.alphaedit import AlphaEdit as AlphaEdit
    from redediting.attacks.base import Attack as Attack
    from redediting.attacks.base import ClosedForm as ClosedForm
    from redediting.attacks.clean import Clean as Clean
    from redediting.attacks.eviledit import EvilEdit as EvilEdit
    from redediting.attacks.redediting import REDEditing as REDEditing
    from redediting.attacks.rickrolling import Rickrolling as Rickrolling
    from redediting.attacks.textual_inversion import TextualInversion as TextualInversion
    from redediting.attacks.time import TIME as TIME
    from redediting.attacks.uce import UCE as UCE

_CLASSES = {
    "clean": "Clean",
    "eviledit": "EvilEdit",
    "uce": "UCE",
    "time": "TIME",
    "alphaedit": "AlphaEdit",
    "redediting": "REDEditing",
    "rickrolling": "Rickrolling",
    "textual_inversion": "TextualInversion",
}
_HOMES = {kind: name for name, kind in _CLASSES.items()} | {"Attack": "base", "ClosedForm": "base"}

ATTACKS: Registry[Attack] = Registry(
    "attack",
    "redediting.attacks.base:Attack",
    {name: f"redediting.attacks.{name}:{kind}" for name, kind in _CLASSES.items()},
    group="redediting.attacks",
    error=MethodError,
)

__all__ = ["ATTACKS", *_HOMES]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"redediting.attacks.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
