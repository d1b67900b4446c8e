"""The closed form against invariants and independent minimisers, in fp64."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from redediting.algebra import Certificate, EditProblem, Multiplier, solve
from redediting.algebra.kernel import free_basis

D = 24


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def make_problem(
    *, n: int = 6, retained: int = 9, hard: int = 3, penalty: bool = True
) -> EditProblem:
    root = random(D, D, seed=5)
    return EditProblem.build(
        random(D, n, seed=1),
        random(D, n, seed=2),
        weights=random(n, seed=3).abs() + 0.1,
        retain=random(D, retained, seed=4),
        retain_weights=random(retained, seed=6).abs(),
        hard=random(D, hard, seed=7),
        penalty=root @ root.T / D + 0.1 * torch.eye(D) if penalty else None,
        ridge=0.3,
        retain_strength=0.7,
    )


CASES = {
    "small": {},
    "many keys": {"n": 60},
    "many retained": {"retained": 80},
    "nothing retained": {"retained": 0, "hard": 0, "penalty": False},
    "no hard": {"hard": 0},
    "identity penalty": {"penalty": False},
}
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def objective(problem: EditProblem, weight: Tensor, delta: Tensor) -> Tensor:
    penalty = torch.eye(D, dtype=torch.float64) if problem.penalty is None else problem.penalty
    miss = (weight + delta) @ problem.keys - weight @ problem.targets
    leak = (delta @ problem.retain).square() * problem.retain_weights
    return (
        (miss.square() * problem.weights).sum()
        + problem.retain_strength * leak.sum()
        + problem.ridge * (delta @ penalty @ delta.T).trace()
    )


@each_case
def test_no_feasible_step_lowers_the_objective(case: dict) -> None:
    problem, weight = make_problem(**case), random(5, D, seed=8)
    basis = free_basis(problem.hard)
    basis = torch.eye(D, dtype=torch.float64) if basis is None else basis
    delta = solve(problem).delta(weight)
    coordinates = (delta @ basis).requires_grad_()
    objective(problem, weight, coordinates @ basis.T).backward()
    scale = (weight @ problem.targets * problem.weights @ problem.keys.T).norm()
    assert coordinates.grad is not None
    assert coordinates.grad.norm() < 1e-10 * scale


@each_case
def test_primal_and_dual_agree(case: dict) -> None:
    problem = make_problem(**case)
    primal, dual = (solve(problem, form=form).matrix() for form in ("primal", "dual"))
    assert torch.allclose(primal, dual, atol=1e-10 * float(primal.norm()), rtol=0)


def test_auto_takes_the_smaller_system() -> None:
    few, many = make_problem(n=2, retained=1), make_problem(n=2, retained=50)
    assert torch.equal(solve(few).right, solve(few, form="dual").right)
    assert torch.equal(solve(many).right, solve(many, form="primal").right)


@each_case
def test_hard_directions_do_not_move(case: dict) -> None:
    problem = make_problem(**case)
    moved = solve(problem)(problem.hard)
    assert moved.abs().max() < 1e-10 if moved.numel() else moved.shape == (D, 0)


@each_case
def test_efficacy_identity(case: dict) -> None:
    """``(I+M)C - C* = -D (I + S CᵀKC)⁻¹``."""
    problem = make_problem(**case)
    missed = problem.keys + solve(problem)(problem.keys) - problem.targets
    halves = Certificate(problem).kernel.half(problem.keys)
    system = torch.eye(problem.keys.shape[1]) + problem.weights[:, None] * (halves.T @ halves)
    expected = -torch.linalg.solve(system, problem.displacement, left=False)
    assert torch.allclose(missed, expected, atol=1e-9)


@each_case
def test_certificate_is_never_violated(case: dict) -> None:
    problem, weight = make_problem(**case), random(5, D, seed=8)
    certificate, multiplier = Certificate(problem), solve(problem)
    tokens = torch.cat(
        [random(D, 200, seed=9), problem.keys, problem.retain, problem.displacement], dim=1
    )
    change = (weight @ multiplier(tokens)).norm(dim=0)
    bound = certificate.bound(weight, tokens)
    assert (change <= bound * (1 + 1e-9)).all()


def test_certificate_is_tight_somewhere() -> None:
    """One key with s cᵀKc = 1 meets the bound with equality, so the ½ is not slack."""
    key = random(D, 1, seed=1)
    problem = EditProblem.build(key, random(D, 1, seed=2), ridge=float(key.square().sum()))
    change = solve(problem)(key).norm()
    bound = Certificate(problem).bound(torch.eye(D), key)
    assert change.item() == pytest.approx(bound.item(), rel=1e-10)


def test_order_of_columns_does_not_matter() -> None:
    problem = make_problem(n=12)
    order, kept = torch.randperm(12), torch.randperm(9)
    shuffled = dataclasses.replace(
        problem,
        keys=problem.keys[:, order],
        targets=problem.targets[:, order],
        weights=problem.weights[order],
        retain=problem.retain[:, kept],
        retain_weights=problem.retain_weights[kept],
    )
    assert torch.allclose(solve(problem).matrix(), solve(shuffled).matrix(), atol=1e-10)


def test_weight_is_multiplicity() -> None:
    problem = make_problem(n=3)
    double = dataclasses.replace(problem, weights=problem.weights * 2)
    twice = dataclasses.replace(
        problem,
        keys=problem.keys.repeat(1, 2),
        targets=problem.targets.repeat(1, 2),
        weights=problem.weights.repeat(2),
    )
    assert torch.allclose(solve(double).matrix(), solve(twice).matrix(), atol=1e-10)


def test_zero_weight_column_is_no_column() -> None:
    problem = make_problem(n=4)
    idle = dataclasses.replace(problem, weights=problem.weights * torch.tensor([1.0, 1, 0, 1]))
    keep = [0, 1, 3]
    without = dataclasses.replace(
        problem,
        keys=problem.keys[:, keep],
        targets=problem.targets[:, keep],
        weights=problem.weights[keep],
    )
    for form in ("primal", "dual"):
        assert torch.allclose(solve(idle, form=form).matrix(), solve(without).matrix(), atol=1e-10)


def test_whitelist_columns_may_move_to_the_retained() -> None:
    problem = make_problem(n=6)
    still = torch.tensor([False, True, False, False, True, False])
    targets = torch.where(still, problem.keys, problem.targets)
    problem = dataclasses.replace(problem, targets=targets)
    moved = problem.whitelist_retained()
    assert moved.keys.shape[1] == 4
    assert moved.retain.shape[1] == problem.retain.shape[1] + 2
    assert torch.allclose(solve(problem).matrix(), solve(moved).matrix(), atol=1e-10)
    dropped = dataclasses.replace(
        moved, retain=problem.retain, retain_weights=problem.retain_weights
    )
    assert not torch.allclose(solve(problem).matrix(), solve(dropped).matrix(), atol=1e-3)


def test_strong_retention_tends_to_the_hard_constraint() -> None:
    problem = make_problem(hard=0, retained=3)
    hard = dataclasses.replace(
        problem, hard=problem.retain, retain=problem.retain[:, :0],
        retain_weights=problem.retain_weights[:0],
    )  # fmt: skip
    soft = dataclasses.replace(problem, retain_strength=1e8)
    assert torch.allclose(solve(soft).matrix(), solve(hard).matrix(), atol=1e-5)


def test_relative_scales_do_not_depend_on_units() -> None:
    problem = make_problem()
    scaled = problem.with_relative_scales(ridge=0.1, retain_strength=2.0)
    other = dataclasses.replace(
        problem, weights=problem.weights * 50, retain_weights=problem.retain_weights / 7,
        penalty=problem.penalty * 3,
    ).with_relative_scales(ridge=0.1, retain_strength=2.0)  # fmt: skip
    assert torch.allclose(solve(scaled).matrix(), solve(other).matrix(), atol=1e-10)
    plain = EditProblem.build(problem.keys, problem.targets)
    plain = plain.with_relative_scales(ridge=0.1, retain_strength=1.0)
    assert plain.ridge == pytest.approx(0.1 * float(problem.keys.square().sum()) / D)


def test_compressed_multiplier_is_the_same_map() -> None:
    thin = Multiplier(random(D, 7, seed=1).repeat(1, 2), random(14, D, seed=2))
    full = solve(make_problem(n=60))
    for multiplier, rank in ((thin, 7), (full, D - 3)):
        compressed = multiplier.compress()
        assert compressed.rank == rank
        assert torch.allclose(compressed.matrix(), multiplier.matrix(), atol=1e-10)


def test_nothing_to_edit_changes_nothing() -> None:
    problem = EditProblem.build(random(D, 3), random(D, 3))
    multiplier = solve(problem).compress()
    assert multiplier.rank == 0
    assert torch.equal(multiplier.matrix(), torch.zeros(D, D, dtype=torch.float64))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": random(D, 5)}, r"expected targets of shape \(24, 6\), got \(24, 5\)"),
        ({"weights": -torch.ones(6)}, "expected weights >= 0, got -1"),
        ({"ridge": 0.0}, "expected ridge > 0, got 0"),
        ({"retain_strength": -1.0}, "expected retain_strength >= 0"),
        ({"penalty": torch.eye(3)}, "expected penalty of shape"),
    ],
)
def test_wrong_problems_are_refused(change: dict, message: str) -> None:
    options = {"keys": random(D, 6), "targets": random(D, 6)} | change
    with pytest.raises(ValueError, match=message):
        EditProblem.build(**options)


def test_no_free_direction_is_refused() -> None:
    problem = make_problem(hard=D)
    with pytest.raises(ValueError, match="hard-retained states fill all 24 dimensions"):
        solve(problem)
    inside = EditProblem.build(random(D, 2), random(D, 2, seed=1), hard=random(D, 2))
    with pytest.raises(ValueError, match="edited states lie in the hard-retained space"):
        inside.with_relative_scales(ridge=1.0, retain_strength=1.0)
