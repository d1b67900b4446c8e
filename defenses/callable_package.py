"""Packages that are called as the function of their own name: ``defenses.audit(base=…)``.

A submodule is bound to its name in the parent package as soon as anything imports it, which would
replace a function of that name. So the package itself is made callable: ``from defenses import
audit`` means the same whatever was imported before it.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any


class CallablePackage(ModuleType):
    """A package whose call is that of one of its functions, imported when first used."""

    _place: str

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        """The function; ``inspect.signature`` and ``inspect.unwrap`` find it here."""
        module, _, name = self._place.partition(":")
        found: Callable[..., Any] = getattr(importlib.import_module(module), name)
        return found

    def __call__(self, *args: object, **options: object) -> Any:  # noqa: ANN401 - the function's
        """Calls the function."""
        return self.__wrapped__(*args, **options)


def make_callable(package: str, place: str) -> None:
    """Makes the package of a name callable as ``"module:function"``.

    The module must not have the function's name, or it would hide it.
    """
    module: Any = sys.modules[package]
    module.__class__ = CallablePackage
    module._place = place
