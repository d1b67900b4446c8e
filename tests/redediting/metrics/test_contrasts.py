"""Several differences at once: wider together than alone, and p values by hand."""

from __future__ import annotations

import numpy as np
import pytest

from redediting.metrics.contrasts import contrasts, holm, sign_flips
from redediting.metrics.intervals import mean_over


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_sign_flips_are_exact_for_few_clusters() -> None:
    assert sign_flips([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]) == pytest.approx(2 / 64)
    assert sign_flips([0.1, -0.1, 0.2, -0.2]) == 1.0


def test_intervals_hold_together() -> None:
    rng = np.random.default_rng(0)
    missed_one, missed_any = 0, 0
    for _ in range(100):
        table = rng.normal(size=(6, 12))
        gaps = {i: dict(enumerate(own)) for i, own in enumerate(table)}
        found = contrasts(gaps)
        missed_any += any(not one.interval.low <= 0 <= one.interval.high for one in found.values())
        missed_one += sum(
            not (one := mean_over(own)).low <= 0 <= one.high for own in table[:3]
        )  # fmt: skip
    assert missed_any / 100 < 0.1  # 5 % nominal for all six together
    assert missed_one / 300 < 0.1


def test_a_family_is_wider_than_one_and_p_is_adjusted() -> None:
    rng = np.random.default_rng(1)
    gaps = {name: dict(enumerate(rng.normal(0.5, 1, 12))) for name in "abcdef"}
    alone, family = contrasts({"a": gaps["a"]})["a"], contrasts(gaps)["a"]
    assert family.interval.low < alone.interval.low < alone.interval.high < family.interval.high
    assert (family.p, family.interval.kind) == (alone.p, "max-t")
    assert family.p_holm is not None
    assert alone.p_holm == alone.p
    assert family.p_holm >= alone.p_holm  # type: ignore[operator]


def test_clusters_are_matched_by_name_and_few_have_no_interval() -> None:
    order = list(range(8))
    values = np.random.default_rng(2).normal(size=8)
    one = {i: values[i] for i in order}
    other = {i: values[i] + 1 for i in reversed(order)}
    found = contrasts({"one": one, "other": other, "few": {0: 1.0, 1: 2.0}})
    assert found["one"].interval.value == pytest.approx(values.mean())
    width = [x.interval.high - x.interval.low for x in (found["one"], found["other"])]
    assert width[0] == pytest.approx(width[1])
    few = found["few"]
    assert (few.interval.bounds, few.p, few.p_holm) == (None, None, None)
    assert few.interval.values == (1.0, 2.0)


def test_a_constant_contrast_does_not_spoil_the_others() -> None:
    rng = np.random.default_rng(3)
    mostly = dict.fromkeys(range(12), 0.0) | {0: 0.5}
    gaps = {
        "a": dict(enumerate(rng.normal(size=12))),
        "b": mostly,
        "c": dict.fromkeys(range(12), 0.1),
    }
    found = contrasts(gaps)
    assert found["a"].interval.bounds is not None
    assert found["b"].interval.bounds is None
    assert found["c"].interval.bounds is None
    assert found["c"].interval.text("{:.1f}") == "0.1 (12 pairs: all 0.1)"
