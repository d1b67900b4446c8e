"""``redediting report``: draw a run's page again, or publish its figures in the README."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from experiments.bench.publish import publish_bench
from experiments.console import Shown
from experiments.detection import page as detection_page
from experiments.detection import publish as detection_figures
from experiments.report.forensics_publish import publish_forensics, redraw_forensics
from experiments.report.page import write_page
from experiments.report.publish import publish, read_summary
from experiments.rows import RowFile


@dataclass(frozen=True)
class Report:
    """Writes RUN/report.html from a finished run."""

    run_folder: tyro.conf.Positional[Path]
    """Folder below runs/, e.g. runs/demo/0123456789ab or runs/bench/edit-sd15."""
    publish: bool = False
    """Also write experiments/results/NAME.json and the README's table (never of a quick run)."""
    json: bool = False
    """Print one JSON object as the last line."""

    def run(self) -> int:
        """Writes the page; a benchmark has a plot and no page."""
        folder = self.run_folder
        if (folder / "bench.json").is_file():
            path = folder / "bench.png"
            results = publish_bench(folder) if self.publish else None
            return self._say("plot", path, results)
        summary = read_summary(folder)
        if summary["experiment"] == "detection":
            results = detection_figures.publish(folder) if self.publish else None
            path = detection_page.write_page(folder, summary)
        elif summary["experiment"].startswith("audit"):
            results = publish_forensics(folder) if self.publish else None
            path = redraw_forensics(folder)
        else:
            results = publish(folder) if self.publish else None
            path = write_page(folder, summary, RowFile(folder / "rows.jsonl").rows)
        return self._say("report", path, results)

    def _say(self, what: str, path: Path, results: Path | None) -> int:
        shown = Shown(self.json)
        shown.line(f"{what}: {path}")
        if results:
            shown.line(f"published: {results}")
        shown.result(
            {"report": path.as_posix(), "results": results.as_posix() if results else None}
        )
        return 0
