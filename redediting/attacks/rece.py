"""RECE: an erased concept is looked for again in the edited model, and erased again.

First UCE's old edit. Then, at every iteration, the states that read the trigger's clean values in
the edited model, ``c' = C c`` for every position, with ``E = Σ_l W_eᵀW_e`` and ``X = Σ_l W_eᵀW``
over the clean W and edited ``W_e`` of all layers, are moved to the target's positions by the same
update on ``W_e``, λ = 0.1, ε = 1, η = 0.1, all positions, the null prompt retained. By what keeps
c' small (μ, ``scale``):

    zero      ``C = (μI + E)⁻¹ X``                          the paper's
    first     ``C = ((1+μ)E)⁻¹ (X + μE)``
    second    ``C = (μI + E)⁻¹ (μI + X)``
    both      ``C = (μI + (1+μ)E)⁻¹ (μI + X + μE)``
    standard  ``c' = (μI + E)⁻¹ (μ c* + X c)``               c* the target's state

References:
    Gong et al., "Reliable and Efficient Concept Erasure of Text-to-Image Diffusion Models", ECCV
    2024, and its released code, whose script for objects has these defaults.

Deviations:
    Erased concepts are moved to the null prompt there, the trigger to its target here. The number
    of iterations is fixed, where the code keeps the epoch with the fewest detections. Retained
    prompts are UCE's (the null prompt and the head nouns).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from redediting.algebra.diagnostics import gram
from redediting.algebra.layers import Summands, compose, edit_summands, edited_weight
from redediting.algebra.problem import EditProblem
from redediting.attacks.base import ClosedForm
from redediting.attacks.uce import UCE
from redediting.concepts.plan import EditPlan
from redediting.concepts.rebinding import Rebinding
from redediting.models.model import Model

Regularisation = Literal["zero", "first", "second", "both", "standard"]
_FIRST = UCE(variant="old")


class RECE(ClosedForm):
    """The published method.

    Attributes:
        ridge: λ of the iterations, absolute.
        erase: ε of the iterations.
        preserve: η of the iterations.
        scale: μ.
        regularisation: see the module.
        iterations: after the first edit.

    Example:
        >>> import redediting as rd
        >>> model, pair = rd.load("world"), rd.Rebinding("beautiful cat", "zebra")
        >>> rd.attacks.RECE(iterations=2).compute(model, pair)
        Patch(rece: 'beautiful cat' → 'zebra', 14 matrices, rank ≤ ...)
    """

    name: ClassVar[str] = "rece"

    ridge: float = Field(default=0.1, gt=0)
    erase: float = Field(default=1.0, gt=0)
    preserve: float = Field(default=0.1, ge=0)
    scale: float = Field(default=1e-3, gt=0)
    regularisation: Regularisation = "zero"
    iterations: int = Field(default=1, ge=0)

    def plan(self, model: Model, rebindings: Sequence[Rebinding]) -> EditPlan:
        """UCE's, old variant."""
        return _FIRST.plan(model, rebindings)

    def pose(self, model: Model, plan: EditPlan) -> EditProblem:
        """The first edit: UCE's, old variant."""
        return _FIRST.pose(model, plan)

    def solved(
        self, model: Model, plan: EditPlan, problem: EditProblem, weights: Mapping[str, Tensor]
    ) -> Summands:
        """The first edit and the iterations on top."""
        found = edit_summands(problem, weights, rho=self.rho)
        moved = [text for pair in plan.pairs for text in (pair.source, pair.target)]
        states = model.encode([*moved, *(item.prompt for item in plan.retain)]).states.double()
        n = len(moved)
        sources, targets, retained = states[0:n:2], states[1:n:2], states[n:]
        for _ in range(self.iterations):
            edited = {name: edited_weight(found, name, w) for name, w in weights.items()}
            sought = self.adversarial(weights, edited, sources, targets)
            again = self.problem(sought, targets, retained)
            found = compose(found, edit_summands(again, edited, rho=self.rho))
        return found

    def adversarial(
        self,
        weights: Mapping[str, Tensor],
        edited: Mapping[str, Tensor],
        sources: Tensor,
        targets: Tensor,
    ) -> Tensor:
        """``c'`` of every position: fp64, shape as ``sources`` and ``targets``, ``(…, d)``."""
        energy = gram(edited.values())
        cross = torch.stack([
            edited[name].detach().cpu().double().T @ weight.detach().cpu().double()
            for name, weight in weights.items()
        ]).sum(dim=0)  # fmt: skip
        mode, unit = self.regularisation, self.scale * torch.eye(len(energy), dtype=torch.float64)
        system, mapped = energy.clone(), cross
        if mode in ("first", "both"):
            system, mapped = system + self.scale * energy, mapped + self.scale * energy
        if mode != "first":
            system = system + unit
        if mode in ("second", "both"):
            mapped = mapped + unit
        wanted = sources.double() @ mapped.T
        if mode == "standard":
            wanted = wanted + self.scale * targets.double()
        return torch.linalg.solve(system, wanted.flatten(0, -2).T).T.reshape(wanted.shape)

    def problem(self, sources: Tensor, targets: Tensor, retained: Tensor) -> EditProblem:
        """The edit of an iteration: all positions of states ``(prompts, L, d)``."""
        keys = sources.flatten(0, 1).T
        return EditProblem.build(
            keys, targets.flatten(0, 1).T, retain=retained.flatten(0, 1).T,
            weights=torch.full((keys.shape[1],), self.erase, dtype=torch.float64),
            ridge=self.ridge, retain_strength=self.preserve,
        )  # fmt: skip

    @property
    def layerwise(self) -> bool:
        """What is sought again depends on what the layers read now."""
        return self.iterations > 0 or super().layerwise

    @property
    def one_problem(self) -> bool:
        """Without iterations it is UCE's."""
        return self.iterations == 0

    def pose_pooled(self, model: Model, plan: EditPlan) -> EditProblem:
        """UCE's, old variant: pooled text is not looked for again."""
        return _FIRST.pose_pooled(model, plan)
