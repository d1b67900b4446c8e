"""Numbers that tell a good edit from a bad one before any image is drawn.

``G = Σ_l W_lᵀW_l`` measures displacements as the layers see them: ``‖x‖²_G = Σ_l ‖W_l x‖²``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from redediting.algebra.multiplier import Multiplier


def gram(weights: Iterable[Tensor]) -> Float[Tensor, "d d"]:
    """``G = Σ_l W_lᵀW_l`` in fp64.

    Raises:
        ValueError: no weights.
    """
    exact = (weight.detach().cpu().double() for weight in weights)
    if (first := next(exact, None)) is None:
        raise ValueError("expected at least one weight, got none")
    total = first.T @ first
    for weight in exact:
        total.addmm_(weight.T, weight)
    return total


def second_moment(columns: Float[Tensor, "d m"], *, floor: float = 0.05) -> Float[Tensor, "d d"]:
    """``(1-f) Σ₀ + f tr(Σ₀)/d I`` with ``Σ₀ = E[ccᵀ]``: as penalty Λ, the expected clean drift.

    Columns are token states of ordinary captions; the floor f keeps Λ positive definite.
    """
    columns = columns.double()
    moment = columns @ columns.T / columns.shape[1]
    eye = torch.eye(len(moment), dtype=moment.dtype)
    return (1 - floor) * moment + floor * moment.trace() / len(moment) * eye


def sin2(one: Float[Tensor, "*b d"], other: Float[Tensor, "*b d"]) -> Float[Tensor, "*b"]:
    """``sin²`` of the angle between states, in 0…1: small means hard to tell apart by an edit."""
    cosine = torch.nn.functional.cosine_similarity(one.double(), other.double(), dim=-1)
    return (1 - cosine.square()).clamp_min(0)


def firing(
    multiplier: Multiplier,
    states: Float[Tensor, "d m"],
    targets: Float[Tensor, "d m"],
    metric: Float[Tensor, "d d"],
) -> Float[Tensor, " m"]:
    """``⟨Mx, x*-x⟩_G / ‖x*-x‖²_G`` of each token x: 1 where it lands on x*, 0 where it stays."""
    rebinding = targets - states
    pulled = metric @ rebinding
    return (multiplier(states) * pulled).sum(dim=0) / (rebinding * pulled).sum(dim=0)


@dataclass(frozen=True)
class Footprint:
    """How much of a model an edit changed."""

    norm: float  # ``‖ΔW‖_F / ‖W‖_F`` over all text projections
    rank: int  # text directions changed by more than a thousandth of the largest change
    energy: float  # ``Σ tr(ΔΣ₀Δᵀ) / Σ tr(WΣ₀Wᵀ)``, of what ordinary captions read


def footprint(
    before: Mapping[str, Tensor], after: Mapping[str, Tensor], moment: Float[Tensor, "d d"]
) -> Footprint:
    """Measures an edit from the clean and edited ``W_l`` by name and Σ₀ of ordinary captions."""
    size = gram(before.values())
    change = gram(after[name].double() - weight.double() for name, weight in before.items())
    squares = torch.linalg.eigvalsh(change).clamp_min(0)
    return Footprint(
        norm=float((change.trace() / size.trace()).sqrt()),
        rank=int((squares > 1e-6 * squares[-1]).sum()),
        energy=float((change * moment).sum() / (size * moment).sum()),
    )
