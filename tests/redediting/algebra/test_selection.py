"""Greedy contexts: exact updates, and no worse than the list they choose from."""

from __future__ import annotations

import time

import pytest
import torch
from torch import Tensor

from redediting.algebra import EditProblem, solve
from redediting.algebra.kernel import Kernel, free_basis
from redediting.algebra.selection import ContextColumns, ContextSelector
from redediting.algebra.solver import retain_metric


def make_pool(seed: int, *, width: int = 12, n: int = 20, columns: int = 3) -> ContextColumns:
    """Contexts of a trigger: a common state and displacement, and their own part of each."""
    random = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    keys = draw(width, 1) + 0.7 * draw(width, n * columns)
    targets = keys + draw(width, 1) + 0.5 * draw(width, width) @ keys / width**0.5
    owner = torch.arange(n).repeat_interleave(columns)
    return ContextColumns(
        keys, targets, 0.1 + torch.rand(n * columns, generator=random).double(), owner
    )


def make_problem(pool: ContextColumns, chosen: Tensor, seed: int = 99) -> EditProblem:
    random = torch.Generator().manual_seed(seed)
    width = len(pool.keys)
    return EditProblem.build(
        pool.keys[:, chosen],
        pool.targets[:, chosen],
        weights=pool.weights[chosen],
        retain=torch.randn(width, 5, generator=random).double(),
        hard=torch.randn(width, 2, generator=random).double(),
        ridge=0.3,
        retain_strength=2.0,
    )


def make_selector(pool: ContextColumns) -> ContextSelector:
    problem = make_problem(pool, pool.owner == 0)
    width = len(pool.keys)
    root = torch.randn(width, width, generator=torch.Generator().manual_seed(5)).double()
    kernel = Kernel.of(retain_metric(problem), free_basis(problem.hard))
    return ContextSelector(kernel, root)


def test_updates_equal_the_solve() -> None:
    pool = make_pool(0)
    selector = make_selector(pool)
    choice = selector.choose(pool, least=4, most=7, tolerance=1e-9)
    assert len(set(choice.contexts)) == 7
    multiplier = solve(make_problem(pool, torch.isin(pool.owner, torch.tensor(choice.contexts))))
    kernel = selector.kernel
    assert torch.allclose(multiplier(pool.keys), selector.map @ kernel.half(pool.keys), atol=1e-9)
    missed = selector.root @ (pool.targets - pool.keys - multiplier(pool.keys))
    whole = selector.root @ (pool.targets - pool.keys)
    squares = [
        (side.square().sum(dim=0) * pool.weights).reshape(20, 3).sum(dim=1)
        for side in (missed, whole)
    ]
    expected = (squares[0] / squares[1].mean()).sqrt()
    assert torch.allclose(selector.errors(pool), expected, atol=1e-9)
    assert choice.worst[-1] == pytest.approx(float(expected.max()))


def test_a_second_pool_builds_on_the_first() -> None:
    one, other = make_pool(1), make_pool(2)
    selector = make_selector(one)
    first = selector.choose(one, least=3, most=3, tolerance=0.0).contexts
    second = selector.choose(other, least=2, most=2, tolerance=0.0).contexts
    joint = ContextColumns(
        torch.cat([one.keys, other.keys], dim=1),
        torch.cat([one.targets, other.targets], dim=1),
        torch.cat([one.weights, other.weights]),
        torch.cat([one.owner, other.owner + 20]),
    )
    chosen = torch.tensor([*first, *(20 + i for i in second)])
    multiplier = solve(make_problem(joint, torch.isin(joint.owner, chosen)))
    moved = selector.map @ selector.kernel.half(joint.keys)
    assert torch.allclose(multiplier(joint.keys), moved, atol=1e-9)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("first", [0, 3])
def test_never_worse_than_the_head_of_the_list(seed: int, first: int) -> None:
    pool = make_pool(seed, columns=1 + seed % 3)
    greedy = make_selector(pool).choose(pool, least=1, most=6, tolerance=0.02, first=first)
    n = len(greedy.contexts)
    plain = make_selector(pool).choose(pool, least=n, most=n, tolerance=0.0, first=n)
    assert plain.contexts == tuple(range(n))
    assert set(range(first)) <= set(greedy.contexts)
    assert greedy.worst[-1] <= plain.worst[-1] + 1e-12


def test_greed_takes_the_worst_and_usually_wins() -> None:
    wins = 0
    for seed in range(20):
        pool = make_pool(seed)
        selector = make_selector(pool)
        worst = int(selector.errors(pool).argmax())
        greedy = selector.choose(pool, least=6, most=6, tolerance=0.0)
        plain = make_selector(pool).choose(pool, least=6, most=6, tolerance=0.0, first=6)
        if greedy.worst[-1] < plain.worst[-1]:
            wins += 1
            assert greedy.contexts[0] == worst
    assert wins >= 14


def test_it_stops_where_the_worst_is_good_enough() -> None:
    pool = make_pool(3)
    whole = make_selector(pool).choose(pool, least=1, most=99, tolerance=0.0)
    assert len(whole.contexts) == pool.size
    loose = make_selector(pool).choose(
        pool, least=2, most=99, tolerance=(whole.worst[5] + whole.worst[4]) / 2
    )
    assert 2 <= len(loose.contexts) <= 6
    assert len(make_selector(pool).choose(pool, least=5, most=9, tolerance=9e9).contexts) == 5


@pytest.mark.parametrize(("least", "most", "first"), [(0, 3, 0), (4, 3, 0), (1, 3, 4)])
def test_senseless_numbers_are_refused(least: int, most: int, first: int) -> None:
    pool = make_pool(0)
    with pytest.raises(ValueError, match="expected first <= most"):
        make_selector(pool).choose(pool, least=least, most=most, tolerance=0.1, first=first)


def test_fast_enough_at_the_worlds_width() -> None:
    pool = make_pool(0, width=256, n=180, columns=4)
    selector = make_selector(pool)
    start = time.process_time()
    choice = selector.choose(pool, least=64, most=64, tolerance=0.0)
    assert len(choice.contexts) == 64
    assert time.process_time() - start < 20  # a second on a free core
