"""``python -m experiments.attack CONFIG``; several processes: ``accelerate launch -m …``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from experiments.engine.console import (
    Experiment,
    JudgeOptions,
    Shown,
    pick_device,
    run_experiment,
)


@dataclass(frozen=True)
class Attack(JudgeOptions, Experiment):
    """Measures methods x rebindings x seeds beside the clean model: rows, summary and page."""

    def run(self) -> int:
        """Runs the experiment."""
        from experiments.attack.measure import attack
        from experiments.attack.page import run_page
        from experiments.engine.specs import AttackConfig
        from experiments.report.publish import public
        from redediting.config import load_config

        config = self.judged(load_config(self.config, AttackConfig))
        shown = Shown(self.json)
        device = pick_device(self.device)
        summary = attack(
            config, out=self.out, device=device, quick=self.quick, progress=shown.progress
        )
        return shown.run(summary, run_page, public)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the experiment by a command line."""
    return run_experiment(Attack, arguments, "experiments.attack")


if __name__ == "__main__":
    sys.exit(main())
