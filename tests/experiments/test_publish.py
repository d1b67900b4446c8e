"""What reaches the README: full runs only, between the markers, nothing half-written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from experiments.report.publish import publish
from redediting.errors import OutputError

README = "# title\n<!-- attack:begin -->\nold\n<!-- attack:end -->\nafter\n"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    root = tmp_path / "checkout"
    root.mkdir()
    (root / "README.md").write_text(README)
    return root


def test_a_full_run_is_published(run_folder: Path, checkout: Path) -> None:
    path = publish(run_folder, root=checkout)
    assert path == checkout / "experiments" / "results" / "attack.json"
    found = json.loads(path.read_text("utf-8"))
    assert {"rows", "methods", "claims", "n_pairs", "n_seeds", "report"} <= set(found)
    assert found["report"] == f"runs/attack/{run_folder.name}/report.html"
    text = (checkout / "README.md").read_text("utf-8")
    assert text.startswith("# title\n<!-- attack:begin -->\n| method | ASR free")
    assert text.endswith("<!-- attack:end -->\nafter\n")
    assert "old" not in text
    assert "| redediting |" in text
    publish(run_folder, root=checkout)
    assert (checkout / "README.md").read_text("utf-8") == text


def test_a_quick_run_is_refused(run_folder: Path, checkout: Path) -> None:
    provenance = json.loads((run_folder / "provenance.json").read_text())
    (run_folder / "provenance.json").write_text(json.dumps(provenance | {"quick": True}))
    with pytest.raises(OutputError, match=r"expected a full run to publish, got .* --quick"):
        publish(run_folder, root=checkout)
    assert (checkout / "README.md").read_text() == README
    assert [path.name for path in checkout.iterdir()] == ["README.md"]


@pytest.mark.parametrize("text", ["# no markers\n", "<!-- attack:end --><!-- attack:begin -->"])
def test_markers_are_needed(run_folder: Path, checkout: Path, text: str) -> None:
    (checkout / "README.md").write_text(text)
    with pytest.raises(OutputError, match="attack:begin"):
        publish(run_folder, root=checkout)
    assert [path.name for path in checkout.iterdir()] == ["README.md"]


def test_an_unfinished_run_is_refused(run_folder: Path, checkout: Path) -> None:
    (run_folder / "summary.json").unlink()
    with pytest.raises(OutputError, match="expected a finished run folder"):
        publish(run_folder, root=checkout)
