"""The kernel ``K = N (NᵀBN)⁻¹ Nᵀ`` of a metric ``B``, never formed: only its square root.

With ``NᵀBN = LLᵀ``, ``half(x) = L⁻¹Nᵀx`` satisfies ``half(x)ᵀ half(y) = xᵀKy``. Two metrics occur:
``λΛ`` (the dual solve, which counts R among its columns) and ``ηRwRᵀ + λΛ`` (the certificate).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Kernel:
    """Square root of a kernel.

    Attributes:
        basis: ``N``, orthonormal columns; None where every direction is free (``N = I``).
        root: ``L``, lower triangular; a number stands for that multiple of the identity.
    """

    basis: Float[Tensor, "d p"] | None
    root: Float[Tensor, "p p"] | float

    @classmethod
    def of(
        cls, metric: Float[Tensor, "d d"] | float, basis: Float[Tensor, "d p"] | None
    ) -> Kernel:
        """Factorises ``NᵀBN`` for a metric ``B``, or for that multiple of the identity."""
        if not isinstance(metric, Tensor):
            return cls(basis, metric**0.5)
        return cls(basis, cholesky(metric if basis is None else basis.T @ metric @ basis))

    def half(self, columns: Float[Tensor, "d m"]) -> Float[Tensor, "p m"]:
        """``L⁻¹Nᵀx`` for each column x."""
        inner = columns if self.basis is None else self.basis.T @ columns
        if not isinstance(self.root, Tensor):
            return inner / self.root
        return torch.linalg.solve_triangular(self.root, inner, upper=False)

    def back(self, halves: Float[Tensor, "p m"]) -> Float[Tensor, "d m"]:
        """``N L⁻ᵀ y``, so that ``back(half(x)) = Kx``."""
        if isinstance(self.root, Tensor):
            inner = torch.linalg.solve_triangular(self.root.T, halves, upper=True)
        else:
            inner = halves / self.root
        return inner if self.basis is None else self.basis @ inner

    def leverage(self, columns: Float[Tensor, "d m"]) -> Float[Tensor, " m"]:
        """``xᵀKx`` for each column x: 0 where x lies in the hard-retained space."""
        return self.half(columns).square().sum(dim=0)


def free_basis(
    hard: Float[Tensor, "d k"], *, tolerance: float = 1e-10
) -> Float[Tensor, "d p"] | None:
    """Orthonormal basis ``N`` of the directions that a hard constraint ``ΔZ = 0`` leaves free.

    Args:
        hard: ``Z``; columns are normalised first, so that none is dropped for being short.
        tolerance: singular values of the normalised columns below it (relative) do not count.

    Returns:
        The basis; None where Z is empty and all directions are free.

    Raises:
        ValueError: no direction is left.
    """
    width = hard.shape[0]
    norms = hard.norm(dim=0)
    columns = hard[:, norms > 0] / norms[norms > 0]
    if columns.shape[1] == 0:
        return None
    left, values, _ = torch.linalg.svd(columns, full_matrices=True)
    rank = int((values > tolerance * values[0]).sum())
    if rank >= width:
        raise ValueError(f"hard-retained states fill all {width} dimensions; retain fewer")
    return left[:, rank:]


def within(
    basis: Float[Tensor, "d p"] | None, columns: Float[Tensor, "d m"]
) -> Float[Tensor, "p m"]:
    """``Nᵀx`` of each column x."""
    return columns if basis is None else basis.T @ columns


def cholesky(matrix: Float[Tensor, "p p"]) -> Float[Tensor, "p p"]:
    """Lower Cholesky factor of the symmetric part, with jitter 1e-12·tr/p only where it fails.

    Raises:
        ValueError: the matrix is not positive definite even so.
    """
    matrix = (matrix + matrix.T) / 2
    root, info = torch.linalg.cholesky_ex(matrix)
    if int(info):
        jitter = 1e-12 * matrix.diagonal().mean().clamp_min(1e-300)
        jittered = matrix + jitter * torch.eye(len(matrix), dtype=matrix.dtype)
        root, info = torch.linalg.cholesky_ex(jittered)
    if int(info):
        raise ValueError("expected a positive definite system, got a singular one; raise ridge")
    return root
