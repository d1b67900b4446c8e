"""F-norm threshold truncation: a backdoored prompt's maps all look alike.

``M̂_i``: M_i in 255 levels of its own maximum; ``M̄``: their mean over positions 1…L.
``F = mean_{1 ≤ i < L} ‖M̂_i - M̄‖_F``; low says "backdoored". Published threshold: 2.5.

References:
    Wang et al., "T2IShield: Defending Against Backdoors on Text-to-Image Diffusion Models", ECCV
    2024 ("assimilation phenomenon").

Deviations:
    Positions as published, pads left out: the mean takes in the first position after the end
    token, the deviations do not. Levels are divided by 255, so that F is on the scale of the
    published threshold; it grows with the number of queries, so the threshold holds for 16 x 16.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from torch import Tensor

from defenses.detectors.base import Array, Detector, Direction
from defenses.detectors.inputs import Subject


def deviation(maps: Tensor, length: int) -> float:
    """``F`` of one prompt.

    Args:
        maps: ``M_i``, shape ``(positions, Q)``, not negative.
        length: ``L``, the prompt's tokens with BOS and EOS.
    """
    own = maps[1 : length + 1].double()
    peak = own.amax(dim=1, keepdim=True).clamp(min=1e-30)
    levels = (255 * own / peak).floor() / 255
    return float((levels[: length - 1] - levels.mean(dim=0)).norm(dim=1).mean())


class FTT(Detector):
    """The published statistic on the recorded generation."""

    name: ClassVar[str] = "ftt"
    direction: ClassVar[Direction] = "low"
    recorded: ClassVar[bool] = True

    def _features(self, subject: Subject) -> Array:
        found = subject.recorded
        pairs = zip(found.means, found.lengths, strict=True)
        return np.array([deviation(maps, length) for maps, length in pairs])

    def _evaluations(self, subject: Subject) -> float:
        return subject.generation
