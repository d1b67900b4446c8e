"""Least squares over all layers, fp64, reading the matrices some rows at a time.

    M̂ = G⁻¹ Σ_l W_lᵀΔ_l,   G = Σ_l W_lᵀW_l,   Δ_l = W_l' - W_l,

both W and Δ without their row-constant part (``J = I - 11ᵀ/m``). Only a few d×d sums are kept.

References:
    Gavish & Donoho, "Optimal shrinkage of singular values", 2017: `shrunk`, Frobenius loss.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from defenses.audit.rounding import ROWS
from redediting.algebra.kernel import cholesky

_EXACT = 1e-12  # rms of the unexplained relative to that of the change that is as good as none
_SPREAD = 1e-6  # least variance of the unexplained in any direction, relative to the mean


@dataclass(frozen=True)
class Sums:
    """What is summed over matrices."""

    names: tuple[str, ...]  # the matrices
    gram: Float[Tensor, "d d"]  # ``G = Σ WᵀW``, fp64
    cross: Float[Tensor, "d d"]  # ``Σ WᵀΔ``, fp64
    root: Float[Tensor, "d d"]  # L, ``G = LLᵀ``
    energy: float  # ``Σ‖Δ‖²``
    rows: int  # ``Σ(m_l - 1)``, one taken by the row-constant part

    @classmethod
    def of(
        cls, base: Mapping[str, Tensor], suspect: Mapping[str, Tensor], names: Sequence[str]
    ) -> Sums:
        """Reads the matrices once."""
        width = base[names[0]].shape[1]
        gram, cross = torch.zeros(2, width, width, dtype=torch.float64)
        energy = 0.0
        for name in names:
            for clean, delta in blocks(base[name], suspect[name]):
                gram.addmm_(clean.T, clean)
                cross.addmm_(clean.T, delta)
                energy += float(delta.square().sum())
        freedom = sum(len(base[name]) - 1 for name in names)
        return cls(tuple(names), gram, cross, factored(gram), energy, freedom)

    def solve(self) -> tuple[Float[Tensor, "d d"], float]:
        """M̂, and the energy it explains."""
        multiplier, half = solve(self.root, self.cross)
        return multiplier, float(half.square().sum())

    def chance_and_rest(
        self,
        base: Mapping[str, Tensor],
        suspect: Mapping[str, Tensor],
        multiplier: Float[Tensor, "d d"],
    ) -> tuple[float, Float[Tensor, "d d"]]:
        """``q``, and ``Σ R_lᵀR_l`` of ``R_l = Δ_l - W_l M̂``; reads the matrices again."""
        rest = torch.zeros_like(self.root)
        weighted = 0.0
        for name in self.names:
            leverage = change = 0.0
            for clean, delta in blocks(base[name], suspect[name]):
                reach = torch.linalg.solve_triangular(self.root, clean.T, upper=False)
                leverage += float(reach.square_().sum())
                change += float(delta.square().sum())
                delta.addmm_(clean, multiplier, alpha=-1)
                rest.addmm_(delta.T, delta)
            weighted += leverage / (len(base[name]) - 1) * change
        return weighted / self.energy, rest


def factored(gram: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    """L of ``G = LLᵀ``; G, in place, gets a ridge of 1e-12 of its mean diagonal."""
    gram.diagonal().add_(1e-12 * gram.diagonal().mean())
    return cholesky(gram)


def solve(
    root: Float[Tensor, "d d"], cross: Float[Tensor, "d d"]
) -> tuple[Float[Tensor, "d d"], Float[Tensor, "d d"]]:
    """``M̂ = G⁻¹ΣWᵀΔ`` and ``LᵀM̂``, whose squares add up to the energy explained."""
    half = torch.linalg.solve_triangular(root, cross, upper=False)
    return torch.linalg.solve_triangular(root.T, half, upper=True), half


def centred(weight: Float[Tensor, "m d"]) -> Float[Tensor, "m d"]:
    """``JW`` in fp64: the same without what is common to all rows."""
    exact = weight.detach().cpu().double()
    return exact - exact.mean(dim=0)


def blocks(
    base: Float[Tensor, "m d"], suspect: Float[Tensor, "m d"]
) -> Iterator[tuple[Float[Tensor, "b d"], Float[Tensor, "b d"]]]:
    """Rows of ``JW`` and ``JΔ`` in fp64, some at a time."""
    for clean, found in zip(rows(base), rows(suspect), strict=True):
        yield clean, found.sub_(clean)


def rows(
    weight: Float[Tensor, "m d"], mean: Float[Tensor, " d"] | None = None
) -> Iterator[Float[Tensor, "b d"]]:
    """Rows of ``JW`` in fp64, some at a time; their mean may be given where it is known."""
    common = mean_row(weight) if mean is None else mean
    for block in weight.detach().split(ROWS):
        yield block.cpu().double() - common


def mean_row(weight: Float[Tensor, "m d"]) -> Float[Tensor, " d"]:
    """What is common to all rows, fp64."""
    total = torch.zeros(weight.shape[1], dtype=torch.float64)
    for block in weight.detach().split(ROWS):
        total += block.cpu().double().sum(dim=0)
    return total / len(weight)


def covariance(rest: Float[Tensor, "d d"], freedom: int, energy: float) -> Float[Tensor, "d d"]:
    """Column covariance of what is unexplained; never singular, not even after an exact fit.

    ``rest`` is ``Σ R_lᵀR_l``, the freedom rows less the d that were fitted, the energy Δ's.
    """
    found = rest / freedom
    found.diagonal().add_(_EXACT**2 * energy / freedom / len(rest))
    return found


def noise_edge(width: int) -> float:
    """Largest singular value of d×d noise, ``2√d``, and a tenth, by which it may well vary."""
    return 2.2 * math.sqrt(width)


def power(covariance: Float[Tensor, "d d"], exponent: float) -> Float[Tensor, "d d"]:
    """A power of C; a direction's variance is at least a millionth of the mean."""
    values, basis = torch.linalg.eigh(covariance)
    values = values.clamp_min(_SPREAD * float(values.mean())) ** exponent
    return (basis * values) @ basis.T


def shrunk(
    half: Float[Tensor, "d d"], root: Float[Tensor, "d d"], noise: Float[Tensor, "d d"]
) -> tuple[Float[Tensor, "d d"], int]:
    """M̂ with the spectrum of ``LᵀM̂C^(-½)`` shrunk to ``√(σ² - 4d)``, and its rank.

    ``half`` is ``LᵀM̂``, ``root`` L, lower triangular, and ``noise`` C.
    """
    left, sizes, right = torch.linalg.svd(half @ power(noise, -0.5))
    width = len(root)
    kept = (sizes.square() - 4 * width).clamp_min(0).sqrt() * (sizes > noise_edge(width))
    found = torch.linalg.solve_triangular(
        root.T, (left * kept) @ right @ power(noise, 0.5), upper=True
    )
    return found, int((kept > 0).sum())
