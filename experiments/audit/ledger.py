"""``rows.jsonl`` of a forensics run: one row a suspect or measurement, found again by its id."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from experiments.engine.folder import replace_text, writing

Row = dict[str, Any]


class Ledger:
    """Rows by id, in the order written; a line that a killed run tore is dropped.

    Attributes:
        path: the file.
        rows: what it holds.
    """

    def __init__(self, path: Path) -> None:
        """Reads what is there and mends it."""
        self.path = path
        self.rows: dict[str, Row] = {}
        text = path.read_text("utf-8", errors="replace") if path.is_file() else ""
        for line in text.splitlines():
            try:
                row = json.loads(line)
                self.rows[row["id"]] = row
            except (ValueError, KeyError, TypeError):
                continue
        whole = "".join(_line(row) for row in self.rows.values())
        if whole != text:
            replace_text(path, whole)

    def __contains__(self, key: object) -> bool:
        """Whether a row of that id is there."""
        return key in self.rows

    def append(self, row: Row) -> None:
        """Adds a row in one write.

        Raises:
            OutputError: the file cannot be written.
        """
        with writing(self.path), self.path.open("ab", buffering=0) as file:
            file.write(_line(row).encode())
            os.fsync(file.fileno())
        self.rows[row["id"]] = row

    def of(self, stage: str) -> list[Row]:
        """Rows of a stage."""
        return [row for row in self.rows.values() if row["stage"] == stage]


def _line(row: Row) -> str:
    return json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"
