"""What code a number depends on: the sources reachable from what measures it.

Modules are followed through their import statements, those inside functions too, within this
project's packages. Comments and docstrings do not count, nor do imports for type checkers alone.
A class of a registry is imported by name and so is not seen by this walk: whoever names a run
hands over the objects that it uses (attacks, detectors, metrics, layouts).
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from redediting.config import DATA

PACKAGES = ("redediting", "defenses", "experiments")
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
_APART = ("experiments.report", "experiments.commands")  # they show numbers and make none


def source_digest(roots: Iterable[object]) -> str:
    """12 hexadecimal digits over the sources reachable from objects, and the packaged tables.

    Args:
        roots: module names, or objects whose class's module counts.
    """
    names = {root if isinstance(root, str) else type(root).__module__ for root in roots}
    total = hashlib.sha256()
    for name in sorted(_reachable(names)):
        total.update(f"{name}\0{_normal(name)}\0".encode())
    for path in sorted(DATA.glob("*")):
        if path.suffix in (".yaml", ".txt"):
            total.update(path.name.encode() + b"\0" + path.read_bytes())
    return total.hexdigest()[:12]


def _reachable(names: Iterable[str]) -> set[str]:
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found and _path(name) is not None and not name.startswith(_APART):
            found.add(name)
            waiting += _imports(name)
    return found


@cache
def _path(name: str) -> Path | None:
    """The source file of a project's module; None for other names, and for plug-ins' files."""
    if name.split(".")[0] not in PACKAGES:
        return None
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:
        return None
    return Path(spec.origin) if spec and spec.origin else None


@cache
def _tree(name: str) -> ast.Module:
    path = _path(name)
    return ast.parse(path.read_text("utf-8") if path else "")


@cache
def _imports(name: str) -> tuple[str, ...]:
    return tuple(_walk(_tree(name)))


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


@cache
def _normal(name: str) -> str:
    """The module without comments and docstrings."""
    tree = ast.parse(ast.unparse(_tree(name)))
    for node in ast.walk(tree):
        if isinstance(
            node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        ) and (ast.get_docstring(node, clean=False) is not None):
            node.body = node.body[1:] or [ast.Pass()]
    return ast.dump(tree)
