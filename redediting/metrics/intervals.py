"""Intervals: a rate, a mean, a difference and a cluster bootstrap, each with its n.

Within one pair a rate has Wilson's interval and a difference by noise Newcombe's; across pairs the
pair is the resampling unit, because images of one edit are not independent.

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
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Statistic = Callable[[NDArray[np.float64]], float]


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval.

    Attributes:
        value: the estimate.
        low: lower end.
        high: upper end.
        n: samples it rests on.
        clusters: resampling units (pairs) where these are not the samples themselves, else None.
    """

    value: float
    low: float
    high: float
    n: int
    clusters: int | None = None

    @property
    def bounds(self) -> list[float]:
        """``[low, high]``, the form of the ``*_ci`` keys in a summary."""
        return [self.low, self.high]


def wilson(k: int, n: int, *, confidence: float = 0.95) -> Interval:
    """Returns the rate k/n with Wilson's score interval.

    Args:
        k: successes, 0…n.
        n: trials, at least 1.
        confidence: level.

    Raises:
        ValueError: no trials, or more successes than trials.
    """
    if n < 1 or not 0 <= k <= n:
        raise ValueError(f"expected 0 <= successes <= trials and trials >= 1, got {k} of {n}")
    ends = stats.binomtest(k, n).proportion_ci(confidence, method="wilson")
    return Interval(k / n, float(ends.low), float(ends.high), n)


