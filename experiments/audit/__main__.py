"""``python -m experiments.audit CONFIG [--quick]``; a killed run continues where it stopped."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from experiments.engine.console import Experiment, run_experiment


@dataclass(frozen=True)
class AuditExperiment(Experiment):
    """Audits edited and honest models, tries to hide and to remove edits; writes a report."""

    def run(self) -> int:
        """Runs the experiment."""
        from experiments.audit.config import AuditConfig
        from experiments.audit.measure import measure
        from experiments.audit.page import audit_page

        return self.measured(AuditConfig, measure, audit_page)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the experiment by a command line."""
    return run_experiment(AuditExperiment, arguments, "experiments.audit")


if __name__ == "__main__":
    sys.exit(main())
