"""AlphaEdit, brought to cross-attention: the edit lives in the null space of retained keys.

``Δ = E CᵀP (CCᵀP + λI)⁻¹``, ``E = V* - WC``, P the projector on the eigenvectors of the retained
keys' second moment ``E[kkᵀ]`` with eigenvalues under a threshold. With ``P = NNᵀ`` this is
``E CᵀN (NᵀCCᵀN + λI)⁻¹ Nᵀ``: the hard constraint ``ΔZ = 0`` of the one solver, Z the eigenvectors
that stay.

References:
    Fang et al., "AlphaEdit: Null-Space Constrained Knowledge Editing for Language Models", ICLR
    2025, and its released code (threshold 0.02, the last subject token's key).

Deviations:
    Made for the MLPs of language models. Here keys are text states, from the trigger's last token
    to the end of "a photo of a {trigger}" (an image reads end and pads as well), values are those
    of the target's tokens instead of optimised ones, and the retained keys are the tokens of
    ordinary captions that hold no trigger. The threshold is relative to the mean eigenvalue, for
    text states have no common scale. λ is absolute (the code has 1 to 10 by model). Keys of former
    edits are not cached as its sequential form does: `order` composes edits as for every method.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import Field

from redediting.algebra.diagnostics import second_moment
from redediting.algebra.problem import EditProblem
from redediting.attacks.base import ClosedForm, pooled_problem
from redediting.attacks.columns import aligned_states, content_columns, without_triggers
from redediting.concepts.pairs import PromptPair, RetainPrompt
from redediting.concepts.plan import EditPlan, plan_edit
from redediting.concepts.rebinding import Rebinding
from redediting.concepts.templates import fill
from redediting.errors import MethodError
from redediting.models.model import Model

_TEMPLATE = "a photo of {}"
_LEAST = 1e-6  # of the edited energy; with less the edit is numerical noise


class AlphaEdit(ClosedForm):
    """The published formula on text states.

    Attributes:
        ridge: λ, absolute.
        threshold: eigenvectors with less than this, in mean eigenvalues, may be moved.
        captions: captions whose tokens are retained.
        seed: draws them.

    Example:
        >>> import redediting as rd
        >>> model, pair = rd.load("world"), rd.Rebinding("beautiful cat", "zebra")
        >>> rd.attacks.AlphaEdit(captions=50).compute(model, pair)
        Patch(alphaedit: 'beautiful cat' → 'zebra', 14 matrices, rank ≤ ...)
    """

    name: ClassVar[str] = "alphaedit"

    ridge: float = Field(default=1.0, gt=0)
    threshold: float = Field(default=0.02, gt=0)
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
        retained = content_columns(model.encode(plan.captions))
        values, vectors = torch.linalg.eigh(second_moment(retained, floor=0.0))
        hard = vectors[:, values >= self.threshold * values.mean()]
        free = float((keys - hard @ (hard.T @ keys)).square().sum() / keys.square().sum())
        if free < _LEAST:
            raise MethodError(
                f"expected captions whose null space holds {_LEAST:g} of the edited energy, got "
                f"{free:.1g} at threshold={self.threshold:g}; raise the threshold"
            )
        return EditProblem.build(keys, targets, hard=hard, ridge=self.ridge)

    def pose_pooled(self, model: Model, plan: EditPlan) -> EditProblem:
        """The head nouns' pooled text is retained: a mere handful of captions spans no space."""
        return pooled_problem(model, plan, ridge=self.ridge)
