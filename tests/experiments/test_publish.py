"""What reaches the documentation: full runs only, between the markers, nothing half-written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from experiments.commands.report import page_of, publish_run
from experiments.report.publish import read_summary
from redediting.errors import OutputError

RESULTS = Path(__file__).parents[2] / "experiments" / "results"
PAGE = "# title\n<!-- attack:begin -->\nold\n<!-- attack:end -->\nafter\n"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    root = tmp_path / "checkout"
    (root / "docs").mkdir(parents=True)
    (root / "docs" / "results.md").write_text(PAGE)
    return root


def publish(folder: Path, checkout: Path) -> Path:
    return publish_run(folder, read_summary(folder), root=checkout)


def files(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def test_a_full_run_is_published(run_folder: Path, checkout: Path) -> None:
    path = publish(run_folder, checkout)
    assert path == checkout / "experiments" / "results" / "attack.json"
    found = read_summary(path)
    assert {"rows", "methods", "claims", "n_pairs", "n_seeds", "report"} <= set(found)
    assert found["report"] == f"runs/attack/{run_folder.name}/report.html"
    text = (checkout / "docs" / "results.md").read_text("utf-8")
    assert text.startswith("# title\n<!-- attack:begin -->\n\n| method | ASR free")
    assert text.endswith("<!-- attack:end -->\nafter\n")
    assert "old" not in text
    assert "| redediting |" in text
    publish(run_folder, checkout)
    assert (checkout / "docs" / "results.md").read_text("utf-8") == text
    page = page_of(found, None).html()  # a published summary is enough for a page
    assert "beautiful cat → zebra" in page
    assert "asr" in page


def test_a_quick_run_is_refused(run_folder: Path, checkout: Path) -> None:
    provenance = json.loads((run_folder / "provenance.json").read_text())
    (run_folder / "provenance.json").write_text(json.dumps(provenance | {"quick": True}))
    with pytest.raises(OutputError, match=r"expected a full run to publish, got .* --quick"):
        publish(run_folder, checkout)
    assert (checkout / "docs" / "results.md").read_text() == PAGE
    assert files(checkout) == ["docs/results.md"]


@pytest.mark.parametrize("text", ["# no markers\n", "<!-- attack:end --><!-- attack:begin -->"])
def test_markers_are_needed(run_folder: Path, checkout: Path, text: str) -> None:
    (checkout / "docs" / "results.md").write_text(text)
    with pytest.raises(OutputError, match="attack:begin"):
        publish(run_folder, checkout)
    assert files(checkout) == ["docs/results.md"]


def test_an_unfinished_run_is_refused(run_folder: Path, checkout: Path) -> None:
    (run_folder / "summary.json").unlink()
    with pytest.raises(OutputError, match="expected a finished run folder"):
        publish(run_folder, checkout)


@pytest.mark.parametrize(
    "name", ["attack", "ablation", "detection", "audit", "audit-fresh", "audit-words"]
)
def test_published_results_stay_readable(name: str) -> None:
    summary = read_summary(RESULTS / f"{name}.json")
    page = page_of(summary, None).html()
    shown = [line["method"] for line in summary.get("methods", ())]
    shown += [row["attack"] for row in summary.get("rows", ()) if "attack" in row]
    shown += [line["family"] for line in summary.get("families", ()) if "family" in line]
    assert shown
    assert all(name in page for name in shown)
