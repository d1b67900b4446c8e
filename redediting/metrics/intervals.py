"""Intervals, each with the number of samples and of clusters that it rests on.

A cluster is what was drawn independently: the pair, the training run, the base model. Images of
one edit are independent given the edit, so a rate within a pair has Wilson's interval; across
clusters whole clusters are resampled. All two-sided intervals are 95 %. Which kind is printed:

| clusters | interval of a mean, a rate, an area or a ratio |
|---|---|
| all at one end of the scale | exact: c of c, a rate >= 0.05^(1/c); 0 of c, <= 1 − it |
| every cluster 0 or 1 | exact (Clopper and Pearson) |
| below `FEWEST` | none; the clusters' own values instead |
| `FEWEST` to `BCA_FROM` − 1 | bootstrap-t (studentised by the jackknife) |
| from `BCA_FROM` on | BCa |

An interval without width, or without a finite end, is never printed: the values are. The two
limits come from a simulation (``python -m experiments.bench.coverage``): least coverage over the
shapes of its table, from pairs that are alike to pairs of which most are at 1.
Bootstrap-t covers 0.922 or more from 6 clusters on, with finite ends in 98 % of data sets (5: 91,
4: 60 %); BCa covers 0.82 / 0.87 / 0.90 / 0.91 / 0.916 at 6 / 10 / 16 / 20 / 24 clusters and 0.924
or more from 30 on (4,000 data sets a cell; docs/protocol.md has the table).
A value that is not finite is refused: no figure is made of a measurement that failed.

References:
    Wilson, "Probable inference, the law of succession, and statistical inference", 1927.
    Newcombe, "Improved confidence intervals for the difference between binomial proportions based
    on paired data", Statistics in Medicine 17, 1998 (method 10).
    Clopper and Pearson, "The use of confidence or fiducial limits", Biometrika 26, 1934.
    Efron, "Better bootstrap confidence intervals", 1987 (BCa, as in `scipy.stats.bootstrap`).
    Hall, "Theoretical comparison of bootstrap confidence intervals", 1988 (bootstrap-t).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

FEWEST = 6  # clusters for an interval over them
BCA_FROM = 30  # clusters for BCa; below, bootstrap-t
ALPHA = 0.05
RESAMPLES = 1999
_LISTED = 6  # values that a cell has room for

Kind = Literal["", "wilson", "newcombe", "exact", "bootstrap-t", "bca", "max-t", "jackknife"]
Support = tuple[float, float]  # least and greatest value that a cluster can have
RATE: Support = (0.0, 1.0)
GAP: Support = (-1.0, 1.0)  # of a difference between rates
Array = NDArray[np.float64]
Statistic = Callable[[Array], Array]  # of clusters' weights (draws, c): (draws,) or (draws, k)


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval, or with the values themselves where none holds.

    Attributes:
        value: the estimate.
        low: lower end; NaN where there is no interval, so that every comparison with it fails.
        high: upper end, likewise.
        n: samples it rests on.
        clusters: what was drawn independently, where these are not the samples.
        kind: of interval; empty where there is none.
        values: one a cluster, where there are clusters and no interval.
    """

    value: float
    low: float
    high: float
    n: int
    clusters: int | None = None
    kind: Kind = ""
    values: tuple[float, ...] = ()

    @property
    def bounds(self) -> list[float] | None:
        """``[low, high]``, the form of the ``*_ci`` keys in a summary; None without interval."""
        return [self.low, self.high] if math.isfinite(self.low + self.high) else None

    def text(self, form: str, unit: str = "pairs") -> str:
        """``0.7 (0.5 … 0.9)``, or ``0.7 (3 pairs: 0.5, 0.6, 0.9)``."""
        value, ends = form.format(self.value), self.bounds
        beside = listed(self.values, unit) if ends is None else span(ends, form)
        return f"{value} ({beside})" if beside else value


def span(bounds: Sequence[float], form: str) -> str:
    """``lo … hi``."""
    return f"{form.format(bounds[0])} … {form.format(bounds[1])}"


def listed(values: Sequence[float], unit: str = "pairs") -> str:
    """``3 pairs: 0.5, 0.6, 0.9``; of many the range; empty without values."""
    if not values:
        return ""
    said = [f"{value:.3g}" for value in values]
    if len(said) > 1 and len(set(said)) == 1:
        return f"{len(said)} {unit}: all {said[0]}"
    if len(said) > _LISTED:
        return f"{len(said)} {unit}, from {min(values):.3g} to {max(values):.3g}"
    return f"{len(said)} {unit}: {', '.join(said)}"


def finite(values: ArrayLike) -> Array:
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
    """The rate of k successes in n independent trials, e.g. images of one edit by noise.

    Raises:
        ValueError: no trials, or more successes than trials.
    """
    if n < 1 or not 0 <= k <= n:
        raise ValueError(f"expected 0 <= successes <= trials and trials >= 1, got {k} of {n}")
    ends = stats.binomtest(k, n).proportion_ci(1 - ALPHA, method="wilson")
    return Interval(k / n, float(ends.low), float(ends.high), n, kind="wilson")


