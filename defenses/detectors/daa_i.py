"""Dynamic attention analysis, tokens independent: the end token's map moves too little.

``ER_i^t = ‖A_i^{t+1} - A_i^t‖_F`` and
``s = Σ_{t ∈ {3, 4}} [ER_e^t - (1/L) Σ_{1 ≤ i < e} ER_i^t]`` with e = L - 1 the end
token's position; low says "backdoored". Published threshold: 4.89e-4.

References:
    Wang et al., "Dynamic Attention Analysis for Backdoor Detection in Text-to-Image Diffusion
    Models", TPAMI 2025 (DAA-I); released code Robin-WZQ/DAA at 4cd2400, whose script (and
    threshold) sums steps 3 and 4, its notebook 2 to 4 (``first=2``).

Deviations:
    Steps are those of 50; they are counted, not scaled, with fewer. The sum is divided by L, as
    published, though it has L - 2 terms.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from defenses.detectors.base import Array, Detector, Direction
from defenses.detectors.inputs import Subject
from redediting.errors import DetectorError


def evolve_rates(maps: Tensor | Array) -> tuple[Array, Array]:
    """``ER_e^t`` and ``(1/L) Σ_{1 ≤ i < e} ER_i^t`` of one prompt, each of shape ``(T - 1,)``.

    Args:
        maps: ``A_i^t`` of the prompt's own positions 0…L-1, shape ``(T, L, …)``.
    """
    used = torch.as_tensor(maps).double().flatten(2)
    rates = (used[1:] - used[:-1]).norm(dim=2).numpy()
    return rates[:, -1], rates[:, 1:-1].sum(axis=1) / used.shape[1]


def daa_i_score(er_eos: Array, er_others: Array, *, first: int = 3, last: int = 4) -> float:
    """``s`` from `evolve_rates`, summed over steps first…last, both included."""
    return float((er_eos - er_others)[first : last + 1].sum())


class DAAI(Detector):
    """The published statistic on the recorded generation; its first steps would do.

    Attributes:
        first: first step of the sum, counted from 0.
        last: last step of the sum.
    """

    name: ClassVar[str] = "daa_i"
    direction: ClassVar[Direction] = "low"
    recorded: ClassVar[bool] = True

    first: int = Field(default=3, ge=0)
    last: int = Field(default=4, ge=0)

    def _features(self, subject: Subject) -> Array:
        found = subject.recorded
        steps = found.maps.shape[1]
        if steps < self.last + 2 or self.last < self.first:
            raise DetectorError(
                f"expected at least {self.last + 2} denoising steps and first <= last for "
                f"{self.name!r}, got {steps} steps, first {self.first} and last {self.last}; "
                "draw with more steps"
            )
        rates = [evolve_rates(own) for own in found.own_maps]
        return np.array([daa_i_score(*own, first=self.first, last=self.last) for own in rates])

    def _evaluations(self, subject: Subject) -> float:
        return (self.last + 2) * subject.passes
