"""Which published defence catches which attack: attacks x detectors x kinds of trigger."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState

from defenses.detectors.benchmark import Benchmark
from defenses.detectors.matrix import all_scores, attack_row, matrix, outcomes
from defenses.detectors.recording import map_shape
from experiments.detection.config import DetectionConfig
from experiments.detection.page import detection_page
from redediting.evaluation.detection import secondary, stealth
from redediting.evaluation.entries import CONTROL
from redediting.evaluation.panel import Panel
from redediting.evaluation.units import shared_store
from redediting.io import replace_arrays, replace_json
from redediting.metrics.judge import check_labels
from redediting.models.cards import default_sampler
from redediting.models.model import Model


def detection(
    config: DetectionConfig, model: Model, panel: Panel, *, out: Path, progress: bool = False
) -> dict[str, Any]:
    """Measures a resolved configuration; writes and (in the main process) returns the summary."""
    for pair in config.pairs.rebindings():
        check_labels(panel.judge, [pair.target_head])
    detectors, units = config.built(), config.units()
    used = [*detectors.values(), *(unit.edit for unit in units if unit.edit), panel.judge]
    sampler = config.sampler or default_sampler(config.model)
    store = shared_store(
        out, config.experiment, config=config, base=model.fingerprint(), quick=config.quick,
        measured_by=["defenses.detectors.benchmark", "experiments.detection.config", *used,
                     model.layout],
        device=str(model.device),
    )  # fmt: skip
    run = Benchmark(
        model, panel, detectors, units, store, counts=config.counts, sampler=sampler,
        seed=config.seed,
    )  # fmt: skip
    found = run(progress=progress)
    if not PartialState().is_main_process:
        return {}
    table = all_scores(run, found)
    rows = matrix(run, found, table)
    spec, folder = config.stealth, store.folder
    titles = [attack.title for attack in config.attacks]
    summary = {
        "experiment": config.experiment,
        "model": config.model,
        "rows": rows,
        "attacks": [attack_row(title, found) for title in (CONTROL, *titles)],
        "claims": {
            "stealth": {
                "baseline": spec.plain,
                "secondary": secondary(rows, spec.plain, spec.projected, spec.rival),
                **stealth(
                    outcomes(found, spec.plain), outcomes(found, spec.projected),
                    titles=(spec.plain, spec.projected), min_pairs=spec.min_pairs,
                ),
            }
        },
        "n_pairs": len(config.pairs.rebindings()),
        "n_calibration": config.counts.calibration,
        "images": sum(len(f.rows) for f in found),
        "map_shape": list(map_shape(model, sampler)),
        "quick": config.quick,
        "report": (folder / "report.html").as_posix(),
    }  # fmt: skip
    shown = {
        f"{title}/{protocol}/{attack}/{name}": np.concatenate(
            [own for (who, _, cell), own in scores.cells.items() if (who, cell) == (attack, name)]
        )
        for (attack, title, protocol), scores in table.items()
        for name in ("benign", "triggered")
    }
    replace_arrays(folder / "scores.npz", shown)
    replace_json(folder / "summary.json", summary)
    detection_page(summary, folder).write(folder / "report.html")
    return summary
