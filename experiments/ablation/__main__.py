"""``python -m experiments.ablation configs/ablation/world.yaml [--quick]``.

A row a switch, sweeps as fronts of ASR against drift, and many backdoors at once, solved jointly
and one after another. With ``configs/ablation/development.yaml`` it chooses every method's setting
on development pairs and prints it as YAML for an attack's ``methods``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from experiments.engine.console import Experiment, run_experiment


@dataclass(frozen=True)
class Ablation(Experiment):
    """Switches, sweeps and numbers of backdoors: a table, plots and a report."""

    def run(self) -> int:
        """Runs the experiment."""
        from experiments.ablation.measure import ablate
        from experiments.ablation.page import ablation_page
        from experiments.engine.specs import AblationConfig
        from experiments.report.publish import public

        return self.measured(AblationConfig, ablate, ablation_page, public)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the experiment by a command line."""
    return run_experiment(Ablation, arguments, "experiments.ablation")


if __name__ == "__main__":
    sys.exit(main())
