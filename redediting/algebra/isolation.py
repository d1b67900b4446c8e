"""Which directions to isolate: of the null prompt, exactly; of retained tokens, the leading ones.

The null prompt feeds the unconditional branch of guidance, so every image depends on it. Its 77
states nearly lie in a few dimensions; isolating all of them would take most of a small text space.

References:
    SPEED (null-space erasure) isolates BOS and null-prompt centres; REDEditing (arXiv 2504.14554)
    names knowledge isolation without stating how.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from redediting.algebra.diagnostics import second_moment
from redediting.algebra.kernel import free_basis

_INSIDE = 1e-8  # a unit direction with less outside span(Z) lies in it


def null_directions(
    states: Float[Tensor, "L d"], *, residual: float = 0.05, cap: float = 1 / 8
) -> Float[Tensor, "d k"]:
    """BOS exactly, then leading singular directions of the other, BOS-free positions.

    Orthonormal directions are added until ``‖(I - P)c‖ / ‖c‖ ≤ residual`` at every position c or
    until ``max(1, cap · d)`` of them, BOS among them, are taken.

    Args:
        states: null-prompt states by position, BOS first.
        residual: in 0…1.
        cap: share of the width d that isolation may take, in 0…1.
    """
    states = states.double()
    first = states[0] / states[0].norm()
    others, norms = states[1:], states[1:].norm(dim=1)
    free = others - (others @ first)[:, None] * first
    _, _, directions = torch.linalg.svd(free, full_matrices=False)
    energy = free.square().sum(dim=1, keepdim=True)
    kept = energy - (free @ directions.T).square().cumsum(dim=1)
    left = torch.cat([energy, kept], dim=1).clamp_min(0).sqrt()
    worst = (left / norms[:, None]).amax(dim=0)  # worst[k]: after k directions beside BOS
    enough = torch.nonzero(worst <= residual)
    wanted = int(enough[0]) if len(enough) else directions.shape[0]
    limit = max(1, int(cap * states.shape[1])) - 1
    return torch.cat([first[:, None], directions[: min(wanted, limit)].T], dim=1)


def occupied_directions(
    columns: Float[Tensor, "d m"], threshold: float, *, relative: bool = False
) -> Float[Tensor, "d k"]:
    """Eigenvectors of ``E[xxᵀ]`` of columns x whose eigenvalues reach the threshold.

    Their complement is the "null space" of AlphaEdit and SPEED. A relative threshold is in units
    of the mean eigenvalue.
    """
    values, vectors = torch.linalg.eigh(second_moment(columns, floor=0.0))
    return vectors[:, values >= threshold * (float(values.mean()) if relative else 1.0)]


def leading_directions(columns: Float[Tensor, "d m"], k: int) -> Float[Tensor, "d k"]:
    """``U_k``: the k leading eigenvectors of the Gram matrix ``XXᵀ`` of columns, orthonormal.

    Their signs are arbitrary; only the projector ``U_k U_kᵀ`` matters.
    """
    columns = columns.double()
    _, vectors = torch.linalg.eigh(columns @ columns.T)
    return vectors[:, len(vectors) - k :].flip(1)


def positive(direction: Float[Tensor, " d"]) -> Float[Tensor, " d"]:
    """A direction with the sign that makes its largest entry positive."""
    return direction * direction[direction.abs().argmax()].sign()


def outside(directions: Float[Tensor, "d k"], hard: Float[Tensor, "d n"]) -> Float[Tensor, "d m"]:
    """Orthonormal basis of ``(I - P_Z)U``: what of orthonormal directions U is outside span(Z)."""
    basis = free_basis(hard)
    if basis is None:
        return directions
    vectors, sizes, _ = torch.linalg.svd(basis.T @ directions, full_matrices=False)
    return basis @ vectors[:, sizes > _INSIDE]
