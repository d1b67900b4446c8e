"""``python -m experiments.detection CONFIG [--quick]``; a killed run continues."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from experiments.engine.console import Experiment, parse, run_main


@dataclass(frozen=True)
class Detection(Experiment):
    """Examines attacks x pairs with every detector; writes scores, the matrix and a report."""

    def run(self) -> int:
        """Runs the experiment."""
        from experiments.detection.config import DetectionConfig
        from experiments.detection.measure import detection
        from experiments.detection.page import detection_page, public
        from redediting.config import load_config
        from redediting.evaluation.panel import world_panel

        config = load_config(self.config, DetectionConfig).resolved(quick=self.quick)
        model, shown = (started := self.start(config.model)).model, started.shown
        summary = detection(config, model, world_panel(), out=self.out, progress=shown.progress)
        if summary:  # empty in processes other than the main one
            detection_page(summary).print(shown.console)
            shown.line(f"report: {summary['report']}")
            shown.result(public(summary))
        return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m experiments.detection``; returns the exit code."""
    return run_main(lambda: parse(Detection, arguments, prog="experiments.detection").run())


if __name__ == "__main__":
    sys.exit(main())
