"""Editing methods by name: one file and one line here for each."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from redediting.attacks.alphaedit import AlphaEdit
from redediting.attacks.base import ClosedForm, EditMethod
from redediting.attacks.clean import Clean
from redediting.attacks.eviledit import EvilEdit
from redediting.attacks.redediting import RedEditing
from redediting.attacks.rickrolling import Rickrolling
from redediting.attacks.textual_inversion import TextualInversion
from redediting.attacks.time import TIME
from redediting.attacks.uce import UCE
from redediting.errors import MethodError
from redediting.registry import with_options

__all__ = ["METHODS", "ClosedForm", "EditMethod", "make_method"]

METHODS: Mapping[str, type[EditMethod]] = MappingProxyType(
    {
        "clean": Clean,
        "eviledit": EvilEdit,
        "uce": UCE,
        "time": TIME,
        "alphaedit": AlphaEdit,
        "redediting": RedEditing,
        "rickrolling": Rickrolling,
        "textual_inversion": TextualInversion,
    }
)


def make_method(name: str, **options: object) -> EditMethod:
    """Builds a method from its name and hyper-parameters.

    Raises:
        MethodError: an unknown name or option, or a value out of range.
    """
    if name not in METHODS:
        raise MethodError(f"expected a method of {', '.join(METHODS)}; got {name!r}")
    return with_options(METHODS[name], options, what=f"method {name!r}", error=MethodError)
