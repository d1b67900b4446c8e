"""Scales of layers, post-hoc projection and edits one after another, in fp64."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from redediting.algebra import Certificate, EditProblem, Multiplier, solve
from redediting.algebra.isolation import leading_directions
from redediting.algebra.layers import (
    Summand,
    Summands,
    compose,
    edit_summands,
    edited_weight,
    layer_change,
    layer_multiplier,
    mean_multiplier,
    target_scale,
)
from redediting.algebra.solver import solve_pair

D = 24


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def make_problem(seed: int = 0, *, n: int = 6, hard: int = 3) -> EditProblem:
    root = random(D, D, seed=seed + 5)
    return EditProblem.build(
        random(D, n, seed=seed + 1),
        1.3 * random(D, n, seed=seed + 2),
        weights=random(n, seed=seed + 3).abs() + 0.1,
        retain=random(D, 9, seed=seed + 4),
        retain_weights=random(9, seed=seed + 6).abs(),
        hard=random(D, hard, seed=seed + 7),
        penalty=root @ root.T / D + 0.1 * torch.eye(D),
        ridge=0.3,
        retain_strength=0.7,
    )


def layers() -> dict[str, Tensor]:
    return {f"{i}.{kind}": random(5 + i, D, seed=20 + i) for i in range(3) for kind in "kv"}


def with_projection(problem: EditProblem, k: int, *, inside: bool) -> EditProblem:
    directions = leading_directions(problem.retain * problem.retain_weights.sqrt(), k)
    if inside:
        return dataclasses.replace(problem, hard=torch.cat([problem.hard, directions], dim=1))
    return dataclasses.replace(problem, removed=directions)


def objective(problem: EditProblem, weight: Tensor, delta: Tensor, scale: float) -> Tensor:
    miss = (weight + delta) @ problem.keys - scale * weight @ problem.targets
    leak = (delta @ problem.retain).square() * problem.retain_weights
    return (
        (miss.square() * problem.weights).sum()
        + problem.retain_strength * leak.sum()
        + problem.ridge * (delta @ problem.penalty @ delta.T).trace()
    )


@pytest.mark.parametrize("scale", [1.0, 0.6, 1.7])
@pytest.mark.parametrize("n", [4, 60])
def test_scaled_targets_are_met_by_two_shared_matrices(scale: float, n: int) -> None:
    """``W(ρM* - M₀)`` is the minimiser that a descent from zero finds, which knows no algebra."""
    problem, weight = make_problem(n=n), random(5, D, seed=30)
    target, key = solve_pair(problem)
    delta = weight @ (scale * target.matrix() - key.matrix())
    assert (delta @ problem.hard).abs().max() < 1e-10

    keep = torch.eye(D) - problem.hard @ torch.linalg.pinv(problem.hard)  # another route to N
    free = torch.zeros(5, D, dtype=torch.float64, requires_grad=True)
    descent = torch.optim.LBFGS(
        [free], max_iter=2000, history_size=50, tolerance_grad=1e-13, tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure() -> Tensor:
        descent.zero_grad()
        value = objective(problem, weight, free @ keep, scale)
        value.backward()
        return value

    descent.step(closure)
    found = (free @ keep).detach()
    assert (found - delta).norm() < 1e-6 * delta.norm()


@pytest.mark.parametrize("n", [4, 60])
def test_primal_and_dual_agree_on_both_matrices(n: int) -> None:
    problem = with_projection(make_problem(n=n), 2, inside=False)
    for primal, dual in zip(
        solve_pair(problem, form="primal"), solve_pair(problem, form="dual"), strict=True
    ):
        size = float(primal.matrix().norm())
        assert torch.allclose(primal.matrix(), dual.matrix(), atol=1e-10 * size, rtol=0)


def test_energy_gives_targets_the_size_of_what_they_replace() -> None:
    problem, weight = make_problem(), random(5, D, seed=30)
    scale = target_scale(
        weight, dataclasses.replace(problem, targets=1.3 * problem.keys), "energy"
    )
    assert scale == pytest.approx(1 / 1.3)
    scale = target_scale(
        weight, dataclasses.replace(problem, targets=1.3 * problem.keys), "minmax"
    )
    assert scale == pytest.approx(1 / 1.3)
    assert target_scale(weight, problem, "none") == 1.0
    large = dataclasses.replace(problem, targets=100 * problem.keys)
    small = dataclasses.replace(problem, targets=problem.keys / 100)
    assert target_scale(weight, large, "energy") == 0.5
    assert target_scale(weight, small, "minmax") == 2.0


def test_scale_is_measured_on_content() -> None:
    problem, weight = make_problem(), random(5, D, seed=30)
    content = torch.tensor([True, False, False, True, False, False])
    targets = torch.where(content, problem.keys / 1.25, 50 * problem.keys)
    problem = dataclasses.replace(problem, targets=targets, content=content)
    assert target_scale(weight, problem, "energy") == pytest.approx(1.25)
    nothing = dataclasses.replace(problem, targets=torch.zeros_like(targets))
    with pytest.raises(ValueError, match="reads nothing of the targets, so rho='minmax'"):
        target_scale(weight, nothing, "minmax")


def test_every_layer_gets_its_own_scaled_edit() -> None:
    """A scale is measured on, and applied to, the columns that move; the others are retained."""
    problem, weights = make_problem(), layers()
    still = torch.tensor([False, True, False, False, False, True])
    problem = dataclasses.replace(
        problem, targets=torch.where(still, problem.keys, problem.targets)
    )
    parts = edit_summands(problem, weights, rho="energy")
    moved = problem.whitelist_retained()
    target, key = solve_pair(moved)
    scales = set()
    for name, weight in weights.items():
        scale = target_scale(weight, moved, "energy")
        scales.add(round(scale, 6))
        expected = weight + weight @ (scale * target.matrix() - key.matrix())
        assert torch.allclose(edited_weight(parts, name, weight), expected, atol=1e-10)
        change = expected - weight
        bound = Certificate(moved).bound(weight, problem.keys, scale=scale)
        assert ((change @ problem.keys).norm(dim=0) <= bound * (1 + 1e-9)).all()
    assert len(scales) > 2


def test_without_a_scale_one_multiplier_serves_all_layers() -> None:
    problem, weights = make_problem(), layers()
    parts = edit_summands(problem, weights)
    shared = solve(problem).matrix()
    for name in weights:
        found = layer_multiplier(parts, name)
        assert found is not None
        assert torch.equal(found.matrix(), shared)
    assert layer_multiplier(parts, "no such layer") is None


@pytest.mark.parametrize("rho", ["none", "energy"])
@pytest.mark.parametrize("edits", [2, 7])
def test_edits_one_after_another_compose_exactly(rho: str, edits: int) -> None:
    """Each is computed on what the former ones left; the product is one edit of the clean."""
    clean, parts, product = layers(), (), layers()
    for i in range(edits):
        now = {name: edited_weight(parts, name, weight) for name, weight in clean.items()}
        found = edit_summands(make_problem(10 * i), now, rho=rho)
        for name, weight in product.items():
            own = layer_multiplier(found, name)
            assert own is not None
            product[name] = weight @ (torch.eye(D) + own.matrix())
        parts = compose(parts, found)
    for name, weight in clean.items():
        error = edited_weight(parts, name, weight) - product[name]
        assert error.norm() < 1e-11 * product[name].norm()
    assert len(parts) == 1 if rho == "none" else len(parts) <= max(2, len(clean))
    assert all(part.multiplier.rank <= D for part in parts)


def test_composition_is_not_commutative_and_joint_is_neither() -> None:
    one, two, weights = make_problem(hard=0), make_problem(10, hard=0), layers()
    a, b = (edit_summands(problem, weights) for problem in (one, two))
    both = EditProblem.build(
        torch.cat([one.keys, two.keys], dim=1),
        torch.cat([one.targets, two.targets], dim=1),
        ridge=0.3,
    )

    def matrix(parts: Summands) -> Tensor:
        found = layer_multiplier(parts, "0.k")
        assert found is not None
        return found.matrix()

    forth, back = matrix(compose(a, b)), matrix(compose(b, a))
    assert (forth - back).norm() > 1e-3 * forth.norm()
    assert (forth - matrix(edit_summands(both, weights))).norm() > 1e-3 * forth.norm()
    assert torch.equal(matrix(compose((), a)), matrix(a))


def test_edits_of_different_layers_compose() -> None:
    left = Summand(Multiplier(random(D, 2), random(2, D, seed=1)), {"0.k": 1.0, "1.k": 0.5})
    right = Summand(
        Multiplier(random(D, 2, seed=2), random(2, D, seed=3)), {"1.k": 2.0, "0.v": 1.0}
    )
    parts, weights = compose((left,), (right,)), layers()
    a, b, eye = left.multiplier.matrix(), right.multiplier.matrix(), torch.eye(D)
    for name, factor in {
        "0.k": eye + a,
        "1.k": (eye + a / 2) @ (eye + 2 * b),
        "0.v": eye + b,
    }.items():
        assert torch.allclose(edited_weight(parts, name, weights[name]), weights[name] @ factor)
    assert torch.equal(edited_weight(parts, "2.v", weights["2.v"]), weights["2.v"])


@pytest.mark.parametrize("rho", ["none", "energy"])
def test_rows_compose_and_are_measured(rho: str) -> None:
    """``((W + WA + 1aᵀ)(I + B) + 1bᵀ)`` and what of it each token and the nearest M see."""
    weights = layers()
    one = dataclasses.replace(make_problem(), shift=random(D, seed=40))
    two = dataclasses.replace(make_problem(10), shift=random(D, seed=41))
    first = edit_summands(one, weights, rho=rho)
    now = {name: edited_weight(first, name, weight) for name, weight in weights.items()}
    second = edit_summands(two, now, rho=rho)
    parts = compose(first, second)
    if rho == "none":
        assert len(parts) == 2  # one multiplier, one row
    x = random(D, 4, seed=42)
    changed = size = torch.zeros(4, dtype=torch.float64)
    pulled = torch.zeros(D, D, dtype=torch.float64)
    for name, weight in weights.items():
        multiplier = layer_multiplier(first, name)
        assert multiplier is not None
        assert one.shift is not None
        plain = edited_weight(
            edit_summands(dataclasses.replace(one, shift=None), weights, rho=rho), name, weight
        )
        assert torch.allclose(now[name], plain + one.shift, atol=1e-10)
        expected = edited_weight(second, name, now[name])
        found = edited_weight(parts, name, weight)
        assert (found - expected).norm() < 1e-11 * expected.norm()
        change = expected - weight
        changed = changed + (change @ x).square().sum(dim=0)
        size = size + (weight @ x).square().sum(dim=0)
        pulled += weight.T @ change
    ratio = layer_change(parts, weights, x)
    assert torch.allclose(ratio, (changed / size).sqrt(), atol=1e-10)
    metric = sum(weight.T @ weight for weight in weights.values())
    mean = mean_multiplier(parts, weights).matrix()
    assert (metric @ mean - pulled).norm() < 1e-9 * pulled.norm()


def test_projection_does_not_depend_on_signs() -> None:
    problem = with_projection(make_problem(), 3, inside=False)
    signs = torch.tensor([1.0, -1.0, -1.0])
    assert problem.removed is not None
    flipped = dataclasses.replace(problem, removed=problem.removed * signs)
    assert torch.allclose(solve(problem).matrix(), solve(flipped).matrix(), atol=1e-12)
    inside = with_projection(make_problem(), 3, inside=True)
    turned = dataclasses.replace(
        inside, hard=torch.cat([inside.hard[:, :-3], inside.hard[:, -3:] * signs], dim=1)
    )
    assert torch.allclose(solve(inside).matrix(), solve(turned).matrix(), atol=1e-10)


def test_leading_directions_hold_most_energy() -> None:
    columns = random(D, 40) * torch.linspace(3, 0.1, D)[:, None]
    found = leading_directions(columns, 4)
    assert torch.allclose(found.T @ found, torch.eye(4, dtype=torch.float64), atol=1e-12)
    _, values, _ = torch.linalg.svd(columns)
    assert (found.T @ columns).square().sum() == pytest.approx(values[:4].square().sum().item())


@pytest.mark.parametrize("k", [1, 3])
def test_projections_leak_alike_but_inside_misses_less(k: int) -> None:
    """Post-hoc throws away part of the solution; inside finds the best one without it."""
    problem = make_problem(hard=0)
    inside, posthoc = (with_projection(problem, k, inside=choice) for choice in (True, False))
    directions = posthoc.removed
    assert directions is not None
    weight = random(30, D, seed=30)
    losses = {}
    for name, posed in (("off", problem), ("inside", inside), ("posthoc", posthoc)):
        multiplier = solve(posed)
        losses[name] = float(objective(problem, weight, multiplier.delta(weight), 1.0))
        leak = multiplier(directions).abs().max()
        assert leak > 1e-3 if name == "off" else leak < 1e-10
    assert losses["off"] < losses["inside"] < losses["posthoc"]


def test_certificate_and_efficacy_hold_after_a_projection() -> None:
    problem, weight = with_projection(make_problem(), 2, inside=False), random(5, D, seed=30)
    multiplier, certificate = solve(problem), Certificate(problem)
    missed = problem.keys + multiplier(problem.keys) - problem.targets
    halves, seen = (certificate.kernel.half(side) for side in
                    (problem.keys, problem.seen(problem.keys)))  # fmt: skip
    gram, felt = (problem.weights[:, None] * (halves.T @ side) for side in (halves, seen))
    pulled = torch.linalg.solve(torch.eye(len(gram)) + gram, felt)
    expected = problem.displacement @ pulled - problem.displacement
    assert torch.allclose(missed, expected, atol=1e-9)
    tokens = torch.cat([random(D, 200, seed=9), problem.keys, problem.retain], dim=1)
    change = (weight @ multiplier(tokens)).norm(dim=0)
    bound = certificate.bound(weight, tokens)
    assert (change <= bound * (1 + 1e-9)).all()
    assert (bound < Certificate(make_problem()).bound(weight, tokens)).any()


def test_removed_directions_are_checked() -> None:
    with pytest.raises(ValueError, match="removed to have orthonormal columns"):
        EditProblem.build(random(D, 2), random(D, 2, seed=1), removed=random(D, 2, seed=2))
    with pytest.raises(ValueError, match=r"expected removed of shape \(24, 1\), got \(3, 1\)"):
        EditProblem.build(random(D, 2), random(D, 2, seed=1), removed=torch.eye(3)[:, :1])
    with pytest.raises(ValueError, match=r"expected content of shape \(2,\), got \(3,\)"):
        EditProblem.build(random(D, 2), random(D, 2, seed=1), content=torch.ones(3).bool())


@pytest.mark.parametrize("rho", ["none", "energy"])
def test_mean_multiplier_adds_up_what_the_layers_do(rho: str) -> None:
    weights = layers()
    edited = {name: weight for name, weight in weights.items() if name.endswith("k")}
    parts = edit_summands(make_problem(), edited, rho=rho)
    mean = mean_multiplier(parts, weights)
    x, y = random(D, 5, seed=40), random(D, 5, seed=41)
    metric = torch.stack([w.T @ w for w in weights.values()]).sum(dim=0)
    done = torch.zeros(5, dtype=torch.float64)
    changed = torch.zeros(5, dtype=torch.float64)
    for name, weight in edited.items():
        delta = edited_weight(parts, name, weight) - weight
        done += ((delta @ x) * (weight @ y)).sum(dim=0)
        changed += (delta @ x).square().sum(dim=0)
    assert torch.allclose((mean(x) * (metric @ y)).sum(dim=0), done, atol=1e-8)
    size = (x * (metric @ x)).sum(dim=0)
    assert torch.allclose(layer_change(parts, weights, x), (changed / size).sqrt(), atol=1e-10)
    everywhere = edit_summands(make_problem(), weights)
    assert mean_multiplier(everywhere, weights) is everywhere[0].multiplier
