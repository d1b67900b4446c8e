"""Isolation of the null prompt and the numbers that describe an edit."""

from __future__ import annotations

import pytest
import torch

from redediting.algebra import EditProblem, Multiplier, diagnostics, solve
from redediting.algebra.isolation import leading_directions, null_directions, outside


def null_states(width: int = 64, noise: float = 0.01) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(3, width, generator=generator, dtype=torch.float64)
    mix = torch.rand(77, 3, generator=generator, dtype=torch.float64)
    return mix @ base + noise * torch.randn(77, width, generator=generator, dtype=torch.float64)


def residuals(states: torch.Tensor, directions: torch.Tensor) -> torch.Tensor:
    return (states - states @ directions @ directions.T).norm(dim=1) / states.norm(dim=1)


def test_bos_is_isolated_exactly_and_the_rest_to_the_residual() -> None:
    states = null_states()
    directions = null_directions(states, residual=0.05, cap=0.5)
    eye = torch.eye(directions.shape[1], dtype=torch.float64)
    assert torch.allclose(directions.T @ directions, eye, atol=1e-12)
    left = residuals(states, directions)
    assert left[0] < 1e-12
    assert left.max() <= 0.05
    assert residuals(states, directions[:, :-1]).max() > 0.05


def test_cap_counts_bos() -> None:
    states = null_states(noise=1.0)
    assert null_directions(states, residual=0.01, cap=1 / 8).shape == (64, 8)
    assert null_directions(states, residual=0.01, cap=0.0).shape == (64, 1)
    assert null_directions(states, residual=1.0).shape == (64, 1)


def test_gram_measures_the_change_of_all_layers() -> None:
    weights = [torch.randn(5, 8, dtype=torch.float64) for _ in range(3)]
    x = torch.randn(8, dtype=torch.float64)
    expected = sum((w @ x).square().sum() for w in weights)
    assert torch.allclose(x @ diagnostics.gram(weights) @ x, expected)
    with pytest.raises(ValueError, match="at least one weight"):
        diagnostics.gram([])


def test_firing_is_one_on_the_target_and_zero_at_rest() -> None:
    keys = torch.randn(16, 3, dtype=torch.float64)
    targets = torch.randn(16, 3, dtype=torch.float64)
    metric = diagnostics.gram([torch.randn(20, 16)])
    firm = solve(EditProblem.build(keys, targets, ridge=1e-9))
    assert torch.allclose(
        diagnostics.firing(firm, keys, targets, metric), torch.ones(3).double(), atol=1e-6
    )
    rest = Multiplier(torch.zeros(16, 0).double(), torch.zeros(0, 16).double())
    assert torch.equal(
        diagnostics.firing(rest, keys, targets, metric), torch.zeros(3, dtype=torch.float64)
    )


def test_sin2_of_known_angles() -> None:
    a = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    b = torch.tensor([[2.0, 0.0], [0.0, 3.0], [1.0, 1.0]])
    assert diagnostics.sin2(a, b).tolist() == pytest.approx([0.0, 1.0, 0.5], abs=1e-12)


def test_second_moment_is_the_expected_energy() -> None:
    columns = torch.randn(6, 50, dtype=torch.float64)
    x = torch.randn(6, dtype=torch.float64)
    moment = diagnostics.second_moment(columns, floor=0.0)
    assert torch.allclose(x @ moment @ x, (x @ columns).square().mean())
    flat = diagnostics.second_moment(columns, floor=1.0)
    eye = torch.eye(6, dtype=torch.float64) * columns.square().sum() / 50 / 6
    assert torch.allclose(flat, eye)


def test_what_lies_outside_the_isolated_space() -> None:
    torch.manual_seed(1)
    hard = torch.randn(12, 3, dtype=torch.float64)
    wanted = leading_directions(torch.cat([hard[:, :1], torch.randn(12, 9).double()], dim=1), 4)
    found = outside(wanted, hard)
    assert torch.allclose(found.T @ found, torch.eye(4).double(), atol=1e-12)
    assert (found.T @ hard).abs().max() < 1e-12
    both = torch.cat([hard, found], dim=1)
    left = wanted - both @ torch.linalg.lstsq(both, wanted).solution
    assert left.abs().max() < 1e-12  # together they hold all that was wanted
    inside = torch.linalg.qr(hard).Q[:, :2]
    assert outside(inside, hard).shape == (12, 0)
    assert outside(wanted, hard[:, :0]).shape == (12, 4)
