"""``python -m experiments.bench.coverage``: how often each interval covers, by number of clusters.

Rates of pairs are drawn from a distribution between pairs, images of a pair from its rate
(beta-binomial); the last two shapes are a difference of two methods on the same pairs and drift.
Spreads are those of the first edition's tables: *near the ceiling* is ``asr_fixed`` with 16 of 21
pairs at 1.0. Coverage is counted where an interval is printed. The limits of
`redediting.metrics.intervals` are the numbers of clusters from which the least coverage over the
shapes is 92 % or more.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.special import expit

from redediting.evaluation.frame import Column, Frame
from redediting.metrics.intervals import ALPHA, RATE, bootstrap_t, clopper_pearson, within

Array = NDArray[np.float64]
Shape = Callable[[np.random.Generator, tuple[int, int]], Array]
CLUSTERS = (4, 5, 6, 8, 10, 12, 16, 20, 24, 30, 40, 50)
_RESAMPLES = 999


def _rates(a: float, b: float, images: int) -> Shape:
    return lambda rng, shape: rng.binomial(images, rng.beta(a, b, shape)) / images


def _gap(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    """Rates of two methods that agree on which pairs are hard, 14 images each."""
    hard, own = 2.5 * rng.normal(size=shape), rng.normal(size=(2, *shape))
    hits = [
        rng.binomial(14, expit(shift + hard + beside))
        for shift, beside in zip((1, -0.5), own, strict=True)
    ]
    return (hits[0] - hits[1]) / 14


SHAPES: dict[str, Shape] = {
    "alike: Beta(4, 4), 14 images": _rates(4, 4, 14),
    "U: Beta(0.5, 0.5), 14 images": _rates(0.5, 0.5, 14),
    "steep U: Beta(0.3, 0.3), 8 images": _rates(0.3, 0.3, 8),
    "high: Beta(4.5, 0.5), 14 images": _rates(4.5, 0.5, 14),
    "near the ceiling: Beta(0.85, 0.15), 6 images": _rates(0.85, 0.15, 6),
    "difference of rates, 14 images": _gap,
    "drift: log-normal, σ = 0.5": lambda rng, shape: rng.lognormal(-2, 0.5, shape),
}


@cache
def _mean(shape: str) -> float:
    return float(SHAPES[shape](np.random.default_rng(0), (1, 1_000_000)).mean())


def coverage(
    kind: str, shape: str, c: int, *, draws: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Share of data sets whose interval holds the mean, of those printed, and share printed.

    Args:
        kind: ``bootstrap-t`` or ``bca``.
        shape: of `SHAPES`.
        c: clusters.
        draws: data sets.
        seed: of the draws.
    """
    rng = np.random.default_rng([seed, c])
    truth = _mean(shape)
    data = SHAPES[shape](rng, (draws, c))
    low: Array | float
    high: Array | float
    if kind == "bca":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a degenerate distribution has no BCa interval
            low, high = stats.bootstrap(
                (data,), np.mean, axis=-1, n_resamples=_RESAMPLES, method="BCa",
                batch=max(1, 20_000_000 // data.size), rng=rng,
            ).confidence_interval  # fmt: skip
    else:
        low, high = bootstrap_t(lambda times: times @ data.T / c, c, resamples=_RESAMPLES)
    if "Beta" in shape:  # a rate
        if kind != "bca":
            low, high = within(low, high, data.T, RATE)
        ones, binary = data.sum(axis=1), np.isin(data, RATE).all(axis=1)
        low, high = (
            np.where(binary, exact, end)
            for exact, end in zip(clopper_pearson(ones, c), (low, high), strict=True)
        )
        low = np.where(ones == c, ALPHA ** (1 / c), low)
        high = np.where(ones == 0, 1 - ALPHA ** (1 / c), high)
    printed: NDArray[np.bool_] = np.isfinite(low) & np.isfinite(high) & np.greater(high, low)
    held = np.asarray((low <= truth) & (truth <= high))
    return float(held[printed].mean()), float(printed.mean())


def table(*, draws: int = 2000) -> Frame:
    """A line a shape and kind of interval, a column a number of clusters; the least below."""
    rows: list[dict[str, object]] = []
    for kind in ("bootstrap-t", "bca"):
        own: list[dict[str, float]] = []
        for shape in SHAPES:
            found = {str(c): coverage(kind, shape, c, draws=draws)[0] for c in CLUSTERS}
            own.append(found)
            rows.append({"kind": kind, "shape": shape, **found})
        least = {str(c): min(line[str(c)] for line in own) for c in CLUSTERS}
        rows.append({"kind": kind, "shape": "least", **least})
    columns = (Column("kind", "interval"), Column("shape", "between pairs"))
    return Frame(
        (*columns, *(Column(str(c), str(c), "{:.3f}") for c in CLUSTERS)), tuple(rows),
        note=f"Coverage of 95 % intervals by number of clusters; {draws} data sets a cell.",
    )  # fmt: skip


if __name__ == "__main__":
    sys.stdout.write(table().to_markdown() + "\n")
