"""Every public object has a docstring with an example, and every example runs."""

from __future__ import annotations

import doctest
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import defenses
import redediting as rd
from defenses import detectors

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def documented() -> Iterator[tuple[str, object]]:
    """Public objects by name; a callable package stands for its function."""
    for name in rd.__all__:
        yield f"rd.{name}", getattr(rd, name)
    for name in defenses.__all__:
        yield f"defenses.{name}", inspect.unwrap(getattr(defenses, name))
    for package in (rd.attacks, rd.metrics, detectors):
        for name in package.__all__:
            found = getattr(package, name)
            if isinstance(found, type):
                yield f"{package.__name__}.{name}", found


@pytest.mark.parametrize(("name", "thing"), documented(), ids=lambda value: str(value)[:60])
def test_examples_run(
    name: str, thing: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    finder = doctest.DocTestFinder(recurse=False)
    names = {"tmp": tmp_path, "np": pytest.importorskip("numpy")}
    module = None if isinstance(thing, ModuleType) else False
    examples = [
        test
        for test in finder.find(thing, name, module=module, extraglobs=names)
        if test.examples
    ]
    assert examples, f"{name} has no example"
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    said: list[str] = []
    for test in examples:
        test.globs = dict(names)
        runner.run(test, out=said.append)
    assert not runner.failures, "".join(said)
