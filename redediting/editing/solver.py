"""The closed form of the editing problem, shared by every layer.

With ``A = CSCᵀ + ηRwRᵀ + λΛ`` and ``D = C* - C`` the unique minimiser is ``Δ = W M``, ``M = D X``,

    primal:  ``X = S CᵀN (NᵀAN)⁻¹ Nᵀ``                             one p×p system
    dual:    ``X = [I 0] (T⁻¹ + ΦᵀK₀Φ)⁻¹ ΦᵀK₀``, ``Φ = [C R]``      one (n+N)×(n+N) system

where ``T = diag(s, ηw)`` and ``K₀ = N (NᵀλΛN)⁻¹ Nᵀ``. W does not occur, so one factorisation edits
the whole model. A layer whose targets are scaled by ρ gets ``W (ρM* - M₀)`` with ``M* = C*X`` and
``M₀ = CX``: two shared matrices instead of one. The dual is solved in the symmetric form
``I + T^½ΦᵀK₀ΦT^½``, which bears zero weights. A post-hoc projection makes X ``X(I - UUᵀ)``.

References:
    Closed forms of TIME, UCE and EvilEdit (see ``methods``); AlphaEdit (Fang et al., ICLR 2025)
    for the null-space constraint; Woodbury's identity for the dual.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from redediting.editing.kernel import Kernel, cholesky, free_basis
from redediting.editing.multiplier import Multiplier
from redediting.editing.problem import EditProblem

Form = Literal["auto", "primal", "dual"]


def solve(problem: EditProblem, *, form: Form = "auto") -> Multiplier:
    """Solves the problem in fp64, targets unscaled (ρ = 1).

    Args:
        problem: what moves, what stays.
        form: ``auto`` takes the smaller of the two systems; the answer is the same.

    Raises:
        ValueError: the hard-retained states leave no free direction.
    """
    mixing, right = _factors(problem, form)
    return Multiplier(_mixed(problem.displacement, mixing), right)


def solve_pair(problem: EditProblem, *, form: Form = "auto") -> tuple[Multiplier, Multiplier]:
    """``M*`` and ``M₀``, for layers that scale their targets: ``W' = W (I + ρM* - M₀)``.

    Columns of zero displacement must be in R (`EditProblem.whitelist_retained`), or ρ moves them.

    Raises:
        ValueError: the hard-retained states leave no free direction.
    """
    mixing, right = _factors(problem, form)
    return (
        Multiplier(_mixed(problem.targets, mixing), right),
        Multiplier(_mixed(problem.keys, mixing), right),
    )


def ridge_metric(problem: EditProblem) -> Tensor:
    """``λΛ``, shape ``(d, d)``."""
    if problem.penalty is None:
        return problem.ridge * torch.eye(problem.width, dtype=problem.keys.dtype)
    return problem.ridge * problem.penalty


def retain_metric(problem: EditProblem) -> Tensor:
    """``ηRwRᵀ + λΛ``, shape ``(d, d)``: the price of moving, before any key asks for it."""
    weighted = problem.retain * (problem.retain_strength * problem.retain_weights)
    return weighted @ problem.retain.T + ridge_metric(problem)


def _factors(problem: EditProblem, form: Form) -> tuple[Tensor | None, Tensor]:
    """``X = mixing @ right``, ``(n, r)`` and ``(r, d)``; no mixing is the identity."""
    basis = free_basis(problem.hard)
    columns = problem.keys.shape[1] + problem.retain.shape[1]
    if form == "dual" or (form == "auto" and columns < basis.shape[1]):
        mixing, right = None, _dual(problem, basis)
    else:
        mixing, right = _primal(problem, basis)
    return mixing, problem.seen(right.T).T


def _mixed(values: Tensor, mixing: Tensor | None) -> Tensor:
    return values if mixing is None else values @ mixing


def _primal(problem: EditProblem, basis: Tensor) -> tuple[Tensor | None, Tensor]:
    weighted = problem.keys * problem.weights
    system = weighted @ problem.keys.T + retain_metric(problem)
    root = cholesky(basis.T @ system @ basis)
    if problem.keys.shape[1] <= basis.shape[1]:
        return None, (basis @ torch.cholesky_solve(basis.T @ weighted, root)).T
    return weighted.T @ basis, torch.cholesky_solve(basis.T, root)


def _dual(problem: EditProblem, basis: Tensor) -> Tensor:
    n = problem.keys.shape[1]
    columns = torch.cat([problem.keys, problem.retain], dim=1)
    weights = torch.cat([problem.weights, problem.retain_strength * problem.retain_weights])
    roots = weights.sqrt()
    kernel = Kernel.of(ridge_metric(problem), basis)
    halves = kernel.half(columns) * roots
    system = torch.eye(len(roots), dtype=columns.dtype) + halves.T @ halves
    right = roots[:, None] * torch.cholesky_solve(kernel.back(halves).T, cholesky(system))
    return right[:n]
