"""``python -m experiments.attack CONFIG``; several processes: ``accelerate launch -m …``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from experiments.engine.console import Experiment, Shown, parse, pick_device, run_main

if TYPE_CHECKING:
    from experiments.engine.specs import AttackConfig


@dataclass(frozen=True)
class Attack(Experiment):
    """Measures methods x rebindings x seeds beside the clean model: rows, summary and page."""

    def run(self) -> int:
        """Runs the experiment."""
        from experiments.engine.specs import AttackConfig
        from redediting.config import load_config

        return self.measure(load_config(self.config, AttackConfig))

    def measure(self, config: AttackConfig) -> int:
        """Measures a configuration and shows the result."""
        from experiments.attack.measure import attack
        from experiments.attack.page import run_page
        from experiments.report.publish import public

        shown = Shown(self.json)
        device = pick_device(self.device)
        summary = attack(
            config, out=self.out, device=device, quick=self.quick, progress=shown.progress
        )
        if summary:  # empty in processes other than the main one
            run_page(summary).print(shown.console)
            shown.line(f"report: {summary['report']}")
            shown.result(public(summary))
        return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m experiments.attack``; returns the exit code."""
    return run_main(lambda: parse(Attack, arguments, prog="python -m experiments.attack").run())


if __name__ == "__main__":
    sys.exit(main())
