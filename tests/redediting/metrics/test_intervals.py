"""Intervals against printed values, exact cases and simulated coverage."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from redediting.metrics.base import entry, mean
from redediting.metrics.intervals import (
    BCA_FROM,
    FEWEST,
    GAP,
    RATE,
    mean_over,
    over_clusters,
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


def test_means_cover_the_true_mean() -> None:
    rng = np.random.default_rng(0)
    for n, kind in ((12, "bootstrap-t"), (40, "bca")):
        found = [mean_over(rng.exponential(size=n)) for _ in range(200)]
        assert {one.kind for one in found} == {kind}
        covered = np.mean([one.low <= 1.0 <= one.high for one in found])
        assert 0.88 <= covered <= 0.99  # 95 % nominal; skewed and small, so a little below


def test_bootstrap_t_by_hand() -> None:
    values = np.array([0.1, 0.4, 0.35, 0.8, 0.6, 0.2, 0.9])
    found = mean_over(values)
    drawn = np.random.default_rng(0).multinomial(7, np.full(7, 1 / 7), 1999)
    samples = np.array([np.repeat(values, times) for times in drawn])
    spread = samples.std(axis=1, ddof=1)
    with np.errstate(divide="ignore"):
        t = np.sort((samples.mean(axis=1) - values.mean()) / (spread / 7**0.5))
    error = values.std(ddof=1) / 7**0.5
    ends = [values.mean() - t[-50] * error, values.mean() - t[49] * error]
    assert found.bounds == pytest.approx(ends)
    assert (found.n, found.clusters, found.kind) == (7, 7, "bootstrap-t")


def test_bca_is_the_library_s() -> None:
    values = np.random.default_rng(1).exponential(size=BCA_FROM)
    ends = stats.bootstrap(
        (values,), np.mean, n_resamples=1999, method="BCa", rng=np.random.default_rng(0)
    ).confidence_interval
    assert mean_over(values).bounds == pytest.approx([ends.low, ends.high])


def test_too_few_clusters_print_their_values() -> None:
    few = mean_over([0.5, 0.6, 0.9], ["a", "b", "c"])
    assert few.bounds is None
    assert few.values == (0.5, 0.6, 0.9)
    assert few.text("{:.2f}") == "0.67 (3 pairs: 0.5, 0.6, 0.9)"
    assert entry("x", few) == {
        "x": pytest.approx(2 / 3), "x_ci": None, "x_values": [0.5, 0.6, 0.9]
    }  # fmt: skip
    assert not few.low > -1  # no comparison with an end that is not there holds
    assert not few.high < 1
    enough = mean_over(np.linspace(0.1, 0.9, FEWEST))
    assert enough.bounds is not None
    assert enough.values == ()
    assert "_values" not in str(entry("x", enough))


@pytest.mark.parametrize("n", [3, FEWEST, BCA_FROM])
def test_no_interval_is_degenerate(n: int) -> None:
    for value in (0.25, 0.1, 1e-9):
        same = mean_over([value] * n)
        assert same.bounds is None
        assert same.text("{:.3g}") == f"{value:.3g} ({n} pairs: all {value:.3g})"


@pytest.mark.parametrize("c", [2, 15, 106])
def test_all_or_none_has_its_exact_bound(c: int) -> None:
    every, none = mean_over([1.0] * c, support=RATE), mean_over([0] * c, support=RATE)
    assert every.bounds == pytest.approx([0.05 ** (1 / c), 1.0])
    assert none.bounds == pytest.approx([0.0, 1 - 0.05 ** (1 / c)])
    assert every.kind == none.kind == "exact"
    shared = mean_over([1.0] * 106, [i % 15 for i in range(106)], support=RATE)
    assert shared.bounds == pytest.approx([0.05 ** (1 / 15), 1.0])  # 15 pairs, not 106 suspects
    assert (shared.n, shared.clusters) == (106, 15)
    gap = mean_over([1.0] * c, support=GAP)
    assert gap.bounds == pytest.approx([2 * 0.05 ** (1 / c) - 1, 1.0])
    assert mean_over([0.0] * c, support=GAP).bounds is None


def test_40_trainings_without_an_alarm() -> None:
    assert mean_over([0] * 40, support=RATE).high == pytest.approx(0.072, abs=5e-4)


def test_outcomes_of_clusters_have_the_exact_interval() -> None:
    ends = stats.binomtest(3, 8).proportion_ci()
    found = mean_over([1, 1, 1, 0, 0, 0, 0, 0], support=RATE)
    assert found.bounds == pytest.approx([ends.low, ends.high])
    assert found.kind == "exact"


def test_rates_stay_on_their_scale() -> None:
    most_at_one = [1.0] * 19 + [0.2, 0.9]  # many a resample holds ones alone: no end by t
    found = mean_over(most_at_one, support=RATE)
    share = stats.binomtest(19, 21).proportion_ci().low
    assert found.low == pytest.approx(share)
    assert 0.9 < found.value < found.high <= 1


def test_repeating_each_value_does_not_narrow_the_interval() -> None:
    values = np.random.default_rng(3).normal(size=12)
    once = mean_over(values, range(12))
    tenfold = mean_over(np.repeat(values, 10), np.repeat(np.arange(12), 10).tolist())
    assert tenfold.bounds == pytest.approx(once.bounds)
    assert (tenfold.n, tenfold.clusters) == (120, 12)
    naive = mean_over(np.repeat(values, 10))
    assert naive.high - naive.low < 0.5 * (once.high - once.low)


def test_clusters_may_be_of_any_size_and_order() -> None:
    values, clusters = [1.0, 5.0, 2.0, 6.0, 3.0], ["a", "b", "a", "b", "a"]
    interval = mean_over(values, clusters)
    assert interval.value == pytest.approx(17 / 5)
    assert interval.values == (2.0, 5.5)


def test_a_ratio_over_clusters() -> None:
    rng = np.random.default_rng(4)
    base = rng.uniform(1, 2, size=20)
    other = base * rng.uniform(0.6, 0.8, size=20)
    found = over_clusters(
        lambda w: 1 - (w @ other) / (w @ base), (1 - other / base).tolist(), n=20
    )
    assert found.value == pytest.approx(1 - other.sum() / base.sum())
    assert 0.2 < found.low < 0.3 < found.high < 0.4
    exact = over_clusters(lambda w: 1 - (w @ (0.7 * base)) / (w @ base), [0.3] * 20, n=20)
    assert exact.bounds is None


def test_a_stricter_level_is_wider() -> None:
    values = np.random.default_rng(6).normal(size=24)
    plain, strict = mean_over(values), mean_over(values, alpha=0.05 / 6)
    assert strict.low < plain.low < plain.high < strict.high


def test_lengths_must_match() -> None:
    with pytest.raises(ValueError, match="a cluster for each"):
        mean_over([1, 2, 3], ["a", "b"])
    with pytest.raises(ValueError, match="at least one value"):
        mean_over([])


def test_pairing_by_noise_removes_the_noise() -> None:
    noise = np.random.default_rng(5).normal(scale=10, size=50)
    gaps = np.random.default_rng(6).normal(0.5, 0.1, size=50)
    across = mean_over((noise + gaps) - noise, list(range(10)) * 5)
    assert (across.n, across.clusters) == (50, 10)
    assert 0.4 < across.low < 0.5 < across.high < 0.6


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
        paired_rate_difference([1, 0], [1])
    with pytest.raises(ValueError, match="expected outcomes 0 or 1"):
        paired_rate_difference([1, 0.5], [1, 0])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    values = [0.0, 1.0, bad, 1.0]
    for make in (
        lambda: mean_over(values),
        lambda: mean_over(values, [0, 0, 1, 1]),
        lambda: paired_rate_difference([0.0] * 4, values),
        lambda: mean(values),
    ):
        with pytest.raises(ValueError, match="expected finite values, got 1 of 4"):
            make()
    with pytest.raises(ValueError, match="expected finite values, got 1 of 1"):
        mean([bad])
