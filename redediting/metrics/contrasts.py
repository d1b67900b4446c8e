"""Several differences at once: max-t intervals that hold together, p values adjusted by Holm.

References:
    Holm, "A simple sequentially rejective multiple test procedure", 1979.
    Romano and Wolf, "Exact and approximate stepdown methods for multiple hypothesis testing",
    JASA 100, 2005 (the largest t over all contrasts of one resample).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from redediting.metrics.intervals import (
    ALPHA,
    FEWEST,
    RESAMPLES,
    Interval,
    Support,
    finite,
    studentised,
)


@dataclass(frozen=True)
class Contrast:
    """A difference that is one of several.

    Attributes:
        interval: holds together with the others' at 95 %.
        p: two-sided, of the sign-flip test over clusters; None below `FEWEST` of them.
        p_holm: the same, adjusted for the number of contrasts.
    """

    interval: Interval
    p: float | None
    p_holm: float | None


Name = TypeVar("Name", bound=Hashable)


def contrasts(
    gaps: Mapping[Name, Mapping[Any, float]], *, support: Support | None = None
) -> dict[Name, Contrast]:
    """Differences by cluster, taken as one family: max-t intervals, p values by Holm.

    Intervals are ``d ± q s`` with q the 95 % quantile of the largest |t*| over contrasts on the
    same clusters, each resample one draw for all; sets of contrasts on other clusters share the
    5 % by their number.

    Args:
        gaps: of each contrast its difference on every cluster, at least one.
        support: as for `mean_over`.
    """
    sets: dict[tuple[Any, ...], list[Name]] = {}
    for name, own in gaps.items():
        sets.setdefault(tuple(sorted(own, key=str)), []).append(name)
    intervals: dict[Name, Interval] = {}
    raw: dict[Name, float] = {}
    for clusters, names in sets.items():
        table = finite([[gaps[name][own] for own in clusters] for name in names]).T
        c = len(clusters)
        ends = np.full((2, len(names)), math.nan)
        if c >= FEWEST:
            value, error, drawn = studentised(
                lambda w, table=table: (w @ table) / w.sum(axis=1, keepdims=True),  # type: ignore[misc]
                c, RESAMPLES,
            )  # fmt: skip
            # one whose clusters nearly all agree has no t in many a resample, and no interval
            alone = np.isinf(drawn).mean(axis=0) > ALPHA / (2 * len(gaps))
            known = (np.ptp(table, axis=0) > 1e-12 * np.abs(table).max()) & ~alone
            level = 1 - ALPHA * len(names) / len(gaps)
            if known.any():
                largest = np.abs(drawn[:, known]).max(axis=1)
                half = np.quantile(largest, level, method="higher") * error[known]
                ends[:, known] = value[known] - half, value[known] + half
            raw |= {name: sign_flips(own) for name, own in zip(names, table.T, strict=True)}
        for name, own, pair in zip(names, table.T, ends.T, strict=True):
            low, high = np.clip(pair, *support) if support else pair
            good = math.isfinite(pair.sum())
            intervals[name] = Interval(
                float(own.mean()), float(low) if good else math.nan,
                float(high) if good else math.nan, c, c, "max-t" if good else "",
                () if good else tuple(own.tolist()),
            )  # fmt: skip
    adjusted = dict(zip(raw, holm(list(raw.values())), strict=True))
    return {name: Contrast(intervals[name], raw.get(name), adjusted.get(name)) for name in gaps}


def holm(p: Sequence[float]) -> list[float]:
    """P values adjusted for their number: ``max_{j ≤ i} min(1, (m − j) p₍ⱼ₎)``, j from 0."""
    order = np.argsort(p)
    steps = np.asarray(p, dtype=np.float64)[order] * np.arange(len(p), 0, -1)
    found = np.empty(len(p))
    found[order] = np.minimum(np.maximum.accumulate(steps), 1) if len(p) else steps
    return [float(one) for one in found]


def sign_flips(gaps: ArrayLike) -> float:
    """Two-sided p of mean 0, from all (or 9,999) assignments of signs to clusters' differences."""
    gaps = finite(gaps)
    found = stats.permutation_test(
        (gaps, np.zeros_like(gaps)), lambda x, y, axis: (x - y).mean(axis=axis),
        permutation_type="samples", vectorized=True, n_resamples=9999,
        rng=np.random.default_rng(0),
    )  # fmt: skip
    return float(found.pvalue)
