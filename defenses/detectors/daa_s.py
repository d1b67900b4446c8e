"""Dynamic attention analysis, tokens as a graph: the end token falls behind the others.

Nodes: the tokens but BOS. ``W_ij^t = (d_max + d_min - ‖A_i^t - A_j^t‖_F) / (d_max + d_min)`` off
the diagonal, on it minus the row's sum. ``ẋ = (F + c A(⌊t⌋)) x`` with ``A(t) = W^t``,
``F = diag(-1, …, -1, -10)`` (-10 at the end token), ``x_i(0) = ‖A_i^0‖_F``.
``score = -Σ_{j ≤ 6} (Δx_e^j - mean_{i < e} Δx_i^j)`` over the first six steps of the adaptive
Runge-Kutta grid; low says "backdoored". Published threshold: 1.50e-3 (it belongs to that grid).

References:
    Wang et al., "Dynamic Attention Analysis for Backdoor Detection in Text-to-Image Diffusion
    Models", TPAMI 2025 (DAA-S).

Deviations:
    The paper names RK45 and its own adaptive grid; scipy's solver with its default tolerances is
    stepped six times, which is that grid without the rest of the integration.
    A solver that reaches the last step in fewer steps adds those it made.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field
from scipy.integrate import RK45
from torch import Tensor

from defenses.detectors.base import Array, Detector, Direction
from defenses.detectors.inputs import Subject
from redediting.errors import DetectorError


def coupling(maps: Array) -> Array:
    """``W`` of one step: similar maps pull together, rows add up to 0.

    Args:
        maps: of the nodes, shape ``(m, Q)``, m >= 2.
    """
    distances = np.linalg.norm(maps[:, None] - maps[None], axis=2)
    others = distances[~np.eye(len(maps), dtype=bool)]
    span = others.max() + others.min()
    weights = (span - distances) / span if span > 0 else np.ones_like(distances)
    np.fill_diagonal(weights, 0.0)
    return weights - np.diag(weights.sum(axis=1))


def graph_lag(maps: Tensor, length: int, *, c: float = 1.0, steps: int = 6) -> float:
    """The score of one prompt.

    Args:
        maps: ``A_i^t``, shape ``(T, positions, Q)``, T >= 2.
        length: ``L``, the prompt's tokens with BOS and EOS, at least 3.
        c: weight of the coupling.
        steps: of the solver that are added up.
    """
    nodes = maps[:, 1:length].double().numpy()
    last = len(nodes) - 1
    decay = np.full(nodes.shape[1], -1.0)
    decay[-1] = -10.0
    systems: dict[int, Array] = {}

    def flow(t: float, x: Array) -> Array:
        step = min(int(t), last)
        if step not in systems:
            systems[step] = np.diag(decay) + c * coupling(nodes[step])
        return systems[step] @ x

    start = np.linalg.norm(nodes[0], axis=1)
    solver = RK45(flow, 0.0, start, float(last))
    for _ in range(steps):
        if solver.status != "running":
            break
        solver.step()
    moved = np.asarray(solver.y) - start  # the increments telescope
    return float(-(moved[-1] - moved[:-1].mean()))


class DAAS(Detector):
    """The published statistic on the recorded generation; its first steps would do.

    Attributes:
        c: weight of the coupling.
    """

    name: ClassVar[str] = "daa_s"
    direction: ClassVar[Direction] = "low"
    recorded: ClassVar[bool] = True

    c: float = Field(default=1.0, ge=0)

    def _features(self, subject: Subject) -> Array:
        found = subject.recorded
        if found.maps.shape[1] < 2 or min(found.lengths) < 3:
            raise DetectorError(
                f"expected at least 2 denoising steps and a word in every prompt for "
                f"{self.name!r}, got {found.maps.shape[1]} steps and "
                f"{min(found.lengths) - 2} words; draw with more steps, drop empty prompts"
            )
        pairs = zip(found.maps, found.lengths, strict=True)
        return np.array([graph_lag(maps, length, c=self.c) for maps, length in pairs])

    def _evaluations(self, subject: Subject) -> float:
        return subject.generation
