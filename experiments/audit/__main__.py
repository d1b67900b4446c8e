"""``python -m experiments.audit CONFIG [--quick]``; a killed run continues where it stopped."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from experiments.engine.console import Experiment, parse, run_main


@dataclass(frozen=True)
class AuditExperiment(Experiment):
    """Audits edited and honest models, tries to hide and to remove edits; writes a report."""

    def run(self) -> int:
        """Runs the experiment."""
        from experiments.audit.config import AuditConfig
        from experiments.audit.measure import measure
        from experiments.audit.page import audit_page
        from redediting.config import load_config
        from redediting.evaluation.panel import world_panel

        config = load_config(self.config, AuditConfig).resolved(quick=self.quick)
        started = self.start(config.model)
        shown = started.shown
        summary = measure(
            config, started.model, world_panel(), out=self.out, progress=shown.progress
        )
        audit_page(summary).print(shown.console)
        shown.line(f"report: {summary['report']}")
        shown.result(summary)
        return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m experiments.audit``; returns the exit code."""
    prog = "python -m experiments.audit"
    return run_main(lambda: parse(AuditExperiment, arguments, prog=prog).run())


if __name__ == "__main__":
    sys.exit(main())
