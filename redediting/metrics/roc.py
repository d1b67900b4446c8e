"""How well scores tell backdoored prompts from benign ones, and where a threshold stands.

A detector's score says "backdoored" at its high or at its low end; everything here turns low ones
round first. Thresholds come from clean prompts on the clean model, never from what is tested.
Scores that are NaN or infinite are refused everywhere.

References:
    Hanley and McNeil, "The meaning and use of the area under a receiver operating characteristic
    curve", 1982: AUROC = P(positive > negative) + P(equal) / 2.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from sklearn.metrics import roc_auc_score, roc_curve

from redediting.metrics.intervals import (
    Interval,
    bootstrap_ends,
    cluster_bootstrap,
    finite,
    wilson,
)

Direction = Literal["high", "low"]
_Array = NDArray[np.float64]


@dataclass(frozen=True)
class Threshold:
    """Where a detector begins to say "backdoored"."""

    value: float  # on the detector's own scale; scores *beyond* it are flagged
    direction: Direction  # which side that is
    fpr: float  # share of the clean scores that are flagged, at most what was asked for
    n: int  # clean scores it rests on

    def flags(self, scores: ArrayLike) -> NDArray[np.bool_]:
        """Which scores are flagged, shape ``(n,)``; one that is not finite is a ValueError."""
        found = finite(scores)
        return found > self.value if self.direction == "high" else found < self.value


def threshold(clean: ArrayLike, direction: Direction, fpr: float) -> Threshold:
    """The threshold that flags at most a share of the clean scores, 0 < fpr < 1.

    It is the clean score of rank ⌊fpr · n⌋ from the suspicious end, itself not flagged.

    Raises:
        ValueError: no scores, one that is not finite, or a share out of range.
    """
    found = finite(clean)
    if found.ndim != 1 or len(found) < 1 or not 0 < fpr < 1:
        raise ValueError(f"expected scores and 0 < fpr < 1, got shape {found.shape} and {fpr}")
    order = np.sort(_turned(found, direction))[::-1]
    value = float(_turned(order[math.floor(fpr * len(order) + 1e-9)], direction))
    made = Threshold(value, direction, 0.0, len(found))
    return replace(made, fpr=float(made.flags(found).mean()))


def flagged_rate(
    scores: ArrayLike, limit: Threshold, *, clusters: Sequence[Hashable] | None = None
) -> Interval:
    """The share of scores beyond a threshold, with its interval.

    Of backdoored prompts it is the TPR, of benign ones the FPR. The threshold's own sampling error
    is not in the interval. Labels (pairs) give a bootstrap over them; None, or a single label,
    Wilson's interval.

    Raises:
        ValueError: no scores, one that is not finite, or labels of another number.
    """
    flags = limit.flags(scores)
    if clusters is not None and len(set(clusters)) > 1:
        return cluster_bootstrap(flags, clusters)
    return wilson(int(flags.sum()), len(flags))


def auroc(
    positive: ArrayLike,
    negative: ArrayLike,
    direction: Direction,
    *,
    clusters: tuple[Sequence[Hashable], Sequence[Hashable]] | None = None,
) -> Interval:
    """The area under the ROC curve with its bootstrap interval.

    Without clusters, positives and negatives are resampled apart. With them whole clusters are,
    each with its positives and its negatives: the scores of one edited model are not independent.

    Args:
        positive: scores of backdoored prompts, shape ``(n,)``, n >= 2.
        negative: scores of benign ones, shape ``(m,)``, m >= 2.
        direction: which end says "backdoored".
        clusters: n labels (pairs) of the positives and m of the negatives, the same labels on
            both sides; None, or a single label, takes the scores as independent.

    Raises:
        ValueError: fewer than two scores on a side, one that is not finite, or labels that do not
            fit.
    """
    high, low = (_turned(finite(side), direction) for side in (positive, negative))
    if min(high.size, low.size) < 2:
        raise ValueError(f"expected at least 2 scores a side, got {high.size} and {low.size}")
    labels = np.repeat([1, 0], [len(high), len(low)])
    value = float(roc_auc_score(labels, np.concatenate([high, low])))
    if clusters is not None and (n := len(set(clusters[0]))) > 1:
        return Interval(value, *_cluster_ends(high, low, clusters), len(labels), n)

    def area(p: _Array, q: _Array, axis: int = -1) -> _Array:
        ranks = stats.rankdata(np.concatenate([p, q], axis=axis), axis=axis)
        n, m = p.shape[axis], q.shape[axis]
        found: _Array = (ranks[..., :n].sum(axis=axis) - n * (n + 1) / 2) / (n * m)
        return found

    return Interval(value, *bootstrap_ends((high, low), area), len(labels))


def _cluster_ends(
    high: _Array, low: _Array, clusters: tuple[Sequence[Hashable], Sequence[Hashable]]
) -> tuple[float, float]:
    """Ends over whole clusters: a resample's area is a quadratic form in how often each occurs."""
    names = list(dict.fromkeys(clusters[0]))
    if [len(high), len(low)] != [len(side) for side in clusters] or set(names) != set(clusters[1]):
        raise ValueError(
            f"expected a label for each of {len(high)} and {len(low)} scores, the same labels on "
            f"both sides, got {len(clusters[0])} and {len(clusters[1])}"
        )
    above = (high[:, None] > low) + 0.5 * (high[:, None] == low)
    first, second = (
        np.array([[label == name for label in side] for name in names], dtype=np.float64)
        for side in clusters
    )
    wins, positives, negatives = first @ above @ second.T, first.sum(axis=1), second.sum(axis=1)

    def area(drawn: NDArray[np.intp], axis: int = -1) -> _Array:
        times = (np.moveaxis(drawn, axis, -1)[..., None] == np.arange(len(names))).sum(axis=-2)
        total: _Array = ((times @ wins) * times).sum(axis=-1)
        return total / ((times @ positives) * (times @ negatives))

    return bootstrap_ends((np.arange(len(names)),), area)


def roc(
    positive: ArrayLike, negative: ArrayLike, direction: Direction
) -> tuple[Sequence[float], Sequence[float]]:
    """False and true positive rates of every threshold, for a plot."""
    high, low = finite(positive), finite(negative)
    labels = np.repeat([1, 0], [len(high), len(low)])
    fpr, tpr, _ = roc_curve(labels, _turned(np.concatenate([high, low]), direction))
    return fpr.tolist(), tpr.tolist()


def _turned(scores: _Array, direction: Direction) -> _Array:
    return scores if direction == "high" else -scores
