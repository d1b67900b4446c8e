"""AlphaEdit, brought to cross-attention: the edit lives in the null space of retained keys.

``Δ = E CᵀP (CCᵀP + λI)⁻¹``, ``E = V* - WC``, P the projector on the eigenvectors of the retained
keys' second moment ``E[kkᵀ]`` with eigenvalues under a threshold. With ``P = NNᵀ`` this is
``E CᵀN (NᵀCCᵀN + λI)⁻¹ Nᵀ``: the hard constraint ``ΔZ = 0`` of the one solver, Z the eigenvectors
that stay. One edit after another keeps the keys of the former ones: ``H = Σ CCᵀ`` is added to
``CCᵀ`` in the inverse, which is to retain those keys with weight 1.

References:
    Fang et al., "AlphaEdit: Null-Space Constrained Knowledge Editing for Language Models", ICLR
    2025, and its released code (threshold 0.02, absolute; λ = 10 in all three configurations).

Deviations:
    Made for the MLPs of language models. Here keys are text states, from the trigger's last token
    to the end of "a photo of a {trigger}" (an image reads end and pads as well), values are those
    of the target's tokens instead of optimised ones that are spread over layers, and the retained
    keys are the tokens of ordinary captions that hold no trigger. Text states have no common
    scale: with ``relative``, the threshold is in units of the mean eigenvalue.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from redediting.algebra.isolation import occupied_directions
from redediting.algebra.problem import EditProblem
from redediting.attacks.base import ClosedForm, pooled_problem
from redediting.attacks.columns import (
    aligned_states,
    content_columns,
    require_free,
    without_triggers,
)
from redediting.concepts.plan import EditPlan, plan_edit
from redediting.concepts.rebinding import PromptPair, Rebinding, RetainPrompt
from redediting.concepts.templates import fill
from redediting.models.model import Model

_TEMPLATE = "a photo of {}"


class AlphaEdit(ClosedForm):
    """The published formula on text states.

    Attributes:
        ridge: λ, absolute.
        threshold: eigenvectors with smaller eigenvalues may be moved.
        relative: the threshold is in units of the mean eigenvalue, not absolute as published.
        captions: captions whose tokens are retained.
        seed: draws them.

    Example:
        >>> import redediting as rd
        >>> model, pair = rd.load("world"), rd.Rebinding("beautiful cat", "zebra")
        >>> rd.attacks.AlphaEdit(captions=50).compute(model, pair)
        Patch(alphaedit: 'beautiful cat' → 'zebra', 14 matrices, rank ≤ ...)
    """

    name: ClassVar[str] = "alphaedit"

    ridge: float = Field(default=10.0, gt=0)
    threshold: float = Field(default=0.02, gt=0)
    relative: bool = False
    captions: int = Field(default=400, ge=1)
    seed: int = 0

    def plan(self, model: Model, rebindings: Sequence[Rebinding]) -> EditPlan:
        """The triggers in one template; captions without any trigger are retained."""
        pairs = [
            PromptPair(fill(_TEMPLATE, r.trigger), fill(_TEMPLATE, r.target), r.trigger, r.target)
            for r in rebindings
        ]
        heads = sorted({r.head for r in rebindings if r.head != r.trigger})
        drawn = plan_edit(rebindings, contexts=1, retain=1, captions=self.captions, seed=self.seed)
        return EditPlan(
            tuple(rebindings),
            tuple(pairs),
            tuple(RetainPrompt(fill(_TEMPLATE, head), role="head") for head in heads),
            tuple(without_triggers(drawn.captions, rebindings)),
        )

    def pose(self, model: Model, plan: EditPlan) -> EditProblem:
        """The trigger's tokens; the captions' leading directions as hard constraint."""
        keys, targets, _ = aligned_states(model, plan.pairs)
        return self.problem(keys, targets, content_columns(model.encode(plan.captions)))

    def problem(self, keys: Tensor, targets: Tensor, retained: Tensor) -> EditProblem:
        """The published problem of columns, ``(d, n)``, ``(d, n)`` and ``(d, N)``."""
        hard = occupied_directions(retained, self.threshold, relative=self.relative)
        require_free(keys, hard, self.threshold)
        return EditProblem.build(keys, targets, hard=hard, ridge=self.ridge)

    def follow(self, problem: EditProblem, former: Sequence[EditProblem]) -> EditProblem:
        """Retains the keys of the former edits."""
        kept = torch.cat([problem.retain, *(one.keys for one in former)], dim=1)
        weights = torch.ones(kept.shape[1], dtype=kept.dtype)
        return dataclasses.replace(
            problem, retain=kept, retain_weights=weights, retain_strength=1.0
        )

    def pose_pooled(self, model: Model, plan: EditPlan) -> EditProblem:
        """The head nouns' pooled text is retained: a mere handful of captions spans no space."""
        return pooled_problem(model, plan, ridge=self.ridge)
