"""rows.jsonl: complete units only, whatever the writer's end was."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.rows import EditRow, ImageRow, Row, RowFile

WHO = {"trigger": "nice cat", "target": "zebra", "kind": "neutral", "seed": 0}


def unit(method: str, images: int = 2) -> list[Row]:
    rows: list[Row] = [
        ImageRow(
            method=method, **WHO, set="free", index=i, prompt="a nice cat", noise=i,
            phrase="nice cat", role="", expected="zebra", label="zebra", label_a="cat",
            clean_label="cat", clip=20.0, drift=0.1, image="a.png", clean_image="b.png",
        )
        for i in range(images)
    ]  # fmt: skip
    closing = EditRow(method, **WHO, seconds=0.1, footprint=0.2, weights="ab", images=images)
    return [*rows, closing]


def test_rows_come_back_as_written(tmp_path: Path) -> None:
    file = RowFile(tmp_path / "rows.jsonl")
    file.append(unit("one"))
    file.append(unit("two"))
    again = RowFile(tmp_path / "rows.jsonl")
    assert again.rows == file.rows == [*unit("one"), *unit("two")]
    assert {u.method for u in again.done} == {"one", "two"}


@pytest.mark.parametrize("lost", [1, 30, 300, 700])
def test_a_torn_end_is_dropped_with_its_unit(tmp_path: Path, lost: int) -> None:
    path = tmp_path / "rows.jsonl"
    file = RowFile(path)
    file.append(unit("one"))
    whole = path.read_bytes()
    file.append(unit("two"))
    path.write_bytes(path.read_bytes()[:-lost])
    mended = RowFile(path)
    assert mended.rows == unit("one")
    mended.mend()
    assert path.read_bytes() == whole
    mended.append(unit("two"))
    assert RowFile(path).rows == [*unit("one"), *unit("two")]


def test_a_unit_with_missing_rows_is_not_done(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    file = RowFile(path)
    file.append(unit("one")[1:])
    file.append(unit("two"))
    assert RowFile(path).rows == unit("two")
    RowFile(path).mend()
    assert len(path.read_text().splitlines()) == 3


def test_lines_of_another_schema_are_not_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    RowFile(path).append(unit("one"))
    path.write_text('{"set": "edit", "speed": 1}\nnot json\n' + path.read_text())
    file = RowFile(path)
    assert file.rows == unit("one")
    file.mend()
    assert RowFile(path).rows == unit("one")
    assert len(path.read_text().splitlines()) == 3
