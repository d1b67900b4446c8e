"""Intervals against printed values, exact cases and simulated coverage."""

from __future__ import annotations

import numpy as np
import pytest

from redediting.metrics.base import mean
from redediting.metrics.intervals import (
    Interval,
    bootstrap_mean,
    cluster_bootstrap,
    over_clusters,
    paired_difference,
    paired_rate_difference,
    wilson,
)


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [  # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_equals_the_textbook(k: int, n: int, low: float, high: float) -> None:
    rate = wilson(k, n)
    assert rate.value == k / n
    assert rate.n == n
    assert rate.bounds == pytest.approx([low, high], abs=5e-5)


@pytest.mark.parametrize(("k", "n"), [(0, 0), (-1, 3), (4, 3)])
def test_wilson_rejects_impossible_counts(k: int, n: int) -> None:
    with pytest.raises(ValueError, match=f"got {k} of {n}"):
        wilson(k, n)


def test_bootstrap_mean_covers_the_true_mean() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for repeat in range(200):
        interval = bootstrap_mean(rng.exponential(size=40), resamples=500, seed=repeat)
        covered += interval.low <= 1.0 <= interval.high
    assert 0.86 <= covered / 200 <= 0.99  # 95 % nominal; skewed and small, so a little below


def test_bootstrap_is_reproducible_and_collapses_on_constants() -> None:
    values = np.random.default_rng(1).normal(size=30)
    assert bootstrap_mean(values, seed=3) == bootstrap_mean(values, seed=3)
    assert bootstrap_mean(values, seed=3) != bootstrap_mean(values, seed=4)
    assert bootstrap_mean([0.25] * 5) == Interval(0.25, 0.25, 0.25, 5)


def test_clusters_of_one_agree_with_the_ordinary_bootstrap() -> None:
    values = np.random.default_rng(2).normal(size=25)
    ordinary = bootstrap_mean(values, seed=0)
    clustered = cluster_bootstrap(values, range(25))
    assert clustered.value == pytest.approx(ordinary.value)
    assert clustered.bounds == pytest.approx(ordinary.bounds, abs=0.03)
    assert clustered.clusters == 25


def test_repeating_each_value_does_not_narrow_the_interval() -> None:
    values = np.random.default_rng(3).normal(size=12)
    once = cluster_bootstrap(values, range(12))
    tenfold = cluster_bootstrap(np.repeat(values, 10), np.repeat(np.arange(12), 10))
    assert tenfold.bounds == pytest.approx(once.bounds)
    assert (tenfold.n, tenfold.clusters) == (120, 12)
    naive = bootstrap_mean(np.repeat(values, 10), seed=0)
    assert naive.high - naive.low < 0.5 * (once.high - once.low)


def test_clusters_may_be_of_any_size_and_order() -> None:
    values, clusters = [1.0, 5.0, 2.0, 6.0, 3.0], ["a", "b", "a", "b", "a"]
    interval = cluster_bootstrap(values, clusters)
    assert interval.value == pytest.approx(17 / 5)
    assert 2.0 <= interval.low <= interval.high <= 5.5  # means of a alone and of b alone


def test_a_statistic_of_two_columns() -> None:
    rng = np.random.default_rng(4)
    base = rng.uniform(1, 2, size=60)
    pairs = np.stack([0.7 * base, base], axis=1)

    def reduction(rows: np.ndarray) -> float:
        return float(1 - rows[:, 0].mean() / rows[:, 1].mean())

    interval = cluster_bootstrap(pairs, list(range(20)) * 3, reduction)
    assert interval.value == pytest.approx(0.3)
    assert interval.bounds == pytest.approx([0.3, 0.3])


def test_cluster_bootstrap_needs_two_clusters_and_matching_lengths() -> None:
    with pytest.raises(ValueError, match="at least 2 clusters, got 3 values and 1 clusters"):
        cluster_bootstrap([1, 2, 3], ["a", "a", "a"])
    with pytest.raises(ValueError, match="a cluster for each value"):
        cluster_bootstrap([1, 2, 3], ["a", "b"])
    with pytest.raises(ValueError, match="at least 2 values"):
        bootstrap_mean([1.0])


def test_pairing_by_noise_removes_the_noise() -> None:
    noise = np.random.default_rng(5).normal(scale=10, size=50)
    interval = paired_difference(noise + 0.5, noise, clusters=range(50))
    assert interval.bounds == pytest.approx([0.5, 0.5])
    across = paired_difference(noise + 0.5, noise, clusters=list(range(10)) * 5)
    assert (across.n, across.clusters) == (50, 10)


def outcomes(both: int, only_after: int, only_before: int, neither: int) -> tuple[list, list]:
    after = [1] * (both + only_after) + [0] * (only_before + neither)
    before = [1] * both + [0] * only_after + [1] * only_before + [0] * neither
    return after, before


def test_newcombe_equals_the_textbook() -> None:
    # Fagerland, Lydersen, Laake, Statistics in Medicine 33, 2014, table VIII: airway
    # hyper-responsiveness before and after stem cell transplantation, 1/1/7/12
    interval = paired_rate_difference(*outcomes(1, 1, 7, 12))
    assert interval.value == pytest.approx(-6 / 21)
    assert interval.bounds == pytest.approx([-0.507, -0.026], abs=5e-4)


def test_newcombe_keeps_its_width_when_all_outcomes_agree() -> None:
    interval = paired_rate_difference([1] * 20, [0] * 20)
    assert interval.value == 1
    assert interval.high == pytest.approx(1)
    assert 0.7 < interval.low < 0.9


def test_newcombe_is_antisymmetric() -> None:
    after, before = outcomes(9, 4, 1, 6)
    one, two = paired_rate_difference(after, before), paired_rate_difference(before, after)
    assert one.bounds == pytest.approx([-two.high, -two.low])


def test_paired_differences_reject_what_is_not_paired() -> None:
    with pytest.raises(ValueError, match="two lists of one length"):
        paired_difference([1.0, 2.0], [1.0], clusters=["a", "b"])
    with pytest.raises(ValueError, match="expected outcomes 0 or 1"):
        paired_rate_difference([1, 0.5], [1, 0])


def test_means_over_clusters_agree_with_the_general_form() -> None:
    random = np.random.default_rng(3)
    values = random.normal(size=60)
    clusters = [int(label) for label in random.integers(0, 9, 60)]
    fast = cluster_bootstrap(values, clusters)
    slow = cluster_bootstrap(values, clusters, lambda drawn: float(np.mean(drawn)))
    assert fast.bounds == pytest.approx(slow.bounds)
    assert fast.value == pytest.approx(slow.value)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    values = [0.0, 1.0, bad, 1.0]
    for make in (
        lambda: bootstrap_mean(values),
        lambda: cluster_bootstrap(values, [0, 0, 1, 1]),
        lambda: over_clusters(values, [0, 0, 1, 1]),
        lambda: over_clusters(values, [0, 0, 0, 0]),
        lambda: paired_difference(values, [0.0] * 4, clusters=[0, 0, 1, 1]),
        lambda: paired_rate_difference([0.0] * 4, values),
        lambda: mean(values),
    ):
        with pytest.raises(ValueError, match="expected finite values, got 1 of 4"):
            make()
    with pytest.raises(ValueError, match="expected finite values, got 1 of 1"):
        mean([bad])
