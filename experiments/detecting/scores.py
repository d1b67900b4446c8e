"""From features to scores: detectors that learn are fitted here, on nothing that they judge.

One-class detectors learn from the first half of the calibration prompts and take their threshold
from the second. Supervised ones learn from the same half and from the triggered prompts of *other*
attacks: those made by the same method are left out, whatever their options.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from defenses.detectors import Array, Detector
from experiments.config import CONTROL
from experiments.detecting.cells import Cell
from experiments.detecting.config import DetectionConfig
from experiments.detecting.run import Found


@dataclass(frozen=True)
class Scores:
    """Scores of one detector against one attack.

    Attributes:
        calibration: of clean prompts on the clean model; thresholds come from these.
        cells: by (attack or ``clean``, pair's position, cell).
    """

    calibration: Array
    cells: Mapping[tuple[str, int, Cell], Array]


def score(
    config: DetectionConfig, detector: Detector, title: str, found: Sequence[Found], attack: str
) -> Scores | None:
    """Scores of a detector where an attack is judged.

    Args:
        config: of the run.
        detector: whose features.
        title: under which the run kept them.
        found: all units.
        attack: the one judged; the clean model is scored on the same triggers.

    Returns:
        The scores; None for a supervised detector without another attack to learn from.
    """
    features = [
        f.arrays[f"{title}/calibration"].astype(np.float64) for f in found if f.unit.wish is None
    ]
    clean = np.concatenate(features)
    if detector.learns == "nothing":
        fitting, held = clean[:0], clean
    else:
        fitting, held = clean[: len(clean) // 2], clean[len(clean) // 2 :]
    examples = None
    if detector.learns == "labelled":
        names = {spec.title: spec.name for spec in config.attacks}
        others = [
            f.arrays[f"{title}/triggered"].astype(np.float64)
            for f in found
            if f.unit.attack != CONTROL and names[f.unit.attack] != names[attack]
        ]
        if not others:
            return None
        examples = np.concatenate(others)
    scorer = detector.learn(fitting, examples)
    wanted = {f.unit.wish: f.unit for f in found if f.unit.attack == attack}
    cells: dict[tuple[str, int, Cell], Array] = {}
    for f in found:
        if f.unit.wish not in wanted or f.unit.attack not in (attack, CONTROL):
            continue
        for cell in ("benign", "triggered"):
            own = f.arrays[f"{title}/{cell}"].astype(np.float64)
            cells[(f.unit.attack, f.unit.position, cell)] = scorer(own)
    return Scores(scorer(held), cells)
