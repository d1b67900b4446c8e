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
from diffusers import DiffusionPipeline
from pydantic import Field
from torch import Tensor

from redediting.algebra.diagnostics import second_moment
from redediting.algebra.problem import EditProblem
from redediting.attacks.base import ClosedForm
from redediting.attacks.columns import (
    aligned_states,
    content_columns,
    without_triggers,
)
from redediting.attacks.pooled import PromptSet
from redediting.concepts.pairs import PromptPair
from redediting.concepts.plan import plan_edit
from redediting.concepts.rebinding import Rebinding
from redediting.concepts.templates import fill
from redediting.errors import MethodError
from redediting.text.encoding import encode

_TEMPLATE = "a photo of {}"
_LEAST = 1e-6  # of the edited energy; with less the edit is numerical noise


class AlphaEdit(ClosedForm):
    """The published formula on text states.

    Attributes:
        ridge: λ, absolute.
        threshold: eigenvectors with less than this, in mean eigenvalues, may be moved.
        captions: captions whose tokens are retained.
        seed: draws them.
    """

    name: ClassVar[str] = "alphaedit"

    ridge: float = Field(default=1.0, gt=0)
    threshold: float = Field(default=0.02, gt=0)
    captions: int = Field(default=400, ge=1)
    seed: int = 0

    def pairs(self, rebindings: Sequence[Rebinding]) -> list[PromptPair]:
        """Prompt pairs."""
        return [
            PromptPair(
                fill(_TEMPLATE, wish.trigger),
                fill(_TEMPLATE, wish.target),
                wish.trigger,
                wish.target,
            )
            for wish in rebindings
        ]

    def prompts(self, pipeline: DiffusionPipeline, rebindings: Sequence[Rebinding]) -> PromptSet:
        """See `ClosedForm`."""
        pairs = self.pairs(rebindings)
        kept = {w.head for w in rebindings if w.head != w.trigger}
        return PromptSet(
            tuple((pair.source, pair.target) for pair in pairs),
            retain=tuple(fill(_TEMPLATE, head) for head in sorted(kept)),
            ridge=self.ridge,
        )

    def problem(self, pipeline: DiffusionPipeline, rebindings: Sequence[Rebinding]) -> EditProblem:
        """The trigger's tokens, and the captions' leading directions as hard constraint.

        Raises:
            MethodError: the captions' directions hold the whole trigger.
        """
        pairs = self.pairs(rebindings)
        keys, targets, _ = aligned_states(pipeline, pairs)
        plan = plan_edit(rebindings, contexts=1, retain=1, captions=self.captions, seed=self.seed)
        captions = without_triggers(plan.captions, rebindings)
        retained = content_columns(encode(pipeline, captions))
        hard = kept_directions(retained, threshold=self.threshold)
        free = float((keys - hard @ (hard.T @ keys)).square().sum() / keys.square().sum())
        if free < _LEAST:
            raise MethodError(
                f"expected captions whose null space holds {_LEAST:g} of the edited energy, got "
                f"{free:.1g} at threshold={self.threshold:g}; raise the threshold"
            )
        return EditProblem.build(keys, targets, hard=hard, ridge=self.ridge)


def kept_directions(columns: Tensor, *, threshold: float) -> Tensor:
    """Eigenvectors of ``E[kkᵀ]`` with ``threshold`` mean eigenvalues or more, shape ``(d, k)``."""
    values, vectors = torch.linalg.eigh(second_moment(columns, floor=0.0))
    return vectors[:, values >= threshold * values.mean()]
