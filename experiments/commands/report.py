"""``redediting report``: draw a run's page again, print it, or publish its figures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from experiments.engine.console import Shown


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
            from experiments.bench.publish import publish_bench

            results = publish_bench(folder) if self.publish else None
            path: Path | None = folder / "bench.png"
        else:
            from experiments.commands.pages import page_of, publish_run

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
