"""Who learns from what: nothing that is judged is ever learnt from."""

from __future__ import annotations

from typing import Any

import numpy as np

from defenses.detectors.base import Array, Detector
from defenses.detectors.cda import CDA
from defenses.detectors.ftt import FTT
from defenses.detectors.scaling import SET
from experiments.detection.config import DetectionConfig
from experiments.detection.run import Found, Unit
from experiments.detection.scores import score
from redediting.concepts.rebinding import Rebinding

CONFIG = DetectionConfig.model_validate(
    {
        "attacks": ["eviledit", "uce", {"name": "uce", "label": "uce-new"}],
        "detectors": ["cda"],
    }
)
WISHES = (Rebinding("beautiful cat", "zebra"), Rebinding("old dog", "car"))


def unit(attack: str, position: int | None, mark: float, width: int = 40) -> Found:
    """A unit whose features carry its mark in a column of their own."""
    wish = None if position is None else WISHES[position]
    random = np.random.default_rng([len(attack), 9 if position is None else position])
    arrays: dict[str, Array] = {}
    for i, cell in enumerate(["calibration"] if wish is None else ["benign", "triggered"]):
        features = random.normal(size=(30, width))
        features[:, 0] += mark * i
        arrays[f"x/{cell}"] = features
    return Found(Unit(attack, wish, position or 0), {"rows": []}, arrays)


def run(marks: dict[tuple[str, int], float]) -> list[Found]:
    names = ("clean", "eviledit", "uce", "uce-new")
    units = [unit(name, i, marks.get((name, i), 0.0)) for name in names for i in (0, 1)]
    return [unit("clean", None, 0.0), *units]


def gap(detector: Detector, found: list[Found], attack: str, position: int) -> float:
    scores = score(CONFIG, detector, "x", found, attack)
    assert scores is not None
    cells: Any = scores.cells
    return float(
        cells[attack, position, "triggered"].mean() - cells[attack, position, "benign"].mean()
    )


def test_supervised_detectors_learn_from_other_attacks_on_other_pairs() -> None:
    """EvilEdit's own marks, UCE's under another label and the same pair's teach nothing."""
    own = {("uce", 0): 8.0, ("uce", 1): 8.0, ("uce-new", 0): 8.0, ("uce-new", 1): 8.0}
    assert gap(CDA(), run(own | {("eviledit", 0): 8.0}), "eviledit", 0) > 3
    assert abs(gap(CDA(), run(own), "uce", 0)) < 3  # only its own method bears the mark
    same_pair = {("eviledit", 0): 8.0, ("uce", 0): 8.0}
    assert abs(gap(CDA(), run(same_pair), "uce", 0)) < 3
    other_pair = {("eviledit", 1): 8.0, ("uce", 0): 8.0}
    assert gap(CDA(), run(other_pair), "uce", 0) > 3


def test_one_attack_teaches_nothing_about_itself() -> None:
    alone = DetectionConfig.model_validate({"attacks": ["eviledit"], "detectors": ["cda"]})
    found = [f for f in run({}) if f.unit.attack in ("clean", "eviledit")]
    assert score(alone, CDA(), "x", found, "eviledit") is None


def test_one_class_detectors_are_held_to_prompts_that_they_did_not_learn() -> None:
    found = run({})
    scores = score(CONFIG, SET(), "x", found, "eviledit")
    assert scores is not None
    assert len(scores.calibration) == 15
    plain = score(CONFIG, FTT(), "x", found, "eviledit")
    assert plain is not None
    assert np.array_equal(plain.calibration, found[0].arrays["x/calibration"][:, 0])
    assert set(plain.cells) == {
        (attack, i, cell)
        for attack in ("clean", "eviledit")
        for i in (0, 1)
        for cell in ("benign", "triggered")
    }
