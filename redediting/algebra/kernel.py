"""The kernel ``K = N (NᵀBN)⁻¹ Nᵀ`` of a metric ``B``, never formed: only its square root.

With ``NᵀBN = LLᵀ``, ``half(x) = L⁻¹Nᵀx`` satisfies ``half(x)ᵀ half(y) = xᵀKy``. Two metrics occur:
``λΛ`` (the dual solve, which counts R among its columns) and ``ηRwRᵀ + λΛ`` (the certificate).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

Basis = Float[Tensor, "d p"] | None  # orthonormal columns N; None stands for the identity
_TOLERANCE = 1e-10  # of singular values of normalised columns


@dataclass(frozen=True)
class Kernel:
    """Square root of a kernel: ``N`` and ``L`` (a number for that multiple of the identity)."""

    basis: Basis
    root: Float[Tensor, "p p"] | float

    @classmethod
    def of(cls, metric: Float[Tensor, "d d"] | float, basis: Basis) -> Kernel:
        """Factorises ``NᵀBN`` for a metric ``B``, or for that multiple of the identity."""
        if isinstance(metric, Tensor):
            return cls(basis, cholesky(restricted(metric, basis)))
        return cls(basis, metric**0.5)

    def half(self, columns: Float[Tensor, "d m"]) -> Float[Tensor, "p m"]:
        """``L⁻¹Nᵀx`` for each column x."""
        inner = within(self.basis, columns)
        if isinstance(self.root, Tensor):
            return torch.linalg.solve_triangular(self.root, inner, upper=False)
        return inner / self.root

    def back(self, halves: Float[Tensor, "p m"]) -> Float[Tensor, "d m"]:
        """``N L⁻ᵀ y``, so that ``back(half(x)) = Kx``."""
        if isinstance(self.root, Tensor):
            halves = torch.linalg.solve_triangular(self.root.T, halves, upper=True)
        else:
            halves = halves / self.root
        return halves if self.basis is None else self.basis @ halves


def free_basis(hard: Float[Tensor, "d k"]) -> Basis:
    """Orthonormal basis ``N`` of the directions that a hard constraint ``ΔZ = 0`` leaves free.

    None where Z is empty and all are free. Columns are normalised first, so that none is dropped
    for being short; relative singular values below 1e-10 do not count.

    Raises:
        ValueError: no direction is left.
    """
    norms = hard.norm(dim=0)
    columns = hard[:, norms > 0] / norms[norms > 0]
    if columns.shape[1] == 0:
        return None
    left, values, _ = torch.linalg.svd(columns, full_matrices=True)
    rank = int((values > _TOLERANCE * values[0]).sum())
    if rank >= len(hard):
        raise ValueError(f"hard-retained states fill all {len(hard)} dimensions; retain fewer")
    return left[:, rank:]


def within(basis: Basis, columns: Float[Tensor, "d m"]) -> Float[Tensor, "p m"]:
    """``Nᵀx`` of each column x."""
    return columns if basis is None else basis.T @ columns


def restricted(metric: Float[Tensor, "d d"], basis: Basis) -> Float[Tensor, "p p"]:
    """``NᵀBN``."""
    return metric if basis is None else basis.T @ metric @ basis


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
