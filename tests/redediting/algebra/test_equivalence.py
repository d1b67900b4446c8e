"""Equivalence scores by hand."""

import math

import pytest
import torch

from redediting.algebra.equivalence import equivalence


def score(
    source: list[list[float]],
    target: list[list[float]],
    *,
    neutral: tuple[list[float], list[float]] = ([0.0, 0.0, 5.0], [2.0, 0.0, 5.0]),
    prior: float = 1.0,
) -> list[list[float]]:
    """τ at the origin, τ* at (2, 0, 0); the neutral insertion moves both along the third axis."""
    one, other = torch.tensor(source), torch.tensor(target)
    return equivalence(
        one,
        other,
        (torch.zeros(3), torch.tensor([2.0, 0.0, 0.0])),
        (torch.tensor([neutral[0]]), torch.tensor([neutral[1]])),
        torch.full((len(source), len(target)), prior),
    ).tolist()


def test_hand_computed() -> None:
    found = score(
        [[0.0, 0.0, 0.0], [0.0, 1.0, 0.0]],
        [[2.0, 0.0, 0.0], [1.0, 0.0, 0.0], [2.0, 2.0, 0.0], [-2.0, 0.0, 0.0]],
        prior=0.5,
    )
    root = math.sqrt
    expected = [
        # the same move; half as far; at 45° and √2 as far; backwards
        [1.0, 0.5, (1 / root(2)) * (2 / root(8)), 0.0],
        # from (0, 1, 0): (2, -1), (1, -1), (2, 1), (-2, -1)
        [
            (2 / root(5)) * (2 / root(5)),
            (1 / root(2)) * (root(2) / 2),
            (2 / root(5)) * (2 / root(5)),
            0.0,
        ],
    ]
    assert found == [pytest.approx([0.5 * e for e in row], abs=1e-7) for row in expected]


def test_a_neutral_insertion_is_perfectly_equivalent() -> None:
    neutral = ([1.0, 2.0, 3.0], [4.0, -1.0, 0.5])
    assert score([neutral[0]], [neutral[1]], neutral=neutral)[0][0] == pytest.approx(1.0)
    plain = score([neutral[0]], [neutral[1]])[0][0]
    assert plain == pytest.approx((3 / math.sqrt(24.25)) * (2 / math.sqrt(24.25)))


def test_scores_are_in_range_and_nothing_moves_is_zero() -> None:
    torch.manual_seed(0)
    found = equivalence(
        torch.randn(5, 8),
        torch.randn(4, 8),
        (torch.randn(8), torch.randn(8)),
        (torch.randn(3, 8), torch.randn(3, 8)),
        torch.rand(5, 4),
    )
    assert found.shape == (5, 4)
    assert 0 <= found.min() <= found.max() <= 1
    assert score([[1.0, 1.0, 0.0]], [[1.0, 1.0, 0.0]]) == [[0.0]]