def paired_rate_difference(after: ArrayLike, before: ArrayLike) -> Interval:
    """rate(after) − rate(before) of paired outcomes 0 or 1, e.g. of one edit by noise (Newcombe).

    Unlike a bootstrap it keeps its width when all pairs of outcomes agree. With Wilson ends
    ``lᵢ, uᵢ`` of the two rates and the (continuity-corrected) correlation φ of the outcomes

        low = d − √((p₁−l₁)² − 2φ(p₁−l₁)(u₂−p₂) + (u₂−p₂)²),   high with l and u exchanged.

    Raises:
        ValueError: lengths differ, none given, or an outcome other than 0 and 1.
    """
    first, second = finite(after), finite(before)
    if first.ndim != 1 or first.shape != second.shape or not len(first):
        raise ValueError(
            f"expected two lists of one length >= 1, got shapes {first.shape} and {second.shape}"
        )
    if not np.isin(np.concatenate([first, second]), (0, 1)).all():
        raise ValueError("expected outcomes 0 or 1, got other values; use the mean of differences")
    n = len(first)
    one, two = (wilson(int(side.sum()), n) for side in (first, second))
    phi = _correlation(first, second)

    def reach(x: float, y: float) -> float:
        return math.sqrt(max(x * x - 2 * phi * x * y + y * y, 0.0))

    value = one.value - two.value
    down = reach(one.value - one.low, two.high - two.value)
    up = reach(one.high - one.value, two.value - two.low)
    return Interval(value, value - down, value + up, n, kind="newcombe")


def mean_over(
    values: ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    *,
    support: Support | None = None,
    alpha: float = ALPHA,
) -> Interval:
    """The mean of values with its interval over clusters, each with all its values.

    Args:
        values: shape ``(n,)``, n >= 1.
        clusters: n labels; None takes every value as independent.
        support: least and greatest value of a rate or a difference of rates; None without such.
        alpha: 1 − level, e.g. 0.05 over the number of contrasts (Bonferroni).

    Raises:
        ValueError: no values, another number of labels, or a value that is not finite.
    """
    array = finite(values)
    labels = list(range(len(array))) if clusters is None else list(clusters)
    if array.ndim != 1 or not len(array) or len(array) != len(labels):
        raise ValueError(
            f"expected at least one value and a cluster for each, got shape {array.shape} and "
            f"{len(labels)} clusters"
        )
    codes = {label: i for i, label in enumerate(dict.fromkeys(labels))}
    places = [codes[label] for label in labels]
    sums, counts = np.bincount(places, weights=array), np.bincount(places).astype(np.float64)
    even = len(set(counts)) == 1
    return over_clusters(
        lambda weights: (weights @ sums) / (weights @ counts), (sums / counts).tolist(),
        n=len(array), support=support, even=even, alpha=alpha,
    )  # fmt: skip


def over_clusters(
    statistic: Statistic,
    values: Sequence[float],
    *,
    n: int,
    support: Support | None = None,
    even: bool = False,
    independent: int | None = None,
    alpha: float = ALPHA,
) -> Interval:
    """A statistic with its interval over clusters; see the module for which kind.

    Args:
        statistic: from how often each cluster is drawn, ``(draws, c)``, to ``(draws,)``.
        values: the statistic of each cluster alone, printed where there is no interval.
        n: samples.
        support: least and greatest value of a cluster, as for `mean_over`.
        even: whether the statistic is the plain mean of the values.
        independent: comparisons without a cluster in common, for a statistic that compares
            clusters with each other; c when not given.
        alpha: 1 − level.
    """
    c, array = len(values), finite(values)
    value = float(statistic(np.ones((1, c)))[0])
    low, high, kind = math.nan, math.nan, ""
    if support is not None and c > 1 and value in support:
        bound = alpha ** (1 / (independent or c)) * (support[1] - support[0])
        at_most = value == support[1]
        low, high = (support[0] + bound, value) if at_most else (value, support[1] - bound)
        kind = "exact"
    elif even and c > 1 and support == RATE and np.isin(array, support).all():
        low, high = map(float, clopper_pearson(array.sum(), c, alpha))
        kind = "exact"
    elif c >= FEWEST:
        kind = "bca" if c >= BCA_FROM else "bootstrap-t"
        ends = (_bca if c >= BCA_FROM else bootstrap_t)(statistic, c, alpha=alpha)
        if support is not None:
            ends = within(*ends, array if even else None, support, alpha)
        low, high = map(float, ends)
    if not high - low > 1e-9 * max(abs(low), abs(high)):  # no width, or NaN
        low = math.nan
    if not math.isfinite(low + high):
        alone = tuple(array.tolist()) if c > 1 else ()  # one says no more than the value
        return Interval(value, math.nan, math.nan, n, c, values=alone)
    return Interval(value, low, high, n, c, kind)  # type: ignore[arg-type]


