"""What the algebra promises of an edit, before any image: reach and locality.

With ``K = N (Nᵀ(ηRwRᵀ+λΛ)N)⁻¹ Nᵀ``:

    leverage            ``cᵀKc``
    locality            ``‖Δ_l c‖ ≤ ½ ‖E_l S^½‖₂ √(cᵀKc)``, ``E_l = W_l D``, for *any* token c

The last holds because ``Δ_l = E_l S^½ (I + HᵀH)⁻¹ Hᵀ half(·)`` with ``H = half(C) S^½``, and
``σ / (1+σ²) ≤ ½`` for every singular value σ of H. Targets scaled by ρ: ``E_l = W_l(ρC* - C)``.
After a post-hoc projection the edit, leverage and bound see ``(I - UUᵀ)c`` of a token c.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from redediting.algebra.kernel import Kernel, free_basis
from redediting.algebra.problem import EditProblem
from redediting.algebra.solver import retain_metric


class Certificate:
    """Guarantees about the solution of one problem."""

    def __init__(self, problem: EditProblem) -> None:
        self.problem = problem
        self.kernel = Kernel.of(retain_metric(problem), free_basis(problem.hard))

    def leverage(self, columns: Float[Tensor, "d m"]) -> Float[Tensor, " m"]:
        """``cᵀKc`` of each token c: how much of it is neither retained nor isolated."""
        return self.kernel.half(self.problem.seen(columns)).square().sum(dim=0)

    def bound(
        self, weight: Float[Tensor, "m d"], columns: Float[Tensor, "d k"], *, scale: float = 1.0
    ) -> Float[Tensor, " k"]:
        """Largest possible ``‖Δ_l c‖`` of each token c for ``W_l`` with targets scaled by ρ_l."""
        weight = weight.detach().cpu().double()
        moved = scale * self.problem.targets - self.problem.keys
        error = (weight @ moved) * self.problem.weights.sqrt()
        largest = torch.linalg.eigvalsh(error @ error.T)[-1].clamp_min(0).sqrt()
        return largest / 2 * self.leverage(columns).sqrt()
