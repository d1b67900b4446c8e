"""FID and CMMD against closed forms and brute force; drift against its definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import Tensor

from redediting.metrics.fidelity import cmmd, cmmd_difference, drift, fid, mmd2


def normal(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_fid_of_a_set_with_itself_is_zero() -> None:
    x = normal(200, 16, 0)
    assert fid(x, x).value == pytest.approx(0, abs=1e-6)
    assert fid(x, x[torch.randperm(200)]).value == pytest.approx(0, abs=1e-6)


def test_fid_of_a_shift_is_its_square_and_scales() -> None:
    x = normal(200, 8, 1)
    shift = torch.linspace(-1, 1, 8, dtype=torch.float64)
    assert fid(x + shift, x).value == pytest.approx(float(shift @ shift), rel=1e-9)
    # Σ₂ = 4 Σ₁ commute: tr(Σ₁ + 4Σ₁ − 4Σ₁) = tr Σ₁
    centred = x - x.mean(dim=0)
    trace = float(torch.cov(centred.T).trace())
    assert fid(2 * centred, centred).value == pytest.approx(trace, rel=1e-6)


def test_fid_equals_the_closed_form_on_the_sample_moments() -> None:
    x, y = normal(300, 6, 2) @ normal(6, 6, 3), normal(250, 6, 4) @ normal(6, 6, 5) + 0.5
    (m1, c1), (m2, c2) = ((s.mean(dim=0).numpy(), np.cov(s.numpy().T)) for s in (x, y))
    expected = ((m1 - m2) ** 2).sum() + np.trace(c1 + c2 - 2 * sqrtm(c1 @ c2).real)
    result = fid(x, y)
    assert result.value == pytest.approx(expected, rel=1e-6)
    assert result.n == 300
    assert result.low < result.value < result.high


def test_fid_interval_covers_the_closed_form_of_the_gaussians() -> None:
    # N(1, 4I) against N(0, I) in 3 dimensions: 3·1² + 3·(2 − 1)² = 6. One interval may miss, as
    # one in twenty does; so the rate is tested, over seeds.
    results = [fid(2 * normal(2000, 3, 2 * i) + 1, normal(2000, 3, 2 * i + 1)) for i in range(100)]
    values = np.array([result.value for result in results])
    assert abs(values.mean() - 6) < 4 * values.std(ddof=1) / 10
    assert 0.87 <= np.mean([result.low < 6 < result.high for result in results]) <= 1.0


def test_jackknife_error_matches_the_spread_over_fresh_samples() -> None:
    def spread(metric: object, scale: float) -> float:
        results = [
            metric(normal(200, 4, 2 * i) + scale, normal(200, 4, 2 * i + 1)) for i in range(30)
        ]
        real = np.std([r.value for r in results], ddof=1)
        half = np.mean([r.high - r.value for r in results])
        return float(half / (2.262 * real))  # Student's t, 9 degrees of freedom

    assert 0.7 < spread(fid, 1.0) < 1.4
    assert 0.7 < spread(cmmd, 0.5) < 1.4


def test_mmd_equals_two_loops() -> None:
    x, y = normal(7, 3, 8), normal(5, 3, 9) + 1
    k = lambda a, b: math.exp(-float((a - b).square().sum()) / (2 * 1.3**2))  # noqa: E731
    within_x = np.mean([k(x[i], x[j]) for i in range(7) for j in range(7) if i != j])
    within_y = np.mean([k(y[i], y[j]) for i in range(5) for j in range(5) if i != j])
    across = np.mean([k(a, b) for a in x for b in y])
    assert mmd2(x, y, sigma=1.3) == pytest.approx(within_x + within_y - 2 * across, rel=1e-10)


def test_mmd_approaches_the_closed_form_of_gaussians() -> None:
    sigma, shift, d = 1.5, 0.7, 3
    x, y = normal(3000, d, 10), 2 * normal(3000, d, 11) + shift

    def kernel_mean(variance: float, distance: float) -> float:
        total = sigma**2 + variance
        return (sigma**2 / total) ** (d / 2) * math.exp(-(distance**2) * d / (2 * total))

    expected = kernel_mean(2, 0) + kernel_mean(8, 0) - 2 * kernel_mean(5, shift)
    assert mmd2(x, y, sigma=sigma) == pytest.approx(expected, rel=0.05)


def test_cmmd_is_unbiased_on_one_distribution() -> None:
    values = np.array(
        [cmmd(normal(24, 8, 2 * i), normal(24, 8, 2 * i + 1), blocks=2).value for i in range(300)]
    )
    error = values.std(ddof=1) / math.sqrt(len(values))
    assert abs(values.mean()) < 3 * error
    biased = 2 * 1000 * (1 - math.exp(-1 / 100)) / 24  # what the diagonal would add, about 0.83
    assert error < biased / 20  # so the test could tell
    assert (values < 0).any()


def test_cmmd_scale_and_invariance() -> None:
    x, y = normal(40, 8, 12), normal(50, 8, 13) + 0.4
    unit_x, unit_y = (s / s.norm(dim=1, keepdim=True) for s in (x, y))
    assert cmmd(x, y).value == pytest.approx(1000 * mmd2(unit_x, unit_y, sigma=10), rel=1e-9)
    assert cmmd(3 * x, 0.1 * y).value == pytest.approx(cmmd(x, y).value, rel=1e-9)
    assert cmmd(y, x).value == pytest.approx(cmmd(x, y).value, rel=1e-9)
    assert cmmd(x.float(), y.float()).value == pytest.approx(cmmd(x, y).value, rel=1e-4)


def test_drift_is_one_minus_cosine_per_sample() -> None:
    x = normal(6, 4, 14)
    assert drift(x, 2 * x) == pytest.approx(torch.zeros(6), abs=1e-12)
    assert drift(x, -x) == pytest.approx(2 * torch.ones(6))
    turned = torch.tensor([[0.0, 1.0]])
    assert drift(torch.tensor([[1.0, 0.0]]), turned).tolist() == pytest.approx([1.0])


def test_shapes_that_do_not_fit_are_named() -> None:
    x = normal(40, 4, 15)
    with pytest.raises(ValueError, match=r"got \(40, 4\) and \(40, 3\)"):
        fid(x, x[:, :3])
    with pytest.raises(ValueError, match="at least 2 samples a block"):
        fid(x[:19], x)
    with pytest.raises(ValueError, match="at least 2 blocks"):
        cmmd(x, x, blocks=1)
    with pytest.raises(ValueError, match="one shape"):
        drift(x, x[:5])


def test_the_difference_of_two_cmmds_and_its_clusters() -> None:
    reference, near, far = normal(60, 8, 1), normal(60, 8, 2) + 0.2, normal(60, 8, 3) + 2
    pairs = [f"pair {i % 6}" for i in range(60)]
    found = cmmd_difference(far, near, reference, pairs)
    expected = cmmd(far, reference).value - cmmd(near, reference).value
    assert found.value == pytest.approx(expected, rel=1e-9)
    assert 0 < found.low < found.value < found.high
    same = cmmd_difference(near, near, reference, pairs)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    with pytest.raises(ValueError, match="at least 3 of these"):
        cmmd_difference(far, near, reference, ["a"] * 60)


def test_features_that_are_not_finite_are_refused() -> None:
    x = normal(40, 4, 16)
    y = x.clone()
    y[3, 1] = math.nan
    for make in (
        lambda: fid(x, y),
        lambda: cmmd(y, x),
        lambda: cmmd_difference(x, y, x, [i % 4 for i in range(40)]),
        lambda: mmd2(x, y, sigma=1.0),
        lambda: drift(y, x),
    ):
        with pytest.raises(ValueError, match=r"expected finite values, got \d of"):
            make()
