"""Intervals: a rate, a mean, a difference and a cluster bootstrap, each with its n.

Within one pair a rate has Wilson's interval and a difference by noise Newcombe's; across pairs the
pair is the resampling unit, because images of one edit are not independent. All are 95 %. A value
that is not finite is refused: no figure is made of a measurement that failed.

References:
    Wilson, "Probable inference, the law of succession, and statistical inference", 1927.
    Newcombe, "Improved confidence intervals for the difference between binomial proportions based
    on paired data", Statistics in Medicine 17, 1998 (method 10).
    Efron, "Better bootstrap confidence intervals", 1987 (BCa, as in `scipy.stats.bootstrap`).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

_LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval."""

    value: float  # the estimate
    low: float  # lower end
    high: float  # upper end
    n: int  # samples it rests on
    clusters: int | None = None  # resampling units (pairs) where these are not the samples

    @property
    def bounds(self) -> list[float]:
        """``[low, high]``, the form of the ``*_ci`` keys in a summary."""
        return [self.low, self.high]


def finite(values: ArrayLike) -> NDArray[np.float64]:
    """The values in fp64.

    Raises:
        ValueError: a value is NaN or infinite.
    """
    array = np.asarray(values, dtype=np.float64)
    if bad := int((~np.isfinite(array)).sum()):
        raise ValueError(
            f"expected finite values, got {bad} of {array.size} that are not; "
            "mend the measurement that gave them"
        )
    return array


def wilson(k: int, n: int) -> Interval:
    """The rate of k successes in n trials with Wilson's score interval.

    Raises:
        ValueError: no trials, or more successes than trials.
    """
    if n < 1 or not 0 <= k <= n:
        raise ValueError(f"expected 0 <= successes <= trials and trials >= 1, got {k} of {n}")
    ends = stats.binomtest(k, n).proportion_ci(_LEVEL, method="wilson")
    return Interval(k / n, float(ends.low), float(ends.high), n)


def bootstrap_mean(values: ArrayLike, *, resamples: int = 2000, seed: int = 0) -> Interval:
    """The mean of n >= 2 independent values with its BCa bootstrap interval.

    Raises:
        ValueError: fewer than two values, or one that is not finite.
    """
    array = finite(values)
    if array.ndim != 1 or len(array) < 2:
        raise ValueError(f"expected a list of at least 2 values, got shape {array.shape}")
    ends = bootstrap_ends((array,), np.mean, resamples=resamples, seed=seed, vectorized=True)
    return Interval(float(array.mean()), *ends, len(array))


def cluster_bootstrap(
    values: ArrayLike,
    clusters: Sequence[Hashable],
    statistic: Callable[[NDArray[np.float64]], float] = np.mean,
) -> Interval:
    """A statistic with the BCa bootstrap interval over whole clusters.

    Clusters are drawn with replacement, each with all its values. When every cluster says the same
    the interval has no width: that is agreement between the clusters seen, not certainty, and
    fewer than about ten clusters make any such interval rough.

    Args:
        values: (n,) or (n, columns): several columns for a statistic of several, e.g. a ratio.
        clusters: n labels; values of one label stay together.
        statistic: from values of the same form to a number.

    Raises:
        ValueError: lengths differ, fewer than two clusters, or a value that is not finite.
    """
    array = finite(values)
    labels = list(dict.fromkeys(clusters))
    if len(array) != len(clusters) or len(labels) < 2:
        raise ValueError(
            f"expected a cluster for each value and at least 2 clusters, got {len(array)} values "
            f"and {len(labels)} clusters; within one cluster use wilson or bootstrap_mean"
        )
    rows: dict[Hashable, list[int]] = {label: [] for label in labels}
    for row, label in enumerate(clusters):
        rows[label].append(row)
    groups = [array[rows[label]] for label in labels]
    sums, counts = (np.array([f(group) for group in groups]) for f in (np.sum, len))

    def mean_of_clusters(drawn: NDArray[np.intp], axis: int = -1) -> NDArray[np.float64]:
        return sums[drawn].sum(axis) / counts[drawn].sum(axis)

    def of_clusters(drawn: NDArray[np.intp]) -> float:
        return float(statistic(np.concatenate([groups[i] for i in drawn])))

    # a table holds dozens of means: theirs need no Python call a resample
    fast = statistic is np.mean and array.ndim == 1
    drawn_from = (np.arange(len(groups)),)
    ends = bootstrap_ends(drawn_from, mean_of_clusters if fast else of_clusters, vectorized=fast)
    return Interval(float(statistic(array)), *ends, len(array), len(groups))


