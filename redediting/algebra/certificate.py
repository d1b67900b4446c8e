"""What the algebra promises of an edit, before any image: efficacy, reach, locality.

With ``K = N (Nᵀ(ηRwRᵀ+λΛ)N)⁻¹ Nᵀ`` and ``Q = (S⁻¹ + CᵀKC)⁻¹``:

    efficacy            ``(I+M)C - C* = -D Q S⁻¹ = -D (I + S CᵀKC)⁻¹``
    posterior variance  ``v(x) = xᵀKx - xᵀKC Q CᵀKx = hᵀ(I + HHᵀ)⁻¹h``, ``h = half(x)``
    locality            ``‖Δ_l c‖ ≤ ½ ‖E_l S^½‖₂ √(cᵀKc)``, ``E_l = W_l D``, for *any* token c

where ``H = half(C) S^½``. The last holds because ``Δ_l = E_l S^½ (I + HᵀH)⁻¹ Hᵀ half(·)`` and
``σ / (1+σ²) ≤ ½`` for every singular value σ of H. Targets scaled by ρ: ``E_l = W_l(ρC* - C)``.
After a post-hoc projection the edit sees ``(I - UUᵀ)c`` of a token c, and so do leverage and
bound; efficacy is then ``D Q CᵀK(I - UUᵀ)C - D``, which no longer has the short form.
"""

from __future__ import annotations

from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from redediting.algebra.kernel import Kernel, cholesky, free_basis
from redediting.algebra.problem import EditProblem
from redediting.algebra.solver import retain_metric


class Certificate:
    """Guarantees about the solution of one problem.

    Args:
        problem: the problem that was solved.
    """

    def __init__(self, problem: EditProblem) -> None:
        """Factorises the price of moving; the rest is computed when asked for."""
        self.problem = problem
        self.kernel = Kernel.of(retain_metric(problem), free_basis(problem.hard))

    def leverage(self, columns: Float[Tensor, "d m"]) -> Float[Tensor, " m"]:
        """``cᵀKc`` of each token c: how much of it is neither retained nor isolated."""
        return self.kernel.leverage(self.problem.seen(columns))

    def bound(
        self, weight: Float[Tensor, "m d"], columns: Float[Tensor, "d k"], *, scale: float = 1.0
    ) -> Float[Tensor, " k"]:
        """Largest possible ``‖Δ_l c‖`` of each token c in the layer with the given weight.

        Args:
            weight: ``W_l``.
            columns: tokens.
            scale: ``ρ_l``, of the layer's targets.
        """
        weight = weight.detach().cpu().double()
        moved = scale * self.problem.targets - self.problem.keys
        error = (weight @ moved) * self.problem.weights.sqrt()
        largest = torch.linalg.eigvalsh(error @ error.T)[-1].clamp_min(0).sqrt()
        return largest / 2 * self.leverage(columns).sqrt()

    def posterior_variance(self, columns: Float[Tensor, "d m"]) -> Float[Tensor, " m"]:
        """``v(x)``: what the edited contexts do not tell about context x; at most the leverage."""
        halves = self.kernel.half(columns)
        return torch.linalg.solve_triangular(self._root, halves, upper=False).square().sum(dim=0)

    def residual(self) -> Float[Tensor, "d n"]:
        """``(I+M)C - C*``: by how much each key misses its target."""
        halves = self.kernel.half(self.problem.keys)
        system = self.problem.weights[:, None] * (halves.T @ halves)
        system.diagonal().add_(1)
        if self.problem.removed is None:
            return -torch.linalg.solve(system, self.problem.displacement, left=False)
        felt = self.kernel.half(self.problem.seen(self.problem.keys))
        pulled = torch.linalg.solve(system, self.problem.weights[:, None] * (halves.T @ felt))
        return self.problem.displacement @ pulled - self.problem.displacement

    @cached_property
    def _root(self) -> Tensor:
        """Cholesky factor of ``I + HHᵀ``, shape ``(p, p)``."""
        halves = self.kernel.half(self.problem.keys) * self.problem.weights.sqrt()
        system = halves @ halves.T
        system.diagonal().add_(1)
        return cholesky(system)
