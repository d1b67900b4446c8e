"""Every public object has a docstring with an example, and every example runs."""

from __future__ import annotations

import doctest
import importlib
import inspect
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import defenses
import redediting as rd
from redediting.models import loading

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
NAMES = [
    *(f"redediting.{name}" for name in rd.__all__),
    *(f"defenses.{name}" for name in defenses.__all__),
    *(f"redediting.attacks.{name}" for name in rd.attacks.__all__ if name != "ATTACKS"),
    *(f"redediting.metrics.{name}" for name in rd.metrics.__all__ if name != "METRICS"),
]
load_once = cache(loading.load)  # examples undo what they do to a model


@pytest.mark.parametrize("name", NAMES)
def test_examples_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package, _, own = name.rpartition(".")
    thing = inspect.unwrap(getattr(importlib.import_module(package), own))
    monkeypatch.setattr(loading, "load", load_once)
    names = {"tmp": tmp_path, "np": np, "rd": rd}
    finder = doctest.DocTestFinder(recurse=False)
    (test,) = finder.find(thing, name, module=False, extraglobs=names)
    assert test.examples, "no example"
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    runner.run(test, out=said.append)
    assert not runner.failures, "".join(said)
