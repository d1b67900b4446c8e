"""``python -m experiments.ablation configs/ablation/world.yaml [--quick]``.

A row a switch, sweeps as fronts of ASR against drift, and many backdoors at once, solved jointly
and one after another. With ``configs/ablation/development.yaml`` it chooses every method's setting
on development pairs and prints it as YAML for an attack's ``methods``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from experiments.engine.console import Experiment, parse, run_main


@dataclass(frozen=True)
class Ablation(Experiment):
    """Switches, sweeps and numbers of backdoors: a table, plots and a report."""

    def run(self) -> int:
        """Runs the experiment."""
        from experiments.ablation.measure import ablate
        from experiments.ablation.page import ablation_page
        from experiments.engine.specs import AblationConfig
        from experiments.report.publish import public
        from redediting.config import load_config
        from redediting.evaluation.panel import world_panel

        config = load_config(self.config, AblationConfig).resolved(quick=self.quick)
        started = self.start(config.model)
        shown = started.shown
        summary = ablate(
            config, started.model, world_panel(), out=self.out, progress=shown.progress
        )
        if summary:  # empty in processes other than the main one
            ablation_page(summary).print(shown.console)
            shown.line(summary["choices_yaml"])
            shown.line(f"report: {summary['report']}")
            shown.result(public(summary))
        return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m experiments.ablation``; returns the exit code."""
    prog = "python -m experiments.ablation"
    return run_main(lambda: parse(Ablation, arguments, prog=prog).run())


if __name__ == "__main__":
    sys.exit(main())
