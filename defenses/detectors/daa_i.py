"""Dynamic attention analysis, tokens independent: the end token's map moves too little.

``ER_i^t = ‖A_i^{t+1} - A_i^t‖_F`` and
``s = Σ_{t ∈ {3, 4}} [ER_e^t - (1/L) Σ_{1 ≤ i < e} ER_i^t]`` with e = L - 1 the end
token's position; low says "backdoored". Published threshold: 4.89e-4.

References:
    Wang et al., "Dynamic Attention Analysis for Backdoor Detection in Text-to-Image Diffusion
    Models", TPAMI 2025 (DAA-I).

Deviations:
    Steps 3 and 4 are the published choice for 50 steps; they are counted, not scaled, with fewer.
    The sum is divided by L, as published, though it has L - 2 terms.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field
from torch import Tensor

from defenses.detectors.base import Array, Detector, Direction
from defenses.detectors.inputs import Subject
from redediting.errors import DetectorError


def relative_rate(maps: Tensor, length: int, *, first: int = 3, last: int = 4) -> float:
    """``s`` of one prompt.

    Args:
        maps: ``A_i^t``, shape ``(T, positions, Q)``, T >= last + 2.
        length: ``L``, the prompt's tokens with BOS and EOS.
        first: first step t of the sum.
        last: last step t of the sum.
    """
    used = maps[first : last + 2, :length].double()
    rates = (used[1:] - used[:-1]).norm(dim=2)
    end = length - 1
    return float((rates[:, end] - rates[:, 1:end].sum(dim=1) / length).sum())


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
        return np.array(
            [
                relative_rate(maps, length, first=self.first, last=self.last)
                for maps, length in zip(found.maps, found.lengths, strict=True)
            ]
        )

    def _evaluations(self, subject: Subject) -> float:
        return (self.last + 2) * subject.passes
