"""Editing methods by name: one file and one line here for each."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from redediting.editing.methods.alphaedit import AlphaEdit
from redediting.editing.methods.base import ClosedForm, EditMethod
from redediting.editing.methods.clean import Clean
from redediting.editing.methods.eviledit import EvilEdit
from redediting.editing.methods.redediting import RedEditing
from redediting.editing.methods.rickrolling import Rickrolling
from redediting.editing.methods.textual_inversion import TextualInversion
from redediting.editing.methods.time import TIME
from redediting.editing.methods.uce import UCE
from redediting.errors import MethodError
from redediting.options import with_options

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
