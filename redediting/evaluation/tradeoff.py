"""What an attack's success costs: fronts of ASR against drift, and the claim on isolation.

A method's λ is a dial: each setting is a point (ASR, cost). On the front of points that no other
one beats, the cost at an ASR is read off by straight lines; the clean model, which every dial
tends to, is a point of each. Two methods are compared at one ASR: the highest that all of them
reach on the very units (or resampled pairs) at hand.

References:
    The project's protocol, claim 3: "drift and collateral below every baseline's at equal ASR".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from redediting.evaluation.summary import Summary
from redediting.metrics.intervals import Interval, cluster_bootstrap

COSTS = ("drift", "collateral")
LEAST_LEVEL = 0.10  # of ASR; below it nothing is attacked, and nothing can be compared
Claim = dict[str, Any]
Point = tuple[float, float]


def front(points: Sequence[Point]) -> list[Point]:
    """Points (gain, cost) that no other one beats in both, by rising gain.

    Args:
        points: at least one; more gain and less cost are better.
    """
    kept: list[Point] = []
    for gain, cost in sorted(points, key=lambda point: (-point[0], point[1])):
        if not kept or cost < kept[-1][1]:
            kept.append((gain, cost))
    return kept[::-1]


def cost_at(points: Sequence[Point], level: float) -> float:
    """Cost at a gain, on straight lines between the points of the front.

    Args:
        points: at least one.
        level: below the front's least gain the cost is that of its first point.

    Raises:
        ValueError: a level that no point reaches.
    """
    gains, costs = zip(*front(points), strict=True)
    if level > gains[-1] + 1e-12:
        raise ValueError(f"expected a level of at most {gains[-1]:g}, got {level:g}")
    return float(np.interp(level, gains, costs))


def isolation(
    rows: Sequence[Summary],
    families: Mapping[str, Sequence[str]],
    *,
    ours: str,
    control: str,
    min_pairs: int,
) -> Claim:
    """Tests whether a method costs less than every other one at equal ASR.

    Supported where the 95 % intervals (pairs as resampling unit) of both differences, drift and
    collateral, lie below zero; not supported where one of them lies above.

    Args:
        rows: of `experiments.summary.summary_rows`.
        families: settings (titles) of each method by its title, itself among them.
        ours: whose claim it is.
        control: title of the clean model.
        min_pairs: fewest pairs for a verdict.
    """
    swept = {name: titles for name, titles in families.items() if len(titles) > 1}
    others = [name for name in swept if name != ours]
    if ours not in swept or not others:
        return _open("needs each method's λ swept, to compare at equal ASR; not in this run")
    columns = [control, *(title for name in (ours, *others) for title in swept[name])]
    values, pairs = _table(rows, columns)
    n = len(set(pairs))
    if n < max(2, min_pairs):
        return _open(f"needs at least {max(2, min_pairs)} pairs with all settings, got {n}")
    level = common_level(values, columns, swept, (ours, *others), control)
    if level < LEAST_LEVEL:
        return _open(f"the methods have no ASR in common above {level:.2f}; nothing to compare")
    found = {
        cost: cluster_bootstrap(
            values,
            pairs,
            lambda sample, cost=cost: _difference(  # type: ignore[misc]  # bound at definition
                sample, columns, swept, ours, others, control, cost
            ),
        )
        for cost in COSTS
    }
    each = {
        other: {
            cost: _difference(values, columns, swept, ours, [other], control, cost)
            for cost in COSTS
        }
        for other in others
    }
    best = max(others, key=lambda other: each[other]["drift"])
    return {
        "verdict": isolation_verdict(*found.values()),
        "difference": found["drift"].value,
        "ci": found["drift"].bounds,
        "baseline": best,
        "level": level,
        "collateral_difference": found["collateral"].value,
        "collateral_ci": found["collateral"].bounds,
        "against": each,
        "note": (
            f"drift at equal ASR ({level:.1%}, the highest that all reach) minus the best "
            f"baseline's; collateral {found['collateral'].value:+.3f} "
            f"({found['collateral'].low:+.3f} … {found['collateral'].high:+.3f}); {n} pairs, "
            f"{len(others)} baselines; alone against each at the highest ASR both reach: "
            + ", ".join(f"{name} {gap['drift']:+.4f}" for name, gap in each.items())
        ),
    }


def isolation_verdict(drift: Interval, collateral: Interval) -> str:
    """The verdict, from the two differences (ours minus the best baseline's)."""
    if drift.high < 0 and collateral.high < 0:
        return "supported"
    if drift.low > 0 or collateral.low > 0:
        return "not supported"
    return "undecided"


def common_level(
    values: NDArray[np.float64],
    columns: Sequence[str],
    families: Mapping[str, Sequence[str]],
    names: Sequence[str],
    control: str,
) -> float:
    """The highest mean ASR that every one of the named families reaches."""
    return min(
        max(gain for gain, _ in _points(values, columns, [control, *families[name]], "drift"))
        for name in names
    )


def _difference(
    values: NDArray[np.float64],
    columns: Sequence[str],
    families: Mapping[str, Sequence[str]],
    ours: str,
    others: Sequence[str],
    control: str,
    cost: str,
) -> float:
    """Our cost minus the least of the others', at the highest ASR that all reach."""
    level = common_level(values, columns, families, (ours, *others), control)
    costs = {
        name: cost_at(_points(values, columns, [control, *families[name]], cost), level)
        for name in (ours, *others)
    }
    return costs[ours] - min(costs[name] for name in others)


def _points(
    values: NDArray[np.float64], columns: Sequence[str], titles: Sequence[str], cost: str
) -> list[Point]:
    means = values.mean(axis=0)
    width = 1 + len(COSTS)
    places = [width * columns.index(title) for title in titles]
    shift = 1 + COSTS.index(cost)
    return [(float(means[place]), float(means[place + shift])) for place in places]


def _table(
    rows: Sequence[Summary], columns: Sequence[str]
) -> tuple[NDArray[np.float64], list[str]]:
    """One line a pair and seed on which all settings were measured: ASR and costs of each."""
    found: dict[tuple[str, str, int], dict[str, list[float]]] = {}
    for row in rows:
        numbers = [row["asr_free"], *(row[cost] for cost in COSTS)]
        if row["method"] in columns and None not in numbers:
            unit = (row["trigger"], row["target"], row["seed"])
            found.setdefault(unit, {})[row["method"]] = numbers
    whole = {unit: own for unit, own in found.items() if len(own) == len(set(columns))}
    lines = [[x for title in columns for x in own[title]] for own in whole.values()]
    return np.array(lines, dtype=np.float64), [f"{unit[0]}/{unit[1]}" for unit in whole]


def _open(note: str) -> Claim:
    return {
        "verdict": "not measured",
        "difference": None,
        "ci": None,
        "baseline": None,
        "note": note,
    }
