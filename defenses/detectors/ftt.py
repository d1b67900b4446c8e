"""F-norm threshold truncation: a backdoored prompt's maps all look alike.

``M̂_i``: M_i in 255 levels of its own maximum; ``M̄``: sum of ``M̂_i`` over positions 1…L, divided
by L. ``F = mean_{1 ≤ i < L} ‖M̂_i - M̄‖_F``; low says "backdoored". Published threshold: 2.5.

References:
    Wang et al., "T2IShield: Defending Against Backdoors on Text-to-Image Diffusion Models", ECCV
    2024 ("assimilation phenomenon"); released code Robin-WZQ/T2IShield at b543ace.

Deviations:
    None in the statistic. F grows with the number of queries: the published threshold belongs to
    maps of 16 x 16, a quarter of Stable Diffusion's latents a side (see `FTT.map_size`).
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from defenses.detectors.base import Array, Detector, Direction
from defenses.detectors.inputs import Subject


def levels(maps: Tensor) -> NDArray[np.uint8]:
    """``255 M̂_i`` of positions 1, 2, …: maps in whole levels of their own maximum, as released.

    Float32 throughout, as released, so that the maximum itself may become 254.

    Args:
        maps: ``M_i``, not negative, shape ``(…, positions, rows, columns)``.

    Returns:
        Levels 0…255 without BOS, shape ``(…, positions - 1, rows, columns)``.
    """
    own = torch.as_tensor(maps)[..., 1:, :, :].float()
    peak = own.amax(dim=(-2, -1), keepdim=True).clamp(min=1e-30)
    found: NDArray[np.uint8] = (255 * own / peak).to(torch.uint8).cpu().numpy()
    return found


def ftt_statistic(levels: NDArray[np.uint8], length: int) -> float:
    """``F`` of one prompt.

    Where the prompt fills all positions (L = 77) there are L - 1 maps, whose sum is divided by L
    as released.

    Args:
        levels: from `levels`, shape ``(positions - 1, rows, columns)``.
        length: ``L``, the prompt's tokens with BOS and EOS.
    """
    maps = levels[:length].reshape(-1, levels[0].size) / 255
    mean = maps.sum(axis=0) / length
    return float(np.linalg.norm(maps[: length - 1] - mean, axis=1).mean())


class FTT(Detector):
    """The published statistic on the recorded generation.

    Attributes:
        map_size: longer side of the maps, one that the model's cross-attention has; None takes
            the recorded maps' (16 for Stable Diffusion, the world's full 8).
    """

    name: ClassVar[str] = "ftt"
    direction: ClassVar[Direction] = "low"
    recorded: ClassVar[bool] = True

    map_size: int | None = Field(default=None, ge=1)

    def _features(self, subject: Subject) -> Array:
        found = subject.recorded
        pairs = zip(levels(found.grids(self.map_size)), found.lengths, strict=True)
        return np.array([ftt_statistic(own, length) for own, length in pairs])

    def _evaluations(self, subject: Subject) -> float:
        return subject.generation
