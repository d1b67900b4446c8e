"""Dynamic attention analysis, tokens as a graph: the end token falls behind the others.

Nodes: the tokens but BOS. ``W_ij^t = (d_max + d_min - ‖A_i^t - A_j^t‖_F) / (d_max + d_min)`` off
the diagonal, on it minus the row's sum. ``ẋ = (F + A(⌊t⌋)) x`` with ``A(t) = W^t``,
``F = diag(-1, …, -1, -10)`` (-10 at the end token), ``x_i(0) = ‖A_i^0‖_F``.
``score = -Σ_{j ≤ 7} (Δx_e^j - mean_{i < e} Δx_i^j)`` over the first seven steps of scipy's RK45
with default tolerances; low says "backdoored". Published threshold: 1.50e-3, which belongs to
that adaptive grid.

References:
    Wang et al., "Dynamic Attention Analysis for Backdoor Detection in Text-to-Image Diffusion
    Models", TPAMI 2025 (DAA-S); released code Robin-WZQ/DAA at 4cd2400.

Deviations:
    As released: d_min is the least entry of the whole distance matrix, whose diagonal is 0, so
    that the farthest pair has weight 0. ``distinct=True`` takes it over distinct pairs, as the
    formula is printed. The released notebook sums five increments, the script seven.
    A solver that reaches the last step in fewer steps adds those it made.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from scipy.integrate import RK45
from torch import Tensor

from defenses.detectors.base import Array, Detector, Direction
from defenses.detectors.inputs import Subject
from redediting.errors import DetectorError

_SUMMED = 7  # increments, as the released script


def coupling(nodes: Array, *, distinct: bool = False) -> Array:
    """``W`` of one step: similar maps pull together, rows add up to 0.

    Args:
        nodes: maps of the nodes, shape ``(m, Q)``, m >= 2.
        distinct: take d_min over distinct pairs, not over the whole matrix.
    """
    distances = np.linalg.norm(nodes[:, None] - nodes[None], axis=2)
    span = distances.max()
    if distinct:
        span += distances[~np.eye(len(nodes), dtype=bool)].min()
    weights = (span - distances) / span if span > 0 else np.ones_like(distances)
    np.fill_diagonal(weights, 0.0)
    return weights - np.diag(weights.sum(axis=1))


def relative_increments(
    maps: Tensor | Array, *, distinct: bool = False, steps: int | None = _SUMMED
) -> tuple[Array, Array, Array]:
    """What the end token gains less the mean of what the other nodes gain, by solver step.

    Args:
        maps: ``A_i^t`` of the prompt's own positions 0…L-1, shape ``(T, L, …)``, T >= 2, L >= 3.
        distinct: see `coupling`.
        steps: of the solver that are made; None integrates to the last denoising step.

    Returns:
        Increments, shape ``(k,)``; times from 0, shape ``(k + 1,)``; ``x(0)``, shape ``(L - 1,)``.
    """
    nodes = torch.as_tensor(maps)[:, 1:].double().flatten(2).numpy()
    decay = np.full(nodes.shape[1], -1.0)
    decay[-1] = -10.0
    systems: dict[int, Array] = {}

    def flow(t: float, x: Array) -> Array:
        step = int(t)
        if step not in systems:
            systems[step] = np.diag(decay) + coupling(nodes[step], distinct=distinct)
        return systems[step] @ x

    start = np.linalg.norm(nodes[0], axis=1)
    solver = RK45(flow, 0.0, start, float(len(nodes) - 1))
    states, times = [start], [0.0]
    while solver.status == "running" and (steps is None or len(times) <= steps):
        solver.step()
        states.append(solver.y)
        times.append(solver.t)
    gains = np.diff(states, axis=0)
    return gains[:, -1] - gains[:, :-1].mean(axis=1), np.array(times), start


def daa_s_score(increments: Array) -> float:
    """The score: minus the sum of the first seven increments."""
    return float(-np.sum(increments[:_SUMMED]))


class DAAS(Detector):
    """The published statistic on the recorded generation; its first steps would do.

    Attributes:
        distinct: take d_min over distinct pairs, as the formula is printed.
    """

    name: ClassVar[str] = "daa_s"
    direction: ClassVar[Direction] = "low"
    recorded: ClassVar[bool] = True

    distinct: bool = False

    def _features(self, subject: Subject) -> Array:
        found = subject.recorded
        if found.maps.shape[1] < 2 or min(found.lengths) < 3:
            raise DetectorError(
                f"expected at least 2 denoising steps and a word in every prompt for "
                f"{self.name!r}, got {found.maps.shape[1]} steps and "
                f"{min(found.lengths) - 2} words; draw with more steps, drop empty prompts"
            )
        moved = [relative_increments(own, distinct=self.distinct)[0] for own in found.own_maps]
        return np.array([daa_s_score(own) for own in moved])

    def _evaluations(self, subject: Subject) -> float:
        return subject.generation
