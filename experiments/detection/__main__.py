"""``python -m experiments.detection CONFIG [--quick]``; a killed run continues."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from experiments.engine.console import Experiment, run_experiment


@dataclass(frozen=True)
class Detection(Experiment):
    """Examines attacks x pairs with every detector; writes scores, the matrix and a report."""

    def run(self) -> int:
        """Runs the experiment."""
        from experiments.detection.config import DetectionConfig
        from experiments.detection.measure import detection
        from experiments.detection.page import detection_page, public

        return self.measured(DetectionConfig, detection, detection_page, public)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the experiment by a command line."""
    return run_experiment(Detection, arguments, "experiments.detection")


if __name__ == "__main__":
    sys.exit(main())