def bootstrap_mean(
    values: ArrayLike, *, resamples: int = 2000, seed: int = 0, confidence: float = 0.95
) -> Interval:
    """Returns the mean of independent values with its BCa bootstrap interval.

    Args:
        values: (n,) real, n >= 2.
        resamples: bootstrap samples.
        seed: of the resampling.
        confidence: level.

    Raises:
        ValueError: fewer than two values.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or len(array) < 2:
        raise ValueError(f"expected a list of at least 2 values, got shape {array.shape}")

    def mean(sample: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
        return sample.mean(axis=axis)

    low, high = bootstrap_ends(
        (array,), mean, resamples=resamples, seed=seed, confidence=confidence, vectorized=True
    )
    return Interval(float(array.mean()), low, high, len(array))


def cluster_bootstrap(
    values: ArrayLike,
    clusters: Sequence[Hashable],
    statistic: Statistic = np.mean,
    *,
    resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """Returns a statistic with the BCa bootstrap interval over whole clusters.

    Clusters are drawn with replacement, each with all its values. Where BCa does not exist (the
    statistic lies at the end of its bootstrap distribution) the percentile interval stands in.
    When every cluster says the same the interval has no width: that is agreement between the
    clusters seen, not certainty, and fewer than about ten clusters make any such interval rough.

    Args:
        values: (n,) or (n, columns): several columns for a statistic of several, e.g. a ratio.
        clusters: n labels; values of one label stay together.
        statistic: from values of the same form to a number.
        resamples: bootstrap samples.
        seed: of the resampling.
        confidence: level.

    Raises:
        ValueError: lengths differ, or fewer than two clusters.
    """
    array = np.asarray(values, dtype=np.float64)
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
    low, high = bootstrap_ends(
        (np.arange(len(groups)),),
        mean_of_clusters if fast else of_clusters,
        resamples=resamples,
        seed=seed,
        confidence=confidence,
        vectorized=fast,
    )
    return Interval(float(statistic(array)), low, high, len(array), len(groups))


def over_clusters(values: Sequence[float], clusters: Sequence[object]) -> Interval | None:
    """A mean with its interval over clusters; only a mean where there is a single one.

    Args:
        values: real.
        clusters: to which each belongs, e.g. its pair.

    Returns:
        None without values.
    """
    if not len(values):
        return None
    labels = [str(cluster) for cluster in clusters]
    if len(set(labels)) < 2:
        return Interval(float(np.mean(values)), float("nan"), float("nan"), len(values))
    return cluster_bootstrap(values, labels)


def paired_difference(
    after: ArrayLike,
    before: ArrayLike,
    *,
    clusters: Sequence[Hashable] | None = None,
    resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """Returns mean(after − before), values at one position sharing prompt and noise.

    Args:
        after: (n,) real.
        before: (n,) real, in the same order.
        clusters: n labels (pairs) for an interval across them; None takes images as the unit.
        resamples: bootstrap samples.
        seed: of the resampling.
        confidence: level.

    Raises:
        ValueError: lengths differ, or too few values or clusters.
    """
    first, second = _same_length(after, before)
    difference = first - second
    if clusters is None:
        return bootstrap_mean(difference, resamples=resamples, seed=seed, confidence=confidence)
    return cluster_bootstrap(
        difference, clusters, resamples=resamples, seed=seed, confidence=confidence
    )


def paired_rate_difference(
    after: ArrayLike, before: ArrayLike, *, confidence: float = 0.95
) -> Interval:
    """Returns rate(after) − rate(before) of paired outcomes with Newcombe's hybrid score interval.

    Unlike a bootstrap it keeps its width when all pairs of outcomes agree. With Wilson ends
    ``lᵢ, uᵢ`` of the two rates and the (continuity-corrected) correlation φ of the outcomes

        low = d − √((p₁−l₁)² − 2φ(p₁−l₁)(u₂−p₂) + (u₂−p₂)²),   high with l and u exchanged.

    Args:
        after: (n,) of 0 and 1.
        before: (n,) of 0 and 1, in the same order.
        confidence: level.

    Raises:
        ValueError: lengths differ, none given, or an outcome other than 0 and 1.
    """
    first, second = _same_length(after, before)
    if not np.isin(np.concatenate([first, second]), (0, 1)).all():
        raise ValueError("expected outcomes 0 or 1, got other values; use paired_difference")
    n = len(first)
    one = wilson(int(first.sum()), n, confidence=confidence)
    two = wilson(int(second.sum()), n, confidence=confidence)
    phi = _correlation(first.astype(bool), second.astype(bool))

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
    confidence: float = 0.95,
    vectorized: bool = False,
) -> tuple[float, float]:
    """Ends of a statistic's BCa bootstrap interval, percentile where BCa does not exist.

    Args:
        samples: each drawn from with replacement, apart from the others, shapes ``(n,)``: values,
            or numbers of clusters.
        statistic: of as many drawn samples; a vectorized one takes ``axis`` and keeps the others.
        resamples: bootstrap samples.
        seed: of the resampling.
        confidence: level.
        vectorized: whether the statistic is.
    """

    def ends(method: Literal["BCa", "percentile"]) -> tuple[float, float]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a degenerate distribution is dealt with below
            interval = stats.bootstrap(
                samples,
                statistic,
                vectorized=vectorized,
                n_resamples=resamples,
                batch=max(1, 1_000_000 // sum(map(len, samples))),  # bounds memory at about 8 MB
                confidence_level=confidence,
                method=method,
                rng=np.random.default_rng(seed),
            ).confidence_interval
        return float(interval.low), float(interval.high)

    low, high = ends("BCa")
    return (low, high) if math.isfinite(low) and math.isfinite(high) else ends("percentile")


def _correlation(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    n = len(first)
    both, neither = int((first & second).sum()), int((~first & ~second).sum())
    only_first, only_second = int((first & ~second).sum()), int((~first & second).sum())
    scale = math.sqrt(
        (both + only_first) * (only_second + neither) * (both + only_second)
        * (only_first + neither)
    )  # fmt: skip
    if scale == 0:
        return 0.0
    product = both * neither - only_first * only_second
    return (max(product - n / 2, 0) if product > 0 else product) / scale


def _same_length(
    after: ArrayLike, before: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    first, second = (np.asarray(side, dtype=np.float64) for side in (after, before))
    if first.ndim != 1 or first.shape != second.shape or not len(first):
        raise ValueError(
            f"expected two lists of one length >= 1, got shapes {first.shape} and {second.shape}"
        )
    return first, second
