"""Which published defence catches which attack: attacks x detectors x kinds of trigger.

``python -m experiments.detection configs/detection/world.yaml [--quick]``; one process. A killed
run continues where it stopped.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from defenses.detectors.recording import map_shape
from experiments.console import run_main
from experiments.detection.config import DetectionConfig
from experiments.detection.page import draw_pictures, write_page
from experiments.detection.publish import public, show_table
from experiments.detection.run import DetectionRun
from experiments.detection.table import all_scores, attacks, rows, stealth
from experiments.engine.folder import replace_json
from experiments.engine.specs import load_config
from experiments.entry import Experiment
from experiments.judges import Panel, world_panel
from redediting.models.model import Model


@dataclass(frozen=True)
class Detection(Experiment):
    """Runs attacks x detectors x pairs and writes scores, the matrix and a report."""

    def run(self) -> int:
        """Runs the experiment."""
        config = load_config(self.config, DetectionConfig).resolved(quick=self.quick)
        started = self.start(config.model)
        shown = started.shown
        summary = detection(
            config, started.model, world_panel(), out=self.out, device=started.device,
            progress=shown.progress,
        )  # fmt: skip
        show_table(summary, as_json=self.json)
        shown.line(f"report: {summary['report']}")
        shown.result(public(summary))
        return 0


def detection(
    config: DetectionConfig,
    model: Model,
    panel: Panel,
    *,
    out: Path,
    device: str = "cpu",
    progress: bool = False,
) -> dict[str, Any]:
    """Measures a resolved configuration; writes summary and report.

    Args:
        config: resolved.
        model: the clean model.
        panel: the judges.
        out: where run folders lie.
        device: torch device of the model.
        progress: whether to show a bar.

    Returns:
        The summary.

    Raises:
        RedEditingError: whatever is wrong with the configuration, the model or the folder.
    """
    run = DetectionRun(config, model, panel, root=out, device=device)
    found = run(progress=progress)
    table = all_scores(config, run.detectors, found)
    lines = rows(config, run.detectors, found, table)
    sampler = config.sampler
    summary = {
        "experiment": config.experiment,
        "model": config.model,
        "rows": lines,
        "attacks": attacks(found, config),
        "claims": {"stealth": stealth(lines, found, config.stealth)},
        "n_pairs": len(run.pairs),
        "n_calibration": config.counts.calibration,
        "images": sum(len(f.record["rows"]) for f in found),
        "map_shape": list(map_shape(model, sampler)) if sampler else None,
        "report": (run.folder / "report.html").as_posix(),
    }
    replace_json(run.folder / "summary.json", summary)
    draw_pictures(run.folder, found, table, run.detectors, model.tokenizer)
    write_page(run.folder, summary)
    return summary


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m experiments.detection``; returns the exit code."""
    return run_main(lambda: tyro.cli(Detection, args=arguments, description=__doc__).run())


if __name__ == "__main__":
    sys.exit(main())
