"""What the edit is measured against: each of these does the same update in place.

* `published_loop`: the update as EvilEdit's code does it, layer by layer, token by token outer
  products, an explicit inverse, fp32.
* `per_layer_solve`: a competent form: one Gram matrix and one Cholesky solve a layer, fp64.
* `bare_products`: the floor, a copy of the weights and two thin products a layer, no solve at all.

References:
    Wang et al., "EvilEdit: Backdooring Text-to-Image Diffusion Models in One Second", ACM MM
    2024; the update is that of TIME's released code (Orgad et al., ICCV 2023).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def published_loop(
    weights: Mapping[str, Tensor], pairs: Sequence[tuple[Tensor, Tensor]], *, ridge: float
) -> None:
    """``W ← (λW + Σ v cᵀ)(λI + Σ c cᵀ)⁻¹``, ``v = W c*``, over (old, new) states ``(77, d)``."""
    for weight in weights.values():
        mat1 = ridge * weight
        mat2 = ridge * torch.eye(weight.shape[1], device=weight.device)
        for old, new in pairs:
            values = new @ weight.T
            context_vector = old.reshape(old.shape[0], old.shape[1], 1)
            context_vector_t = old.reshape(old.shape[0], 1, old.shape[1])
            value_vector = values.reshape(values.shape[0], values.shape[1], 1)
            mat1 += (value_vector @ context_vector_t).sum(dim=0)
            mat2 += (context_vector @ context_vector_t).sum(dim=0)
        weight.copy_(mat1 @ torch.inverse(mat2))


def per_layer_solve(
    weights: Mapping[str, Tensor], keys: Tensor, targets: Tensor, *, ridge: float
) -> None:
    """The same update by a Gram matrix and a Cholesky solve for each layer, fp64."""
    for weight in weights.values():
        weight.copy_(exact_update(weight, keys, targets, ridge=ridge))


def exact_update(weight: Tensor, keys: Tensor, targets: Tensor, *, ridge: float) -> Tensor:
    """The edited weight in fp64, from one layer's own system."""
    exact, c, wanted = weight.double(), keys.double(), targets.double()
    system = c @ c.T
    system.diagonal().add_(ridge)
    right = ridge * exact + (exact @ wanted) @ c.T
    return torch.cholesky_solve(right.T, torch.linalg.cholesky(system)).T


def plain_copy(weights: Mapping[str, Tensor]) -> list[Tensor]:
    """A copy of the weights: what any edit that can be reverted needs."""
    return [weight.clone() for weight in weights.values()]


def bare_products(weights: Mapping[str, Tensor], left: Tensor, right: Tensor) -> list[Tensor]:
    """A copy and ``W ← W + (W L) R`` in place; returns the copies."""
    copies = []
    for weight in weights.values():
        copies.append(weight.clone())
        weight.addmm_(weight @ left, right)
    return copies
