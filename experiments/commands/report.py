"""``redediting report``: draw a run's page again, or publish its figures in the README."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from experiments.bench.publish import publish_bench
from experiments.console import Shown
from experiments.detecting import page as detection_page
from experiments.detecting import publish as detection_figures
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
        """Writes the page."""
        shown = Shown(self.json)
        if (self.run_folder / "bench.json").is_file():
            return self._bench(shown)
        summary = read_summary(self.run_folder)
        if summary["experiment"] == "detection":
            results = detection_figures.publish(self.run_folder) if self.publish else None
            path = detection_page.write_page(self.run_folder, summary)
        elif summary["experiment"] == "audit":
            results = publish_forensics(self.run_folder) if self.publish else None
            path = redraw_forensics(self.run_folder)
        else:
            results = publish(self.run_folder) if self.publish else None
            rows = RowFile(self.run_folder / "rows.jsonl").rows
            path = write_page(self.run_folder, summary, rows)
        shown.line(f"report: {path}")
        if results:
            shown.line(f"published: {results}")
        shown.result(
            {"report": path.as_posix(), "results": results.as_posix() if results else None}
        )
        return 0

    def _bench(self, shown: Shown) -> int:
        """A benchmark has a plot and no page."""
        path = self.run_folder / "bench.png"
        results = publish_bench(self.run_folder) if self.publish else None
        shown.line(f"plot: {path}")
        if results:
            shown.line(f"published: {results}")
        shown.result(
            {"report": path.as_posix(), "results": results.as_posix() if results else None}
        )
        return 0
