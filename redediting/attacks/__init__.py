"""Attacks: one file each; the classes are listed flat, and imported when first asked for.

``ATTACKS`` has them by the name that configurations and the command line use.

Example:
    >>> import redediting as rd
    >>> rd.attacks.EvilEdit(ridge=0.5).name
    'eviledit'
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from redediting._lazy import lazy
from redediting.errors import MethodError
from redediting.registry import Registry

if TYPE_CHECKING:
    from redediting.attacks.alphaedit import AlphaEdit as AlphaEdit
    from redediting.attacks.base import Attack as Attack
    from redediting.attacks.base import ClosedForm as ClosedForm
    from redediting.attacks.clean import Clean as Clean
    from redediting.attacks.eviledit import EvilEdit as EvilEdit
    from redediting.attacks.rece import RECE as RECE
    from redediting.attacks.rededit_released import REDEditReleased as REDEditReleased
    from redediting.attacks.redediting import REDEditing as REDEditing
    from redediting.attacks.rickrolling import Rickrolling as Rickrolling
    from redediting.attacks.speed import SPEED as SPEED
    from redediting.attacks.textual_inversion import TextualInversion as TextualInversion
    from redediting.attacks.time import TIME as TIME
    from redediting.attacks.uce import UCE as UCE

_CLASSES = {
    "clean": "Clean",
    "eviledit": "EvilEdit",
    "uce": "UCE",
    "time": "TIME",
    "alphaedit": "AlphaEdit",
    "speed": "SPEED",
    "rece": "RECE",
    "rededit_released": "REDEditReleased",
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

__getattr__, __dir__ = lazy(__name__, _HOMES)