def bootstrap_t(
    statistic: Statistic, c: int, *, alpha: float = ALPHA, resamples: int = RESAMPLES
) -> tuple[Array | float, Array | float]:
    """Ends of the studentised bootstrap: value − t*₉₇.₅ s and value − t*₂.₅ s.

    A resample whose clusters all agree has an infinite t*; beyond 2.5 % of these so is the end.
    """
    value, error, drawn = studentised(statistic, c, resamples)
    ranks = np.sort(drawn, axis=0)
    k = math.floor(alpha / 2 * (resamples + 1))
    with np.errstate(invalid="ignore"):  # 0 · inf, of clusters that all agree, is no number
        return value - ranks[-k] * error, value - ranks[k - 1] * error


def within(
    low: Array | float,
    high: Array | float,
    values: Array | None,
    support: Support,
    alpha: float = ALPHA,
) -> tuple[Array, Array]:
    """Ends inside the scale; an infinite one is what clusters at its other end prove.

    With k of c clusters at the greatest value, the share there is at least Clopper and Pearson's
    lower end, and the mean at least what that share gives; likewise at the least value. Without
    values, shape ``(c,)`` or ``(c, k)``, an end stays infinite.
    """
    least, most = support
    found = np.maximum(low, least), np.minimum(high, most)
    if values is None:
        return np.where(np.isinf(low), low, found[0]), np.where(np.isinf(high), high, found[1])
    shares = [
        clopper_pearson((values == end).sum(axis=0), len(values), alpha)[0] for end in support
    ]
    return (
        np.where(low == -math.inf, least + (most - least) * shares[1], found[0]),
        np.where(high == math.inf, most - (most - least) * shares[0], found[1]),
    )


def clopper_pearson(k: Array | float, n: int, alpha: float = ALPHA) -> tuple[Array, Array]:
    """Exact ends of the rate of k successes in n independent trials; k may be an array."""
    with np.errstate(invalid="ignore"):  # no such quantile at k = 0 and k = n
        low = np.where(k == 0, 0.0, stats.beta.ppf(alpha / 2, k, n - k + 1))
        return low, np.where(k == n, 1.0, stats.beta.ppf(1 - alpha / 2, k + 1, n - k))


def studentised(statistic: Statistic, c: int, resamples: int) -> tuple[Array, Array, Array]:
    """The statistic, its jackknife error, and t* of every resample."""
    whole = np.ones((1, c))
    value, error = statistic(whole)[0], _jackknife(statistic, whole)[0]
    counts = np.random.default_rng(0).multinomial(c, np.full(c, 1 / c), resamples)
    times = counts.astype(np.float64)
    away, errors = statistic(times) - value, _jackknife(statistic, times)
    with np.errstate(divide="ignore", invalid="ignore"):
        drawn = np.where(errors > 1e-9 * error, away / errors, np.sign(away) * math.inf)
    return value, error, np.nan_to_num(drawn, nan=0.0, posinf=math.inf, neginf=-math.inf)


def _jackknife(statistic: Statistic, times: Array) -> Array:
    """Standard error by leaving out one copy of one cluster, ``√((c−1)/c Σ wⱼ (θ₍ⱼ₎ − θ̄)²)``."""
    c, centre = times.shape[1], statistic(times)
    first, second = np.zeros_like(centre), np.zeros_like(centre)
    for j in range(c):
        weight = times[:, j].reshape(-1, *[1] * (centre.ndim - 1))
        fewer = times.copy()
        fewer[:, j] = np.maximum(fewer[:, j] - 1, 0)
        moved = statistic(fewer) - centre
        first += weight * moved
        second += weight * moved**2
    return np.sqrt(np.maximum(second - first**2 / c, 0) * (c - 1) / c)


def _bca(statistic: Statistic, c: int, *, alpha: float) -> tuple[float, float]:
    def of_drawn(drawn: NDArray[np.intp], axis: int = -1) -> Array:
        drawn = np.moveaxis(drawn, axis, -1)
        rows = drawn.reshape(-1, drawn.shape[-1])
        codes = rows + c * np.arange(len(rows))[:, None]
        times = np.bincount(codes.ravel(), minlength=c * len(rows)).reshape(len(rows), c)
        return statistic(times.astype(np.float64)).reshape(drawn.shape[:-1])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a degenerate distribution has no BCa interval
        ends = stats.bootstrap(
            (np.arange(c),), of_drawn, vectorized=True, n_resamples=RESAMPLES,
            batch=max(1, 1_000_000 // c),  # bounds memory at about 8 MB
            confidence_level=1 - alpha, method="BCa", rng=np.random.default_rng(0),
        ).confidence_interval  # fmt: skip
    return float(ends.low), float(ends.high)


def _correlation(first: Array, second: Array) -> float:
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