def over_clusters(values: Sequence[float], clusters: Sequence[object]) -> Interval | None:
    """A mean, with its interval where there are several clusters; None without values."""
    if not len(values):
        return None
    labels = [str(cluster) for cluster in clusters]
    if len(set(labels)) < 2:
        return Interval(float(finite(values).mean()), math.nan, math.nan, len(values))
    return cluster_bootstrap(values, labels)


def paired_difference(
    after: ArrayLike, before: ArrayLike, *, clusters: Sequence[Hashable]
) -> Interval:
    """mean(after − before) over clusters (pairs); values at one place share prompt and noise."""
    first, second = _same_length(after, before)
    return cluster_bootstrap(first - second, clusters)


def paired_rate_difference(after: ArrayLike, before: ArrayLike) -> Interval:
    """rate(after) − rate(before) of paired outcomes 0 or 1 with Newcombe's hybrid score interval.

    Unlike a bootstrap it keeps its width when all pairs of outcomes agree. With Wilson ends
    ``lᵢ, uᵢ`` of the two rates and the (continuity-corrected) correlation φ of the outcomes

        low = d − √((p₁−l₁)² − 2φ(p₁−l₁)(u₂−p₂) + (u₂−p₂)²),   high with l and u exchanged.

    Raises:
        ValueError: lengths differ, none given, or an outcome other than 0 and 1.
    """
    first, second = _same_length(after, before)
    if not np.isin(np.concatenate([first, second]), (0, 1)).all():
        raise ValueError("expected outcomes 0 or 1, got other values; use paired_difference")
    n = len(first)
    one, two = (wilson(int(side.sum()), n) for side in (first, second))
    phi = _correlation(first, second)

    def reach(x: float, y: float) -> float:
        return math.sqrt(max(x * x - 2 * phi * x * y + y * y, 0.0))

    value = one.value - two.value
    down = reach(one.value - one.low, two.high - two.value)
    up = reach(one.high - one.value, two.value - two.low)
    return Interval(value, value - down, value + up, n)


def bootstrap_ends(
    samples: Sequence[NDArray[Any]],
    statistic: Callable[..., Any],
    *,
    resamples: int = 2000,
    seed: int = 0,
    vectorized: bool = True,
) -> tuple[float, float]:
    """Ends of a statistic's BCa bootstrap interval, percentile where BCa does not exist.

    Samples ``(n,)`` of values, or numbers of clusters, are drawn apart from each other; the
    statistic takes as many, a vectorized one along ``axis``.
    """
    for method in ("BCa", "percentile"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a degenerate distribution has no BCa interval
            ends = stats.bootstrap(
                samples,
                statistic,
                vectorized=vectorized,
                n_resamples=resamples,
                batch=max(1, 1_000_000 // sum(map(len, samples))),  # bounds memory at about 8 MB
                confidence_level=_LEVEL,
                method=method,
                rng=np.random.default_rng(seed),
            ).confidence_interval
        if math.isfinite(ends.low) and math.isfinite(ends.high):
            break
    return float(ends.low), float(ends.high)


def _correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    outcomes = (2 * first + second).astype(int)
    neither, only_second, only_first, both = np.bincount(outcomes, minlength=4).tolist()
    scale = math.sqrt(
        (both + only_first) * (only_second + neither) * (both + only_second)
        * (only_first + neither)
    )  # fmt: skip
    if scale == 0:
        return 0.0
    product = both * neither - only_first * only_second
    return float(max(product - len(first) / 2, 0) if product > 0 else product) / scale


def _same_length(
    after: ArrayLike, before: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    first, second = finite(after), finite(before)
    if first.ndim != 1 or first.shape != second.shape or not len(first):
        raise ValueError(
            f"expected two lists of one length >= 1, got shapes {first.shape} and {second.shape}"
        )
    return first, second
