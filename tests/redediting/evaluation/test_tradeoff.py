"""Fronts and curves by hand, and a comparison at equal ASR that can go either way."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from redediting.evaluation.tradeoff import NotComparable, at_equal_asr, curve, front

OURS = {f"us {x}": x for x in (0.1, 0.3, 1.0, 3.0, 10.0)}
THEIRS = {f"them {x}": x for x in (0.1, 0.3, 1.0, 3.0, 10.0)}


def test_the_front_is_what_nothing_beats() -> None:
    points = [(0.0, 0.0), (0.5, 0.1), (0.4, 0.2), (0.5, 0.3), (0.9, 0.4), (0.2, 0.1)]
    assert front(points) == [(0.0, 0.0), (0.5, 0.1), (0.9, 0.4)]
    assert front([(0.3, 0.2), (0.3, 0.1)]) == [(0.3, 0.1)]


def test_asr_is_made_monotone_and_merged_settings_are_one_point() -> None:
    asr, costs = curve(np.array([0.7, 0.9, 0.5, 0.1]), np.array([[4.0], [2.0], [1.0], [0.0]]))
    assert asr == pytest.approx([0.1, 0.5, 0.8])  # 0.7 and 0.9 are out of order: their mean
    assert costs[:, 0] == pytest.approx([0.0, 1.0, 3.0])


def rows(ours: float, theirs: float, *, pairs: int = 8, best: float = 0.9) -> list[dict[str, Any]]:
    """Five settings a method: ASR falls with λ, drift is ASR times a rate of the method's own."""
    found = []
    for pair in range(pairs):
        wobble = 0.02 * (pair % 3 - 1)
        for grid, cost, top in ((OURS, ours, 0.9), (THEIRS, theirs, best)):
            for i, title in enumerate(grid):
                asr = top - 0.15 * i + wobble
                found.append({
                    "method": title, "trigger": f"nice cat {pair}", "target": "zebra", "seed": 0,
                    "asr_free": asr, "drift": cost * asr * (1 + 5 * wobble), "acc": 1 - cost * asr,
                })  # fmt: skip
    return found


def compared(found: list[dict[str, Any]], **options: Any) -> Any:  # noqa: ANN401
    given = {"levels": (0.5, 0.7), "asr": "asr_free", "costs": ("drift", "acc")} | options
    return at_equal_asr(found, given.pop("ours", OURS), given.pop("theirs", THEIRS), **given)


def test_costs_are_compared_between_neighbours() -> None:
    found = compared(rows(0.1, 0.3))
    drift, acc = found.gaps["drift"], found.gaps["acc"]
    assert drift.value == pytest.approx(-0.2 * 0.6, abs=5e-3)
    assert acc.value == pytest.approx(0.2 * 0.6, abs=5e-3)
    assert drift.low <= drift.value <= drift.high < 0
    assert drift.clusters == 8
    assert found.overlap == pytest.approx((0.3, 0.9), abs=0.01)
    against = compared(rows(0.5, 0.1))
    assert against.gaps["drift"].low > 0


def test_a_level_is_never_read_off_outside_the_overlap() -> None:
    for levels, best in (((0.5, 0.95), 0.9), ((0.2,), 0.9), ((0.65,), 0.6), ((0.85,), 0.86)):
        with pytest.raises(NotComparable, match=r"not comparable: .* overlap of the curves"):
            compared(rows(0.1, 0.3, best=best), levels=levels)


def test_a_level_at_the_edge_leaves_the_overlap_in_resamples() -> None:
    with pytest.raises(NotComparable, match="of the resamples"):
        compared(rows(0.1, 0.3), levels=(0.8995 - 0.004,))


def test_what_is_missing_is_said() -> None:
    few = dict(list(OURS.items())[:4])
    with pytest.raises(NotComparable, match="at least 5 values of λ a method, got 4 and 5"):
        compared(rows(0.1, 0.3), ours=few)
    with pytest.raises(NotComparable, match="levels named on development pairs"):
        compared(rows(0.1, 0.3), levels=())
    with pytest.raises(NotComparable, match="needs asr_free, drift, clip_c of every setting"):
        compared(rows(0.1, 0.3), costs=("drift", "clip_c"))
