"""One registry class for attacks, detectors, metrics, repairs and model layouts.

Built-in classes are named by ``"module:Class"`` and imported when first asked for. Plug-ins come
from an entry-point group (``redediting.attacks``, ``redediting.detectors``,
``redediting.metrics``, ``redediting.repairs``, ``redediting.layouts``) or from a Python file given
by its path.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Generic, TypeVar

from redediting.errors import RedEditingError
from redediting.io import digest

T = TypeVar("T")


class Registry(Generic[T]):
    """Classes of one kind by name; every refusal is of the registry's class of error.

    Args:
        what: the kind in messages, e.g. ``"attack"``.
        base: ``"module:Class"`` that a plug-in's class must derive from.
        built_in: ``"module:Class"`` by name, in the order of listings.
        group: entry-point group of plug-ins.
        error: raised for whatever is the caller's fault.
    """

    def __init__(
        self, what: str, base: str, built_in: Mapping[str, str], *,
        group: str, error: type[RedEditingError],
    ) -> None:  # fmt: skip
        self.what = what
        self._base = base
        self._built_in = dict(built_in)
        self._group = group
        self._error = error

    @property
    def names(self) -> tuple[str, ...]:
        """Built-in names, then those of installed plug-ins."""
        return (*self._built_in, *self._plugins)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def get(self, name: str) -> type[T]:
        """The class of a name, or the one class that a file ``….py`` defines."""
        self.check(name)
        if name.endswith(".py"):
            return self._from_file(Path(name))
        if name in self._built_in:
            return self._import(self._built_in[name])
        return self._checked(self._plugins[name].load(), self._plugins[name].value)

    def check(self, name: str) -> None:
        """Refuses a name that nothing has, or a file that is not there; imports nothing."""
        if not (Path(name).is_file() if name.endswith(".py") else name in self.names):
            raise self._error(
                f"expected {_article(self.what)} of {', '.join(self.names)}, or the path of a .py "
                f"file with one; got {name!r}"
            )

    def make(self, name: str, /, **options: object) -> T:
        """Builds an object from its name and keyword hyper-parameters, which are validated."""
        return self.get(name)(**options)

    @cached_property
    def _plugins(self) -> dict[str, EntryPoint]:
        found = {entry.name: entry for entry in entry_points(group=self._group)}
        if taken := [name for name in found if name in self._built_in]:
            raise self._error(
                f"expected plug-ins of {self._group!r} with names of their own, got {taken[0]!r} "
                f"from {found[taken[0]].value!r}, which is built in; rename or uninstall it"
            )
        return found

    def _import(self, place: str) -> type[T]:
        module, _, name = place.partition(":")
        found: type[T] = getattr(importlib.import_module(module), name)
        return found

    def _checked(self, kind: object, place: str) -> type[T]:
        base = self._import(self._base)
        if not (isinstance(kind, type) and issubclass(kind, base)):
            raise self._error(
                f"expected a subclass of {base.__name__} at {place!r}, got {kind!r}; mend it"
            )
        return kind

    def _from_file(self, path: Path) -> type[T]:
        base = self._import(self._base)
        try:
            name = f"{self.what}_{path.stem}_{digest(str(path.resolve()))}"
            spec = importlib.util.spec_from_file_location(name, path)
            if spec is None or spec.loader is None:
                raise ImportError(f"not a Python file: {path}")
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            sys.modules[name] = module  # where a run's name finds the source
        except (OSError, ImportError, SyntaxError) as error:
            raise self._error(
                f"expected a Python file with {_article(self.what)}, got {str(path)!r} ({error}); "
                "mend it"
            ) from error
        own = [value for value in vars(module).values() if isinstance(value, type)
               and issubclass(value, base) and value.__module__ == module.__name__]  # fmt: skip
        if len(own) != 1 or getattr(own[0], "name", "") in self._built_in:
            names = ", ".join(f"{k.__name__} ({getattr(k, 'name', '')})" for k in own) or "none"
            raise self._error(
                f"expected one {self.what} with a name of its own in {str(path)!r}, got {names}; "
                "define one class"
            )
        return own[0]


def _article(noun: str) -> str:
    return ("an " if noun[0] in "aeiou" else "a ") + noun
