"""From shared multipliers to layers: the scale of each layer, and one edit after another.

A layer's change is ``Δ_l = W_l Σ_t a_{t,l} M_t``: multipliers shared by all layers, with a factor
for each. One ordinary edit is a single multiplier with factor 1. Targets scaled by ρ_l add the
second, ``Δ_l = W_l (ρ_l M* - M₀) = W_l (M + (ρ_l - 1) M*)``. Edits one after another compose
exactly, ``(I + A_l)(I + B_l) = I + A_l + B_l + A_l B_l``, which has the same form again.

Deviations:
    REDEditing (arXiv 2504.14554) names an equivalent-attribute alignment; its released script
    means to normalise a layer by ranges, with a coefficient that is identically zero. ``minmax``
    is this project's repair: the ratio of the ranges of keys (or values) before and after.
    ``energy`` is its own reading.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from redediting.algebra.diagnostics import gram
from redediting.algebra.multiplier import Multiplier
from redediting.algebra.problem import EditProblem
from redediting.algebra.solver import solve, solve_pair

Rho = Literal["none", "energy", "minmax"]
_RANGE = (0.5, 2.0)  # a layer's scale stays within it


@dataclass(frozen=True)
class Summand:
    """One summand of an edit: ``M_t`` and ``a_{t,l}`` by the name of each layer it changes."""

    multiplier: Multiplier
    scales: Mapping[str, float]


Summands = tuple[Summand, ...]


def target_scale(weight: Float[Tensor, "m d"], problem: EditProblem, rho: Rho) -> float:
    """``ρ_l``: the size of what the layer reads of the keys, over that of the targets.

    ``energy``: ``‖W_l C‖_F / ‖W_l C*‖_F``; ``minmax``: ``(max - min) W_l C / (max - min) W_l C*``;
    both on content columns and within [0.5, 2]. ``none``: 1.

    Raises:
        ValueError: the layer reads nothing of the targets.
    """
    if rho == "none":
        return 1.0
    weight = weight.detach().cpu().double()

    def size(columns: Tensor) -> float:
        read = weight @ (columns if problem.content is None else columns[:, problem.content])
        span = read.norm() if rho == "energy" or read.numel() == 0 else read.max() - read.min()
        return float(span)

    if (of_targets := size(problem.targets)) == 0:
        raise ValueError(f"a layer reads nothing of the targets, so rho={rho!r} is not defined")
    return min(max(size(problem.keys) / of_targets, _RANGE[0]), _RANGE[1])


def edit_summands(
    problem: EditProblem, weights: Mapping[str, Tensor], *, rho: Rho = "none"
) -> Summands:
    """The edit of one problem in the layers ``W_l`` to change, by name."""
    if rho == "none":
        return (Summand(solve(problem), dict.fromkeys(weights, 1.0)),)
    problem = problem.whitelist_retained()
    scales = {name: target_scale(weight, problem, rho) for name, weight in weights.items()}
    target, key = solve_pair(problem)
    both = Multiplier(target.left - key.left, target.right)
    return (
        Summand(both, dict.fromkeys(weights, 1.0)),
        Summand(target, {name: scale - 1 for name, scale in scales.items()}),
    )


def layer_multiplier(parts: Sequence[Summand], name: str) -> Multiplier | None:
    """``M_l = Σ_t a_{t,l} M_t`` of one layer; None where no part changes it."""
    found = [(part.multiplier, part.scales[name]) for part in parts if name in part.scales]
    return _sum(found) if found else None


def edited_weight(
    parts: Sequence[Summand], name: str, weight: Float[Tensor, "m d"]
) -> Float[Tensor, "m d"]:
    """``W_l (I + M_l)`` in fp64."""
    exact = weight.detach().cpu().double()
    multiplier = layer_multiplier(parts, name)
    return exact if multiplier is None else exact + multiplier.delta(exact)


def mean_multiplier(parts: Sequence[Summand], weights: Mapping[str, Tensor]) -> Multiplier:
    """``M̂ = G⁻¹ Σ_l W_lᵀΔ_l``: the one multiplier nearest to what the layers do.

    ``⟨M̂x, y⟩_G = Σ_l ⟨Δ_l x, W_l y⟩`` for all x, y, with ``G = Σ W_lᵀW_l`` over *all* layers that
    read text, edited or not. Where every layer has the same edit, M̂ is it.
    """
    if len(parts) == 1 and all(parts[0].scales.get(name) == 1.0 for name in weights):
        return parts[0].multiplier
    grams = {name: gram([weight]) for name, weight in weights.items()}
    metric = torch.stack(list(grams.values())).sum(dim=0)
    found = []
    for part in parts:
        own = sum((a * grams[name] for name, a in part.scales.items()), torch.zeros_like(metric))
        left = torch.linalg.solve(metric, own @ part.multiplier.left)
        found.append((Multiplier(left, part.multiplier.right), 1.0))
    return _sum(found)


def layer_change(
    parts: Sequence[Summand], weights: Mapping[str, Tensor], columns: Float[Tensor, "d m"]
) -> Float[Tensor, " m"]:
    """``√(Σ_l ‖Δ_l c‖² / Σ_l ‖W_l c‖²)``: relative change of each token in all layers."""
    change, size = torch.zeros(2, columns.shape[1], dtype=torch.float64)
    for name, weight in weights.items():
        exact = weight.detach().cpu().double()
        size += (exact @ columns).square().sum(dim=0)
        if (multiplier := layer_multiplier(parts, name)) is not None:
            change += (exact @ multiplier(columns)).square().sum(dim=0)
    return (change / size).sqrt()


def compose(first: Summands, second: Summands) -> Summands:
    """The edit that is ``first`` and then ``second``: ``(I + A_l)(I + B_l) - I`` for every layer.

    Summands with the same scales are added up; once there are more of them than layers, each layer
    gets its own, so that the answer stays exact and bounded in size.
    """
    if not first:
        return second
    products = [
        Summand(
            Multiplier(a.multiplier(b.multiplier.left), b.multiplier.right),
            {name: a.scales[name] * b.scales[name] for name in a.scales if name in b.scales},
        )
        for a in first
        for b in second
    ]
    groups: dict[tuple[tuple[str, float], ...], list[Multiplier]] = {}
    for part in (*first, *second, *products):
        if part.scales:
            groups.setdefault(tuple(sorted(part.scales.items())), []).append(part.multiplier)
    merged = tuple(
        Summand(_sum([(multiplier, 1.0) for multiplier in found]), dict(scales))
        for scales, found in groups.items()
    )
    names = sorted({name for part in merged for name in part.scales})
    if len(merged) <= max(2, len(names)):
        return merged
    own = ((name, layer_multiplier(merged, name)) for name in names)
    return tuple(Summand(found, {name: 1.0}) for name, found in own if found is not None)


def _sum(found: Sequence[tuple[Multiplier, float]]) -> Multiplier:
    """``Σ a M``, of rank at most d."""
    left = torch.cat([scale * multiplier.left for multiplier, scale in found], dim=1)
    right = torch.cat([multiplier.right for multiplier, _ in found])
    if left.shape[1] <= left.shape[0]:
        return Multiplier(left, right)
    return Multiplier(left @ right, torch.eye(len(left), dtype=left.dtype))
