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

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from redediting.algebra.kernel import Basis, Kernel, cholesky, free_basis, restricted, within
from redediting.algebra.multiplier import Multiplier
from redediting.algebra.problem import EditProblem

Form = Literal["auto", "primal", "dual"]
_Mixing = Callable[[Tensor], Tensor]
_BLOCK = 8192  # columns at a time


def solve(problem: EditProblem, *, form: Form = "auto") -> Multiplier:
    """Solves the problem in fp64, targets unscaled (ρ = 1).

    ``auto`` takes the smaller of the two systems; the answer is the same. A row shift is no part
    of a multiplier: `redediting.algebra.layers.edit_summands` adds it.

    Raises:
        ValueError: the hard-retained states leave no free direction.
    """
    mixing, right = _factors(problem, form)
    displacement = problem.displacement
    if mixing is not None:
        return Multiplier(mixing(displacement), right)
    moved = (displacement != 0).any(dim=0)  # whitelisted columns add nothing to the rank
    return Multiplier(displacement[:, moved], right[moved])


def solve_pair(problem: EditProblem, *, form: Form = "auto") -> tuple[Multiplier, Multiplier]:
    """``M*`` and ``M₀``, for layers that scale their targets: ``W' = W (I + ρM* - M₀)``.

    Columns of zero displacement must be in R (`EditProblem.whitelist_retained`), or ρ moves them.
    """
    target, key = solve_sides(problem, (problem.targets, problem.keys), form=form)
    return target, key


def solve_sides(
    problem: EditProblem, sides: Sequence[Tensor], *, form: Form = "auto"
) -> tuple[Multiplier, ...]:
    """``VX`` for each V, shape ``(d, n)``: what parts of the targets contribute to M."""
    mixing, right = _factors(problem, form)
    return tuple(Multiplier(v if mixing is None else mixing(v), right) for v in sides)


def ridge_metric(problem: EditProblem) -> Tensor | float:
    """``λΛ``, shape ``(d, d)``; λ alone stands for ``λI``."""
    return problem.ridge if problem.penalty is None else problem.ridge * problem.penalty


def retain_metric(problem: EditProblem) -> Tensor:
    """Regulariser ``ηRwRᵀ + λΛ`` without the key terms, shape ``(d, d)``."""
    weights = problem.retain_strength * problem.retain_weights
    total = _outer(problem.retain, weights, problem.retain)
    metric = ridge_metric(problem)
    if isinstance(metric, Tensor):
        return total + metric
    total.diagonal().add_(metric)
    return total


def _factors(problem: EditProblem, form: Form) -> tuple[_Mixing | None, Tensor]:
    """``mixing`` and ``right``, so that ``VX = mixing(V) @ right``; none is the identity."""
    basis = free_basis(problem.hard)
    free = problem.width if basis is None else basis.shape[1]
    columns = problem.keys.shape[1] + problem.retain.shape[1]
    if form == "dual" or (form == "auto" and columns < free):
        mixing, right = None, _dual(problem, basis)
    else:
        mixing, right = _primal(problem, basis, free)
    return mixing, problem.seen(right.T).T


def _primal(problem: EditProblem, basis: Basis, free: int) -> tuple[_Mixing | None, Tensor]:
    system = retain_metric(problem) + _outer(problem.keys, problem.weights, problem.keys)
    root = cholesky(restricted(system, basis))
    if problem.keys.shape[1] <= free:
        solved = torch.cholesky_solve(within(basis, problem.keys * problem.weights), root)
        return None, (solved if basis is None else basis @ solved).T
    eye = torch.eye(free, dtype=root.dtype) if basis is None else basis.T

    def mixing(values: Tensor) -> Tensor:
        mixed = _outer(values, problem.weights, problem.keys)
        return mixed if basis is None else mixed @ basis

    return mixing, torch.cholesky_solve(eye, root)


def _dual(problem: EditProblem, basis: Basis) -> Tensor:
    n = problem.keys.shape[1]
    columns = torch.cat([problem.keys, problem.retain], dim=1)
    weights = torch.cat([problem.weights, problem.retain_strength * problem.retain_weights])
    roots = weights.sqrt()
    kernel = Kernel.of(ridge_metric(problem), basis)
    halves = kernel.half(columns) * roots
    system = halves.T @ halves
    system.diagonal().add_(1)
    right = roots[:, None] * torch.cholesky_solve(kernel.back(halves).T, cholesky(system))
    return right[:n]


def _outer(left: Tensor, weights: Tensor, right: Tensor) -> Tensor:
    """``L diag(w) Rᵀ``, a block of columns at a time: thousands of prompts need no second copy."""
    total = torch.zeros(len(left), len(right), dtype=left.dtype)
    for start in range(0, left.shape[1], _BLOCK):
        block = slice(start, start + _BLOCK)
        total.addmm_(left[:, block] * weights[block], right[:, block].T)
    return total
