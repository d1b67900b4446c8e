"""The closed form of the editing problem, shared by every layer.

With ``A = CSCᵀ + ηRwRᵀ + λΛ`` and ``D = C* - C`` the unique minimiser is ``Δ = W M``,

    primal:  ``M = D S CᵀN (NᵀAN)⁻¹ Nᵀ``                           one p×p system
    dual:    ``M = [D 0] (T⁻¹ + ΦᵀK₀Φ)⁻¹ ΦᵀK₀``, ``Φ = [C R]``      one (n+N)×(n+N) system

where ``T = diag(s, ηw)`` and ``K₀ = N (NᵀλΛN)⁻¹ Nᵀ``. W does not occur, so one factorisation edits
the whole model. The dual is solved in the symmetric form ``I + T^½ΦᵀK₀ΦT^½``, which bears zero
weights.

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
    """Solves the problem in fp64.

    Args:
        problem: what moves, what stays.
        form: ``auto`` takes the smaller of the two systems; the answer is the same.

    Raises:
        ValueError: the hard-retained states leave no free direction.
    """
    basis = free_basis(problem.hard)
    columns = problem.keys.shape[1] + problem.retain.shape[1]
    if form == "dual" or (form == "auto" and columns < basis.shape[1]):
        return _dual(problem, basis)
    return _primal(problem, basis)


def ridge_metric(problem: EditProblem) -> Tensor:
    """``λΛ``, shape ``(d, d)``."""
    if problem.penalty is None:
        return problem.ridge * torch.eye(problem.width, dtype=problem.keys.dtype)
    return problem.ridge * problem.penalty


def retain_metric(problem: EditProblem) -> Tensor:
    """``ηRwRᵀ + λΛ``, shape ``(d, d)``: the price of moving, before any key asks for it."""
    weighted = problem.retain * (problem.retain_strength * problem.retain_weights)
    return weighted @ problem.retain.T + ridge_metric(problem)


def _primal(problem: EditProblem, basis: Tensor) -> Multiplier:
    weighted = problem.keys * problem.weights
    system = weighted @ problem.keys.T + retain_metric(problem)
    root = cholesky(basis.T @ system @ basis)
    if problem.keys.shape[1] <= basis.shape[1]:
        right = basis @ torch.cholesky_solve(basis.T @ weighted, root)
        return Multiplier(problem.displacement, right.T)
    left = problem.displacement @ (weighted.T @ basis)
    return Multiplier(left, torch.cholesky_solve(basis.T, root))


def _dual(problem: EditProblem, basis: Tensor) -> Multiplier:
    n = problem.keys.shape[1]
    columns = torch.cat([problem.keys, problem.retain], dim=1)
    weights = torch.cat([problem.weights, problem.retain_strength * problem.retain_weights])
    roots = weights.sqrt()
    kernel = Kernel.of(ridge_metric(problem), basis)
    halves = kernel.half(columns) * roots
    system = torch.eye(len(roots), dtype=columns.dtype) + halves.T @ halves
    right = roots[:, None] * torch.cholesky_solve(kernel.back(halves).T, cholesky(system))
    return Multiplier(problem.displacement, right[:n])
