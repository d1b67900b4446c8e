"""What code a number depends on: the sources reachable from what measures it.

Modules are followed through their import statements, those inside functions too, within this
project's packages; of a plug-in its own module counts. Comments and docstrings do not count, nor
do imports for type checkers alone. A class of a registry is imported by name and so is not seen by
this walk: whoever names a run hands over the objects that it uses (attacks, detectors, metrics,
layouts).
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import linecache
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from types import FunctionType, ModuleType

from redediting.config import DATA
from redediting.errors import ConfigError

PACKAGES = ("redediting", "defenses", "experiments")
_APART = ("experiments.report", "experiments.commands")  # they show numbers and make none


def source_digest(roots: Iterable[object]) -> str:
    """12 hexadecimal digits over the sources reachable from objects, and the packaged tables.

    Roots are module names, or objects whose class's module counts; of a class that was typed into
    a notebook its own source.
    """
    roots = list(roots)
    names = {root if isinstance(root, str) else type(root).__module__ for root in roots}
    total = hashlib.sha256()
    typed = {type(root) for root in roots if not isinstance(root, str | ModuleType)}
    for text in sorted(_typed(kind) for kind in typed if _path(kind.__module__) is None):
        total.update(text.encode() + b"\0")
    for name, path in sorted(_reachable(names).items()):
        total.update(f"{name}\0{_read(path, path.stat().st_mtime_ns)[0]}\0".encode())
    for path in sorted(DATA.glob("*")):
        if path.suffix in (".yaml", ".txt"):
            total.update(path.name.encode() + b"\0" + path.read_bytes())
    return total.hexdigest()[:12]


def _reachable(names: Iterable[str]) -> dict[str, Path]:
    """Modules and their files: a plug-in's own, and this project's as far as imports reach."""
    found: dict[str, Path] = {}
    waiting = [*names]
    own = {name.split(".")[0] for name in names} | set(PACKAGES)
    while waiting:
        name = waiting.pop()
        if name in found or name.split(".")[0] not in own or name.startswith(_APART):
            continue
        path = _path(name)
        if path is not None:
            found[name] = path
            waiting += _read(path, path.stat().st_mtime_ns)[1]
    return found


@cache
def _path(name: str) -> Path | None:
    """The source file of a module; None for names that are no modules."""
    if getattr(sys.modules.get(name), "__file__", None):
        return Path(str(sys.modules[name].__file__))
    try:
        spec = importlib.util.find_spec(name)
    except (ModuleNotFoundError, ValueError):
        return None
    return Path(spec.origin) if spec and spec.origin and spec.has_location else None


def _typed(kind: type) -> str:
    """A class without a file, as the notebook's cell that one of its functions is from has it."""
    for function in vars(kind).values():
        if isinstance(function, FunctionType):
            cell = ast.parse("".join(linecache.getlines(function.__code__.co_filename)))
            for node in ast.walk(cell):
                if isinstance(node, ast.ClassDef) and node.name == kind.__name__:
                    return _bare(node)
    raise ConfigError(
        f"expected the source of {kind.__name__!r}, which is part of a run's name, got none; put "
        "the class into a .py file and import it or name the file"
    )


@cache
def _read(path: Path, _changed: int) -> tuple[str, tuple[str, ...]]:
    """A module without comments and docstrings, and what it imports."""
    tree = ast.parse(path.read_text("utf-8"))
    imports = tuple(_walk(tree))
    return _bare(tree), imports


def _bare(tree: ast.AST) -> str:
    for node in ast.walk(tree):
        if isinstance(
            node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        ) and (ast.get_docstring(node, clean=False) is not None):
            node.body = node.body[1:] or [ast.Pass()]
    return ast.dump(tree)


def _walk(node: ast.AST) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            continue
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom) and child.module:
            yield child.module
            yield from (f"{child.module}.{alias.name}" for alias in child.names)
        yield from _walk(child)
