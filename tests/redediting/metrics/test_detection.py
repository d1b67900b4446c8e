"""Thresholds, rates and areas of scores."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from redediting.metrics.intervals import RATE, mean_over, over_clusters
from redediting.metrics.roc import auroc, flagged_rate, roc, threshold

CLEAN = np.arange(1.0, 101.0)


def test_a_threshold_flags_no_more_than_asked() -> None:
    high = threshold(CLEAN, "high", 0.05)
    assert (high.value, high.fpr, high.n) == (95.0, 0.05, 100)
    low = threshold(CLEAN, "low", 0.05)
    assert (low.value, low.fpr) == (6.0, 0.05)
    assert low.flags([5.0, 6.0]).tolist() == [True, False]
    assert high.flags([95.0, 96.0]).tolist() == [False, True]
    assert threshold(CLEAN, "high", 0.001).fpr == 0.0
    assert threshold(np.ones(50), "high", 0.05).fpr == 0.0  # ties are never flagged in part


def test_rates_beyond_a_threshold() -> None:
    found = flagged_rate([1.0, 97.0, 98.0, 99.0], threshold(CLEAN, "high", 0.05))
    assert found.value == 0.75
    assert found.n == 4
    assert found.low < 0.75 < found.high


def test_area_by_hand_and_turned_round() -> None:
    positive, negative = [3.0, 1.0, 2.0], [0.0, 2.0]
    expected = (2 + 1 + 1.5) / 6  # 3 beats both, 1 beats one, 2 beats one and ties
    assert auroc(positive, negative, "high").value == pytest.approx(expected)
    assert auroc(positive, negative, "low").value == pytest.approx(1 - expected)


def test_interval_covers_and_narrows() -> None:
    random = np.random.default_rng(0)
    small = auroc(random.normal(1, 1, 30), random.normal(0, 1, 30), "high")
    large = auroc(random.normal(1, 1, 300), random.normal(0, 1, 300), "high")
    for found in (small, large):
        assert found.low < 0.7602 < found.high  # Φ(1/√2)
        assert found.low < found.value < found.high
    assert large.high - large.low < small.high - small.low
    perfect = auroc([2.0, 3.0, 4.0], [0.0, 1.0, 1.5], "high")
    assert perfect.bounds == pytest.approx([0.05 ** (1 / 3), 1.0])  # never without width
    assert auroc([2.0, 3.0], [0.0, 1.0], "low").bounds == pytest.approx([0, 1 - 0.05 ** (1 / 2)])
    assert auroc([2.0, 3.0, 4.0], [0.0, 2.5, 1.5], "high").bounds is None


def test_whole_pairs_are_resampled() -> None:
    random = np.random.default_rng(1)
    shifts = np.repeat(random.normal(0, 0.6, 6), 5)  # models differ more than prompts do
    positive, negative = random.normal(shifts, 0.3), random.normal(0, 0.3, 30)
    pairs = np.repeat(np.arange(6), 5).tolist()
    found = auroc(positive, negative, "high", clusters=(pairs, pairs))
    above = (positive[:, None] > negative).astype(float).reshape(6, 5, 6, 5).sum(axis=(1, 3))

    def area(times: NDArray[np.float64]) -> NDArray[np.float64]:
        return ((times @ above) * times).sum(axis=1) / (25 * times.sum(axis=1) ** 2)

    direct = over_clusters(area, (np.diag(above) / 25).tolist(), n=60, support=RATE)
    assert found.bounds == pytest.approx(direct.bounds)
    whole = roc_auc_score(np.repeat([1, 0], 30), np.concatenate([positive, negative]))
    assert (found.value, found.clusters, found.n) == (pytest.approx(whole), 6, 60)
    few = auroc(positive[:15], negative[:15], "high", clusters=(pairs[:15], pairs[:15]))
    assert few.bounds is None
    assert len(few.values) == 3
    parted = auroc(positive + 9, negative, "high", clusters=(pairs, pairs))
    assert parted.bounds == pytest.approx([0.05 ** (1 / 3), 1.0])  # 3 of 6 pairs against 3 others
    alone = auroc(positive, negative, "high")
    assert found.high - found.low > alone.high - alone.low
    limit = threshold(np.zeros(20), "high", 0.05)
    by_pair = flagged_rate(positive, limit, clusters=pairs)
    assert by_pair == mean_over(positive > 0, pairs, support=RATE)
    one = flagged_rate(positive[:5], limit, clusters=[0] * 5)
    assert one.bounds == flagged_rate(positive[:5], limit).bounds
    with pytest.raises(ValueError, match="the same labels on both sides"):
        auroc(positive, negative, "high", clusters=(pairs, [*pairs[:-1], 9]))


def test_roc_ends_and_turns() -> None:
    fpr, tpr = roc([1.0, 2.0], [3.0, 4.0], "low")
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0.0, 0.0, 1.0, 1.0)
    assert (0.0, 1.0) in list(zip(fpr, tpr, strict=True))


def test_bad_values() -> None:
    with pytest.raises(ValueError, match="expected scores and 0 < fpr < 1"):
        threshold([], "high", 0.05)
    with pytest.raises(ValueError, match="at least 2 scores"):
        auroc([1.0], [0.0, 1.0], "high")


@pytest.mark.parametrize("bad", [float("nan"), float("-inf")])
def test_a_score_that_is_not_finite_is_neither_flagged_nor_cleared(bad: float) -> None:
    limit = threshold(CLEAN, "high", 0.05)
    for make in (
        lambda: threshold([1.0, bad], "high", 0.5),
        lambda: limit.flags([1.0, bad]),
        lambda: flagged_rate([1.0, bad], limit),
        lambda: auroc([1.0, bad], [0.0, 1.0], "low"),
        lambda: roc([0.0, 1.0], [bad, 1.0], "high"),
    ):
        with pytest.raises(ValueError, match="expected finite values, got 1 of 2"):
            make()
