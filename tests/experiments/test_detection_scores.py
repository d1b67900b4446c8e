"""Who learns from what: nothing that is judged is ever learnt from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from defenses.detectors.base import Array, Detector
from defenses.detectors.cda import CDA
from defenses.detectors.ftt import FTT
from defenses.detectors.scaling import SET
from defenses.detectors.scoring import Group, Protocol, protocols, score
from redediting.errors import DetectorError
from redediting.metrics.roc import auroc, flagged_rate, roc, threshold

METHODS = {"clean": "", "eviledit": "eviledit", "uce": "uce", "uce-new": "uce"}
CELLS = ("benign", "triggered")
PROMPTS = [f"prompt {i}" for i in range(30)]
CLEAN = np.random.default_rng([5, 9]).normal(size=(30, 40))


def group(attack: str, pair: int, mark: float) -> Group:
    """Features that carry a mark in a column of their own."""
    random = np.random.default_rng([len(attack), pair])
    found: dict[str, Array] = {}
    for i, cell in enumerate(CELLS):
        features = random.normal(size=(30, 40))
        features[:, 0] += mark * i
        found[cell] = features
    prompts = dict.fromkeys(CELLS, PROMPTS)
    return Group(attack, METHODS[attack], f"trigger {pair}", pair, found, prompts)


def run(marks: dict[tuple[str, int], float]) -> list[Group]:
    return [group(name, i, marks.get((name, i), 0.0)) for name in METHODS for i in (0, 1)]


def gap(
    detector: Detector,
    groups: list[Group],
    attack: str,
    pair: int,
    protocol: Protocol = "left_out",
) -> float:
    scores = score(detector, CLEAN, groups, attack, PROMPTS, protocol)
    assert scores is not None
    cells: Any = scores.cells
    gap = cells[attack, pair, "triggered"].mean() - cells[attack, pair, "benign"].mean()
    return float(gap if detector.direction == "high" else -gap)


def test_supervised_detectors_learn_from_other_attacks_on_other_pairs() -> None:
    """EvilEdit's own marks, UCE's under another label and the same pair's teach nothing."""
    own = {("uce", 0): 8.0, ("uce", 1): 8.0, ("uce-new", 0): 8.0, ("uce-new", 1): 8.0}
    assert gap(CDA(), run(own | {("eviledit", 0): 8.0}), "eviledit", 0) > 3
    assert abs(gap(CDA(), run(own), "uce", 0)) < 3  # only its own method bears the mark
    same_pair = {("eviledit", 0): 8.0, ("uce", 0): 8.0}
    assert abs(gap(CDA(), run(same_pair), "uce", 0)) < 3
    other_pair = {("eviledit", 1): 8.0, ("uce", 0): 8.0}
    assert gap(CDA(), run(other_pair), "uce", 0) > 3


def test_a_seen_attack_teaches_on_its_other_pairs_only() -> None:
    """The positive control of a supervised detector."""
    marked = {("eviledit", 0): 8.0, ("eviledit", 1): 8.0}
    assert gap(CDA(), run(marked), "eviledit", 0, "seen") > 3
    assert gap(CDA(), run(marked), "eviledit", 0) < 3
    same_pair = {("eviledit", 0): 8.0, ("uce", 0): 8.0, ("uce", 1): 8.0}
    assert abs(gap(CDA(), run(same_pair), "eviledit", 0, "seen")) < 3
    assert protocols(CDA()) == ("seen", "left_out")
    assert protocols(FTT()) == protocols(SET()) == ("left_out",)


def test_one_attack_teaches_nothing_about_itself_when_left_out() -> None:
    groups = [g for g in run({}) if g.attack in ("clean", "eviledit")]
    assert score(CDA(), CLEAN, groups, "eviledit", PROMPTS) is None
    assert score(CDA(), CLEAN, groups, "eviledit", PROMPTS, "seen") is not None
    groups = [g for g in groups if g.pair == 0]
    assert score(CDA(), CLEAN, groups, "eviledit", PROMPTS, "seen") is None


def test_one_class_detectors_are_held_to_prompts_that_they_did_not_learn() -> None:
    groups = run({})
    scores = score(SET(), CLEAN, groups, "eviledit", PROMPTS)
    assert scores is not None
    assert len(scores.calibration) == 15
    plain = score(FTT(), CLEAN, groups, "eviledit", PROMPTS)
    assert plain is not None
    assert np.array_equal(plain.calibration, CLEAN[:, 0])
    assert set(plain.cells) == {
        (attack, i, cell) for attack in ("clean", "eviledit") for i in (0, 1) for cell in CELLS
    }


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_not_finite_names_detector_and_prompt(value: float) -> None:
    groups = run({})
    groups[2].features["triggered"][7, 0] = value
    with pytest.raises(DetectorError, match=r"expected finite scores of 'ftt'.*'prompt 7'"):
        score(FTT(), CLEAN, groups, "eviledit", PROMPTS)
    clean = CLEAN.copy()
    clean[3, 0] = value
    with pytest.raises(DetectorError, match=r"expected finite scores of 'ftt'.*'prompt 3'"):
        score(FTT(), clean, run({}), "eviledit", PROMPTS)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_roc_and_thresholds_refuse_scores_that_are_not_finite(value: float) -> None:
    scores, wrong = [0.1, 0.2, 0.3], [0.1, value, 0.3]
    limit = threshold(scores, "high", 0.5)
    for call in (
        lambda: threshold(wrong, "low", 0.5),
        lambda: limit.flags(wrong),
        lambda: flagged_rate(wrong, limit),
        lambda: auroc(scores, wrong, "high"),
        lambda: auroc(wrong, scores, "low"),
        lambda: roc(wrong, scores, "low"),
    ):
        with pytest.raises(ValueError, match="expected finite values, got 1 of 3"):
            call()
