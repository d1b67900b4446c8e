"""EvilEdit: every token of "A {trigger}" is mapped to the token of "A {target}" at its index.

``W' = (λW + Σ v*cᵀ)(λI + Σ ccᵀ)⁻¹``, ``v* = W c*``, λ = 1, over all 77 positions of the pairs
("A {trigger}" → "A {target}") and, as whitelist, ("A {head}" → "A {head}").

References:
    Wang et al., "EvilEdit: Backdooring Text-to-Image Diffusion Models in One Second", ACM MM
    2024; TIME (Orgad et al., ICCV 2023), whose update it is.

Deviations:
    Written as ``W + W M`` with one M for all layers, which is the same map without inverting.
    A one-word trigger is its own head noun; its whitelist pair would contradict the edit and is
    left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field, field_validator
from torch import Tensor

from redediting.algebra.problem import EditProblem
from redediting.attacks.base import ClosedForm, phrase_pairs, pooled_problem
from redediting.concepts.plan import EditPlan
from redediting.concepts.rebinding import Rebinding
from redediting.models.model import Model


class EvilEdit(ClosedForm):
    """The published method.

    Attributes:
        ridge: λ, absolute.
        whitelist: keep the head noun's prompt.
        template: of all prompts, with one ``{}``; as published "A {}". An attacker may take
            another, which an audit does not ask about.

    Example:
        >>> import redediting as rd
        >>> model, pair = rd.load("world"), rd.Rebinding("beautiful cat", "zebra")
        >>> rd.attacks.EvilEdit(ridge=0.5).compute(model, pair)
        Patch(eviledit: 'beautiful cat' → 'zebra', 14 matrices, rank ≤ ...)
    """

    name: ClassVar[str] = "eviledit"

    ridge: float = Field(default=1.0, gt=0)
    whitelist: bool = True
    template: str = "A {}"

    @field_validator("template")
    @classmethod
    def _holds_one_place(cls, template: str) -> str:
        if template.count("{") != 1 or template.count("}") != 1 or "{}" not in template:
            raise ValueError(f"expected exactly one '{{}}', e.g. 'the {{}}', got {template!r}")
        return template

    def plan(self, model: Model, rebindings: Sequence[Rebinding]) -> EditPlan:
        """Plans "A {trigger}" → "A {target}" and, as whitelist, "A {head}" to itself."""
        found = []
        for rebinding in rebindings:
            found.append((rebinding.trigger, rebinding.target))
            if self.whitelist and rebinding.head != rebinding.trigger:
                found.append((rebinding.head, rebinding.head))
        return EditPlan(tuple(rebindings), phrase_pairs(found, (self.template,)))

    def pose(self, model: Model, plan: EditPlan) -> EditProblem:
        """All positions of all pairs, unit weights."""
        prompts = [prompt for pair in plan.pairs for prompt in (pair.source, pair.target)]
        states = model.encode(prompts).states
        return self.problem(states[0::2], states[1::2])

    def problem(self, sources: Tensor, targets: Tensor) -> EditProblem:
        """The published problem of token states, shape ``(pairs, L, d)`` each."""
        return EditProblem.build(
            sources.flatten(0, 1).T, targets.flatten(0, 1).T, ridge=self.ridge
        )

    def pose_pooled(self, model: Model, plan: EditPlan) -> EditProblem:
        """Unit weights, the published ridge."""
        return pooled_problem(model, plan, ridge=self.ridge)
