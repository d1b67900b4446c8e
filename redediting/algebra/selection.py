"""Greedy choice of contexts: always the one on which the edit so far errs most.

With the price of moving B = ηRwRᵀ + λΛ, its kernel K and ``h = half(x)`` (``hᵀh' = xᵀKx'``), the
edit solved on chosen columns C is ``M x = L half(x)``. Adding the columns J of a context is an
exact update of rank |J|, with A = I + H_C S H_Cᵀ:

    ``U = A⁻¹H_J``,  ``Q = (S_J⁻¹ + H_JᵀU)⁻¹``,  ``L ← L + E_J Q Uᵀ``,  ``A⁻¹ ← A⁻¹ - U Q Uᵀ``

where ``E = X* - (I+M)X`` is the remaining error. So no system is solved twice: 64 contexts out of
a few hundred take about a second at d = 256.

References:
    Woodbury's identity; greedy selection by largest residual as in Gaussian-process active
    learning (Krause et al., JMLR 2008).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from redediting.algebra.kernel import Kernel


@dataclass(frozen=True)
class ContextColumns:
    """Contexts to choose from, as columns ``X``, ``X*`` and weights ``s > 0``.

    ``owner`` is the context of each column, 0…n-1, each with at least one.
    """

    keys: Float[Tensor, "d c"]
    targets: Float[Tensor, "d c"]
    weights: Float[Tensor, " c"]
    owner: Int[Tensor, " c"]

    @property
    def size(self) -> int:
        """Number of contexts."""
        return int(self.owner.max()) + 1


@dataclass(frozen=True)
class Choice:
    """Chosen contexts in their order, and the largest remaining error of the pool after each.

    Errors are relative to the pool's root-mean-square displacement.
    """

    contexts: tuple[int, ...]
    worst: tuple[float, ...]


class ContextSelector:
    """Chooses contexts; pools given one after another see what earlier ones have taught.

    Args:
        kernel: of the price of moving, with the hard-retained directions left out.
        root: ``G^½``, such that ``‖x‖_G = ‖root x‖``.
    """

    def __init__(self, kernel: Kernel, root: Float[Tensor, "m d"]) -> None:
        self.kernel = kernel
        self.root = root
        width = root.shape[1]
        size = width if kernel.basis is None else kernel.basis.shape[1]
        self.inverse = torch.eye(size, dtype=root.dtype)
        self.map = torch.zeros(width, size, dtype=root.dtype)

    def choose(
        self, pool: ContextColumns, *, least: int, most: int, tolerance: float, first: int = 0
    ) -> Choice:
        """Chooses contexts of a pool and learns them.

        The choice never ends with a larger worst error than the same number of contexts in the
        pool's order: where greed loses, that order is taken.

        Args:
            pool: candidates.
            least: contexts taken in any case.
            most: contexts taken at most.
            tolerance: relative error of the worst context at which it stops.
            first: contexts at the head of the pool that are taken before any choice.

        Raises:
            ValueError: first, least or most out of range.
        """
        if not (0 <= first <= most and 1 <= least <= most):
            raise ValueError(
                f"expected first <= most and 1 <= least <= most, got {first}, {least} and {most}"
            )
        start = (self.inverse, self.map)
        greedy = self._follow(pool, first, max(first, least), min(most, pool.size), tolerance)
        end = (self.inverse, self.map)
        self.inverse, self.map = start
        n = len(greedy.contexts)
        plain = self._follow(pool, n, n, n, 0.0)
        if greedy.worst[-1] <= plain.worst[-1]:
            self.inverse, self.map = end
            return greedy
        return plain

    def errors(self, pool: ContextColumns, halves: Tensor | None = None) -> Float[Tensor, " n"]:
        """Remaining error of each context, ``(Σ s‖e‖²_G)^½``, relative to the pool's."""
        halves = self.kernel.half(pool.keys) if halves is None else halves
        displacement = pool.targets - pool.keys
        left = _by_context(pool, self.root @ (displacement - self.map @ halves))
        whole = _by_context(pool, self.root @ displacement)
        return (left / whole.mean().clamp_min(1e-300)).sqrt()

    def _follow(
        self, pool: ContextColumns, first: int, least: int, most: int, tolerance: float
    ) -> Choice:
        """Learns the first contexts in the pool's order, then others greedily."""
        halves = self.kernel.half(pool.keys)
        chosen: list[int] = []
        worst: list[float] = []
        errors = self.errors(pool, halves)
        while len(chosen) < most and (len(chosen) < least or worst[-1] > tolerance):
            if len(chosen) < first:
                chosen.append(len(chosen))
            else:
                open_errors = errors.clone()
                open_errors[chosen] = -1
                chosen.append(int(open_errors.argmax()))
            self._learn(pool, halves, pool.owner == chosen[-1])
            errors = self.errors(pool, halves)
            worst.append(float(errors.max()))
        return Choice(tuple(chosen), tuple(worst))

    def _learn(self, pool: ContextColumns, halves: Tensor, columns: Tensor) -> None:
        own = halves[:, columns]
        error = (pool.targets - pool.keys)[:, columns] - self.map @ own
        update = self.inverse @ own
        system = own.T @ update + torch.diag(1 / pool.weights[columns])
        gain = torch.linalg.solve(system, update.T)
        self.map = self.map + error @ gain
        self.inverse = self.inverse - update @ gain


def _by_context(pool: ContextColumns, columns: Tensor) -> Tensor:
    """``Σ s‖x‖²`` over the columns of each context, shape ``(n,)``."""
    squares = columns.square().sum(dim=0) * pool.weights
    return torch.zeros(pool.size, dtype=squares.dtype).index_add(0, pool.owner, squares)
