"""``redediting report``: draw a run's page again, print it, or publish its figures."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from experiments.engine.console import Shown
from redediting.errors import OutputError

if TYPE_CHECKING:
    from experiments.report.section import Report as Page


_PAGES = {"attack": "run_page", "ablation": "ablation_page", "detection": "detection_page",
          "audit": "audit_page"}  # fmt: skip


@dataclass(frozen=True)
class Report:
    """Prints the tables of a finished run and writes RUN/report.html."""

    run_folder: tyro.conf.Positional[Path]
    """Folder below runs/, e.g. runs/demo/0123456789ab or runs/bench/edit-sd15; or a published
    summary, e.g. experiments/results/attack.json, which is printed only."""
    publish: bool = False
    """Also write experiments/results/NAME.json and the table in docs/ (never of a quick run)."""
    json: bool = False
    """Print one JSON object as the last line."""

    def run(self) -> int:
        """Writes the page; a benchmark has a plot and no page."""
        from experiments.report.publish import read_summary

        folder = self.run_folder
        shown = Shown(self.json)
        results: Path | None = None
        if (folder / "bench.json").is_file():
            from experiments.bench.report import publish_bench

            results = publish_bench(folder) if self.publish else None
            path: Path | None = folder / "bench.png"
        else:
            summary = read_summary(folder)
            finished = folder.is_dir()
            page = page_of(summary, folder if finished else None)
            results = publish_run(folder, summary) if self.publish and finished else None
            path = page.write(folder / "report.html") if finished else None
            page.print(shown.console)
        if path:
            shown.line(f"report: {path}")
        if results:
            shown.line(f"published: {results}")
        shown.result(
            {
                "report": path.as_posix() if path else None,
                "results": results.as_posix() if results else None,
            }
        )
        return 0


def page_of(summary: dict[str, Any], folder: Path | None) -> Page:
    """The page of any experiment's run, or of a published summary; `OutputError` for others."""
    kind = _kind(summary)
    module: Any = import_module(f"experiments.{kind}.page")
    page: Page = getattr(module, _PAGES[kind])(summary, folder)
    return page


def publish_run(folder: Path, summary: dict[str, Any], *, root: Path | None = None) -> Path:
    """Publishes a finished run; see `experiments.report.publish.place`."""
    from experiments.report.publish import ROOT

    module: Any = import_module(f"experiments.{_kind(summary)}.page")
    path: Path = module.publish(folder, summary, root=root or ROOT)
    return path


def _kind(summary: dict[str, Any]) -> str:
    """``attack``, ``ablation``, ``detection`` or ``audit``; a published one shows by its keys."""
    name = str(summary.get("experiment", ""))
    if not {"rows", "experiment"} & set(summary):
        raise OutputError(
            f"expected the summary of an experiment, got a file with {sorted(summary)[:5]}; name "
            "a run folder or a file of experiments/results/"
        )
    if name.startswith("audit") or "suspects" in summary:
        return "audit"
    if name == "detection" or any("auroc" in row for row in summary.get("rows", [])[:1]):
        return "detection"
    if name in ("ablation", "development") or "foreseen" in summary:
        return "ablation"
    return "attack"
