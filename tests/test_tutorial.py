"""The tutorial runs as it stands, and is committed without outputs."""

from __future__ import annotations

import time
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).resolve().parents[1] / "docs" / "tutorial.ipynb"


def test_it_is_committed_without_outputs() -> None:
    cells = [cell for cell in nbformat.read(NOTEBOOK, 4).cells if cell.cell_type == "code"]
    assert cells
    assert not any(cell.outputs or cell.execution_count for cell in cells)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # those of the kernel's own libraries
def test_it_runs(tmp_path: Path) -> None:
    notebook = nbformat.read(NOTEBOOK, 4)
    start = time.perf_counter()
    client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    assert time.perf_counter() - start < 400  # 180 s on two cores that have nothing else to do
    printed = str([cell.outputs for cell in notebook.cells if cell.cell_type == "code"])
    assert "'edited'" in printed
    assert "image/png" in printed
