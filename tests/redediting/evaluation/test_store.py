"""The store: whole units only, whatever the writer's end was; a name that covers the code."""

from __future__ import annotations

import json
import linecache
from pathlib import Path

import numpy as np
import pytest

from redediting.config import Config
from redediting.errors import ConfigError, OutputError
from redediting.evaluation.store import ResultStore, Row


class Settings(Config):
    """What a run was asked for."""

    seed: int = 0


def rows(n: int = 2) -> list[Row]:
    return [{"index": i, "label": "zebra", "drift": 0.1 * i} for i in range(n)]


def open_store(root: Path, seed: int = 0, measured_by: tuple[object, ...] = ()) -> ResultStore:
    return ResultStore.create(
        root, "attack", config=Settings(seed=seed), base="ab", measured_by=measured_by
    )  # fmt: skip


def read(store: ResultStore) -> list[Row]:
    """Rows of a store as a new process reads them, without the units' names."""
    return [
        {key: value for key, value in row.items() if key != "unit"}
        for row in ResultStore(store.folder).rows()
    ]


def test_rows_and_arrays_come_back_as_written(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    features = np.arange(6, dtype=np.float32).reshape(2, 3)
    store.append("one", rows(), arrays={"free": features})
    store.append("two", rows(1))
    again = open_store(tmp_path)
    assert again.folder == store.folder
    assert again.done == ["one", "two"]
    assert "one" in again
    assert again.rows("two") == [{"unit": "two", **rows(1)[0]}]
    assert np.array_equal(again.arrays("one")["free"], features)
    assert again.arrays("two") == {}
    with pytest.raises(OutputError, match=r"expected a new unit, got 'one'"):
        again.append("one", rows())


@pytest.mark.parametrize("lost", [1, 30, 60, 120])
def test_a_torn_end_is_dropped_with_its_unit(tmp_path: Path, lost: int) -> None:
    store = open_store(tmp_path)
    store.append("one", rows())
    path = store.folder / "rows.jsonl"
    whole = path.read_bytes()
    store.append("two", rows())
    full = path.read_bytes()
    path.write_bytes(full[:-lost])
    assert read(store) == rows()
    mended = open_store(tmp_path)
    assert path.read_bytes() == whole
    mended.append("two", rows())
    assert path.read_bytes() == full


def test_a_unit_with_missing_rows_is_not_done(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.append("one", rows())
    store.append("two", rows())
    path = store.folder / "rows.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    assert ResultStore(store.folder).done == ["two"]
    open_store(tmp_path)
    assert len(path.read_text().splitlines()) == 3


def test_other_lines_are_not_rows(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.append("one", rows())
    path = store.folder / "rows.jsonl"
    path.write_text('{"set": "edit", "speed": 1}\nnot json\n' + path.read_text())
    assert read(store) == rows()
    open_store(tmp_path)
    assert read(store) == rows()
    assert len(path.read_text().splitlines()) == 3


def test_a_number_that_is_none_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    with pytest.raises(ValueError, match="JSON compliant"):
        store.append("one", [{"drift": float("nan")}])
    assert open_store(tmp_path).done == []


def test_an_exported_run_continues_elsewhere(tmp_path: Path) -> None:
    store = open_store(tmp_path / "here")
    store.append("one", rows(), arrays={"free": np.ones((2, 2))})
    file = store.export(tmp_path / "run.tar.gz")
    moved = ResultStore.load_export(file, tmp_path / "there")
    assert moved.done == ["one"]
    assert moved.folder == open_store(tmp_path / "there").folder
    with pytest.raises(OutputError, match="expected no run at"):
        ResultStore.load_export(file, tmp_path / "there")
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(OutputError, match="expected an exported run"):
        ResultStore.load_export(file, tmp_path / "third")


def test_a_name_covers_settings_and_the_sources_that_decide_a_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A changed statement in a source that is reached gives another name; a comment does not."""
    package = tmp_path / "lab"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "inner.py").write_text("def value():\n    return 1\n")
    (package / "outer.py").write_text("from lab.inner import value\n")
    monkeypatch.syspath_prepend(tmp_path)

    def name(seed: int = 0) -> str:
        return open_store(tmp_path / "runs", seed, ("lab.outer",)).folder.name

    first = name()
    assert name() == first
    assert name(seed=1) != first
    inner = package / "inner.py"
    inner.write_text('def value():\n    """Says one."""\n    return 1  # as before\n')
    assert name() == first
    inner.write_text("def value():\n    return 2\n")
    assert name() != first


def test_provenance_says_what_a_result_depends_on(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    made = json.loads((store.folder / "provenance.json").read_text())
    assert {"versions", "commit", "code", "device", "base", "quick", "schema_version"} <= set(made)
    with pytest.raises(OutputError, match="expected a finished run folder with summary"):
        store.json("summary.json")


def typed(text: str, cell: str) -> object:
    """An object of the class that a notebook's cell defines, run as IPython runs it."""
    linecache.cache[cell] = (len(text), None, text.splitlines(keepends=True), cell)
    names: dict[str, type] = {"__name__": "notebook"}  # type: ignore[dict-item]
    exec(compile(text, cell, "exec"), names)  # type: ignore[arg-type]
    return names["Mine"]()


def test_a_class_typed_into_a_notebook_is_part_of_the_name(tmp_path: Path) -> None:
    cell = "class Mine:\n    factor = {}\n\n    def run(self):\n        return self.factor{}\n"
    cells = [(1, ""), (1, "  # the same"), (2, "")]
    objects = [typed(cell.format(*ends), f"<cell {i}>") for i, ends in enumerate(cells)]
    one, same, other = (open_store(tmp_path, measured_by=(mine,)).folder for mine in objects)
    assert one == same != other
    linecache.cache.clear()
    with pytest.raises(ConfigError, match=r"expected the source of 'Mine'.*put the class into"):
        open_store(tmp_path, measured_by=tuple(objects))
