"""What an attack's success costs: fronts of ASR against drift, and costs compared at equal ASR.

A method's λ is a dial: each setting is a point (ASR, costs). Two methods are compared at levels of
ASR that were named on development pairs, inside the overlap of what both were drawn at. ASR is
made monotone in λ first (isotonic regression; settings that it merges are one point with their
mean costs), and costs are interpolated between neighbouring points only: there is no chord to the
clean model. The whole curve is redone in each resample of pairs.

References:
    The project's protocol: equal ASR, and claim 3 (selectivity).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import isotonic_regression

from redediting.evaluation.summary import Summary, by_pair
from redediting.metrics.intervals import ALPHA, RESAMPLES, Interval, over_clusters

COSTS = ("drift", "collateral")  # of the plots
GRID = 5  # fewest values of λ
_OUTSIDE = 0.05  # share of resamples in which a level may leave the overlap
Point = tuple[float, float]
Array = NDArray[np.float64]


class NotComparable(Exception):
    """Two methods cannot be compared at equal ASR; the message says why."""


@dataclass(frozen=True)
class Comparison:
    """Differences at equal ASR, ours minus theirs, mean over the levels.

    Attributes:
        gaps: by metric.
        levels: of ASR.
        overlap: of the two curves, lowest and highest ASR.
    """

    gaps: Mapping[str, Interval]
    levels: tuple[float, ...]
    overlap: tuple[float, float]


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


def curve(asr: Array, costs: Array) -> tuple[Array, Array]:
    """Points by rising ASR, monotone in λ.

    Args:
        asr: by rising λ, shape ``(settings,)``.
        costs: shape ``(settings, k)``.

    Returns:
        ASR, shape ``(points,)``, strictly rising, and mean costs, ``(points, k)``.
    """
    smooth = isotonic_regression(asr, increasing=False)
    levels, place = np.unique(smooth.round(12), return_inverse=True)
    counts = np.bincount(place)
    return levels, np.stack([np.bincount(place, c) / counts for c in costs.T], axis=1)


def at_equal_asr(
    rows: Sequence[Summary],
    ours: Mapping[str, float],
    theirs: Mapping[str, float],
    *,
    levels: Sequence[float],
    asr: str,
    costs: Sequence[str],
    alpha: float = ALPHA,
) -> Comparison:
    """Costs of one method minus another's at equal ASR, with intervals over pairs.

    Args:
        rows: of `redediting.evaluation.summary.summary_rows`.
        ours: λ of each setting by its title.
        theirs: likewise.
        levels: of ASR, named beforehand.
        asr: metric that is held equal.
        costs: metrics that are compared.
        alpha: 1 − level of the intervals.

    Raises:
        NotComparable: fewer than `GRID` values of λ, a metric or pair without values, or a level
            outside the overlap of the two curves (in more than 5 % of the resamples).
    """
    if not levels:
        raise NotComparable("needs ASR levels named on development pairs")
    if min(len(ours), len(theirs)) < GRID:
        raise NotComparable(
            f"needs at least {GRID} values of λ a method, got {len(ours)} and {len(theirs)}"
        )
    sides = [sorted(grid, key=lambda title: grid[title]) for grid in (ours, theirs)]
    tables = [
        [[by_pair(rows, metric, title) for metric in (asr, *costs)] for title in titles]
        for titles in sides
    ]
    every = [set(column) for table in tables for line in table for column in line]
    pairs = sorted(set.intersection(*every))
    if not pairs:
        raise NotComparable(f"needs {', '.join((asr, *costs))} of every setting on the same pairs")
    values = [np.array([[[c[p] for p in pairs] for c in line] for line in t]) for t in tables]
    known: dict[bytes, Array] = {}

    def gaps(weights: Array) -> Array:
        """Per resample: the differences, then whether a level left the overlap."""
        key = weights.tobytes()
        if key not in known:
            known[key] = np.array([_gaps(values, w / w.sum(), levels) for w in weights])
        return known[key]

    whole = np.ones((1, len(pairs)))
    low, high = _overlap([curve(v[:, 0].mean(1), v[:, 1:].mean(2))[0] for v in values])
    times = np.random.default_rng(0).multinomial(len(pairs), whole[0] / len(pairs), RESAMPLES)
    said = f"levels {_said(levels)}, overlap of the curves {low:.1%} … {high:.1%}"
    if gaps(whole)[0, -1]:
        raise NotComparable(f"not comparable: {said}")
    if (share := float(gaps(times.astype(float))[:, -1].mean())) > _OUTSIDE:
        raise NotComparable(f"not comparable: {said}, left in {share:.0%} of the resamples")
    alone = gaps(np.eye(len(pairs)))
    return Comparison(
        {
            cost: over_clusters(
                lambda weights, i=i: gaps(weights)[:, i],  # type: ignore[misc]
                alone[:, i].tolist(), n=len(pairs), alpha=alpha,
            )
            for i, cost in enumerate(costs)
        },
        tuple(levels), (low, high),
    )  # fmt: skip


def _gaps(values: Sequence[Array], weights: Array, levels: Sequence[float]) -> list[float]:
    """Differences of the costs at the levels, clipped to the overlap, and whether any was."""
    (one, ours), (two, theirs) = (curve(v[:, 0] @ weights, v[:, 1:] @ weights) for v in values)
    low, high = _overlap([one, two])
    inside = np.clip(levels, low, max(low, high))
    found = [
        float(np.mean(np.interp(inside, one, a) - np.interp(inside, two, b)))
        for a, b in zip(ours.T, theirs.T, strict=True)
    ]
    return [*found, float(low > high or bool((inside != levels).any()))]


def _overlap(curves: Sequence[Array]) -> tuple[float, float]:
    return max(float(c[0]) for c in curves), min(float(c[-1]) for c in curves)


def _said(levels: Sequence[float]) -> str:
    return ", ".join(f"{level:.0%}" for level in levels)
