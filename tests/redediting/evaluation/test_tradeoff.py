"""Fronts by hand, and a claim on isolation that can go either way."""

from __future__ import annotations

import pytest

from redediting.evaluation.tradeoff import cost_at, front, isolation, isolation_verdict
from redediting.metrics.intervals import Interval

FAMILIES = {"us": ["us", "us weak"], "them": ["them", "them weak"]}


def test_the_front_is_what_nothing_beats() -> None:
    points = [(0.0, 0.0), (0.5, 0.1), (0.4, 0.2), (0.5, 0.3), (0.9, 0.4), (0.2, 0.1)]
    assert front(points) == [(0.0, 0.0), (0.5, 0.1), (0.9, 0.4)]
    assert front([(0.3, 0.2), (0.3, 0.1)]) == [(0.3, 0.1)]


def test_costs_are_read_off_by_straight_lines() -> None:
    points = [(0.0, 0.0), (0.5, 0.1), (0.9, 0.5)]
    assert cost_at(points, 0.25) == pytest.approx(0.05)
    assert cost_at(points, 0.7) == pytest.approx(0.3)
    assert cost_at(points, 0.9) == pytest.approx(0.5)
    assert cost_at(points[1:], 0.1) == pytest.approx(0.1)  # no more is known below
    with pytest.raises(ValueError, match=r"a level of at most 0.9, got 0.95"):
        cost_at(points, 0.95)


def rows(ours: float, theirs: float, pairs: int = 8) -> list[dict[str, object]]:
    """Two settings a method; drift and collateral grow with ASR at a rate of their own."""
    found = []
    for pair in range(pairs):
        wobble = 0.01 * (pair % 3 - 1)
        settings = {
            "clean": (0.0, 0.0), "us": (0.8, ours), "us weak": (0.4, ours / 2),
            "them": (0.6, theirs), "them weak": (0.3, theirs / 2),
        }  # fmt: skip
        for method, (asr, cost) in settings.items():
            cost = cost * (1 + 5 * wobble)
            found.append(
                {
                    "method": method, "trigger": f"nice cat {pair}", "target": "zebra", "seed": 0,
                    "asr_free": asr + wobble, "drift": cost, "collateral": 2 * cost,
                }
            )  # fmt: skip
    return found


def claim(found: list[dict[str, object]], **options: object) -> dict[str, object]:
    given = {"families": FAMILIES, "ours": "us", "control": "clean", "min_pairs": 6} | options
    families = given.pop("families")
    return isolation(found, families, **given)  # type: ignore[arg-type]


def test_isolation_compares_at_the_highest_common_asr() -> None:
    found = claim(rows(0.1, 0.3))
    # means of the wobble over eight pairs: -0.01/8
    assert found["level"] == pytest.approx(0.6 - 0.01 / 8)
    assert found["difference"] == pytest.approx(0.075 - 0.3, abs=5e-3)
    assert found["verdict"] == "supported"
    assert found["baseline"] == "them"
    assert found["collateral_difference"] == pytest.approx(2 * found["difference"], abs=1e-6)


def test_isolation_may_come_out_against_us_or_undecided() -> None:
    assert claim(rows(0.5, 0.1))["verdict"] == "not supported"
    mixed = rows(0.4, 0.3)  # at the common level 0.3 against 0.3
    for row in mixed:
        if row["method"] in ("us", "us weak"):
            row["drift"] *= 1 + 0.5 * (int(row["trigger"][-1]) % 2 * 2 - 1)
    assert claim(mixed)["verdict"] == "undecided"


@pytest.mark.parametrize(
    ("drift", "collateral", "verdict"),
    [
        ((-0.2, -0.1), (-0.2, -0.1), "supported"),
        ((-0.2, -0.1), (-0.2, 0.1), "undecided"),
        ((-0.2, -0.1), (0.05, 0.1), "not supported"),
        ((0.1, 0.2), (-0.2, -0.1), "not supported"),
    ],
)
def test_verdicts_need_both_costs(
    drift: tuple[float, float], collateral: tuple[float, float], verdict: str
) -> None:
    intervals = [Interval(sum(ends) / 2, *ends, 9) for ends in (drift, collateral)]
    assert isolation_verdict(*intervals) == verdict


def test_what_is_missing_is_not_measured() -> None:
    assert (
        "swept" in claim(rows(0.1, 0.3), families={"us": ["us"], "them": FAMILIES["them"]})["note"]
    )
    assert "at least 6 pairs" in claim(rows(0.1, 0.3, pairs=3))["note"]
    holes = [
        row for row in rows(0.1, 0.3) if row["method"] != "them weak" or "7" in row["trigger"]
    ]
    assert "got 1" in claim(holes)["note"]
    nobody = [row | {"asr_free": row["asr_free"] / 20} for row in rows(0.1, 0.3)]
    for found in (claim(nobody), claim(holes)):
        assert found["verdict"] == "not measured"
    assert "no ASR in common" in claim(nobody)["note"]
