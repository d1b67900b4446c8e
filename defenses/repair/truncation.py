"""Singular truncation: the leading right directions of all changes together are taken out.

``W' → W + Δ (I - V_k V_kᵀ)``, V_k the k leading eigenvectors of ``Σ_l Δ_lᵀΔ_l``: cheap, and blind
to what the directions do; a legitimate change that shares them is lost with the edit.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field

from defenses.repair.base import Case, Repair, Repaired
from redediting.errors import MethodError


class Truncation(Repair):
    """Takes the leading directions out.

    Attributes:
        k: their number.
    """

    name: ClassVar[str] = "truncation"
    needs_base: ClassVar[bool] = True

    k: int = Field(default=8, ge=1)

    def _repair(self, case: Case) -> Repaired:
        base, weights = case.trusted, case.weights
        width = next(iter(weights.values())).shape[1]
        if self.k >= width:
            raise MethodError(f"expected k below the text width {width}, got {self.k}; lower it")
        outer = torch.zeros(width, width, dtype=torch.float64)
        for name, weight in weights.items():
            change = weight.cpu().double() - base[name].cpu().double()
            outer.addmm_(change.T, change)
        values, vectors = torch.linalg.eigh(outer)
        leading = vectors[:, -self.k :]
        dense = {}
        for name, weight in weights.items():
            trust = base[name].cpu().double()
            change = weight.cpu().double() - trust
            if bool(change.any()):
                dense[name] = (trust + change - change @ leading @ leading.T).float()
        share = float(values[-self.k :].sum() / values.sum().clamp_min(1e-300))
        return Repaired(dense=dense, measured={"removed": share})
