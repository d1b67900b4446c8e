"""Editing methods by name: one file and one line here for each."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from pydantic import ValidationError

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
    try:
        return METHODS[name].model_validate(options)
    except ValidationError as error:
        first = error.errors()[0]
        option = ".".join(map(str, first["loc"]))
        known = ", ".join(METHODS[name].model_fields) or "none"
        raise MethodError(
            f"expected valid options of method {name!r}, got {option}={first['input']!r}: "
            f"{first['msg']}; its options are: {known}"
        ) from error
