"""Checked hyper-parameters: what every registry does with the options it is given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from redediting.errors import RedEditingError

Made = TypeVar("Made", bound=BaseModel)


def with_options(
    kind: type[Made], options: Mapping[str, object], *, what: str, error: type[RedEditingError]
) -> Made:
    """Builds an object from its options.

    Args:
        kind: a model of its options.
        options: by name.
        what: is built, for the message, e.g. ``"method 'uce'"``.
        error: raised instead of pydantic's.

    Raises:
        RedEditingError: of the class given: an unknown option, or a value out of range.
    """
    try:
        return kind.model_validate(options)
    except ValidationError as fault:
        first = fault.errors()[0]
        option = ".".join(map(str, first["loc"]))
        known = ", ".join(kind.model_fields) or "none"
        raise error(
            f"expected valid options of {what}, got {option}={first['input']!r}: "
            f"{first['msg']}; its options are: {known}"
        ) from fault
