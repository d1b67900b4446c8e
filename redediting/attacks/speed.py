"""SPEED: erasure in the null space of retained concepts, with the null prompt kept exactly.

``min_Δ 1/n Σᵢ‖(W+Δ)cᵢ - W c*ᵢ‖² + λ‖Δ‖²  s.t.  ΔZ = 0``: the last token of each trigger moves to
the last one of its target. Z holds the eigenvectors of the retained tokens' second moment whose
eigenvalues reach a threshold, and the fixed columns: the null prompt's BOS and three k-means
centres of its other tokens. With a soft constraint σ > 0 the fixed columns F are retained instead,
``+ 1/σ ‖ΔF‖²`` (the code's ``lamb``, added to the inner system).

References:
    Li et al., "SPEED: Scalable, Precise, and Efficient Concept Erasure for Diffusion Models", and
    its released code (values only, threshold 0.1, λ = ``retain_scale`` = 1, σ = 0).

Deviations:
    Two steps of the paper that choose and multiply retained tokens are left out: the filter, which
    drops in each layer those that an unconstrained erasure moves less than the mean, and the
    augmentation, ten copies with noise along that layer's smallest singular direction. Both differ
    from layer to layer, so that no multiplier would be shared. The retained list is the user's in
    the code; here it is the concepts of the packaged tables. Written as ``W + W M``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field
from sklearn.cluster import KMeans
from torch import Tensor

from redediting.algebra.isolation import occupied_directions
from redediting.algebra.problem import EditProblem
from redediting.attacks.base import ClosedForm, phrase_pairs, pooled_problem
from redediting.attacks.columns import require_free, without_triggers
from redediting.attacks.uce import last_words
from redediting.concepts.plan import EditPlan
from redediting.concepts.rebinding import Rebinding, RetainPrompt
from redediting.concepts.relation_sources import curated_names
from redediting.models.model import Model

_CENTRES = 3


class SPEED(ClosedForm):
    """The published edit on given retained concepts.

    Attributes:
        matrices: values only, as released.
        ridge: λ, absolute.
        threshold: eigenvectors with smaller eigenvalues may be moved.
        soft: σ; 0 keeps the fixed columns exactly.
        retain: retained prompts; None takes the concepts of the packaged tables.

    Example:
        >>> import redediting as rd
        >>> model, pair = rd.load("world"), rd.Rebinding("beautiful cat", "zebra")
        >>> rd.attacks.SPEED().compute(model, pair)
        Patch(speed: 'beautiful cat' → 'zebra', 7 matrices, rank ≤ ...)
    """

    name: ClassVar[str] = "speed"

    matrices: Literal["both", "key", "value"] = "value"
    ridge: float = Field(default=1.0, gt=0)
    threshold: float = Field(default=0.1, gt=0)
    soft: float = Field(default=0.0, ge=0)
    retain: tuple[str, ...] | None = None

    def plan(self, model: Model, rebindings: Sequence[Rebinding]) -> EditPlan:
        """The triggers by themselves, and the retained concepts that hold none of them."""
        kept = without_triggers(
            curated_names() if self.retain is None else self.retain, rebindings
        )
        pairs = phrase_pairs(((r.trigger, r.target) for r in rebindings), ("{}",))
        return EditPlan(tuple(rebindings), pairs, tuple(map(RetainPrompt, kept)))

    def pose(self, model: Model, plan: EditPlan) -> EditProblem:
        """Last tokens; of an empty retained prompt all but BOS, as in the code."""
        moved = [text for pair in plan.pairs for text in (pair.source, pair.target)]
        texts = model.encode([*moved, *(item.prompt for item in plan.retain)])
        states = texts.states[torch.arange(len(texts.prompts)), last_words(texts)]
        null = model.encode([""]).states[0]
        n = len(moved)
        kept = [
            state[None] if item.prompt else null[1:]
            for item, state in zip(plan.retain, states[n:], strict=True)
        ]
        fixed = torch.cat([null[:1], centres(null[1:])])
        return self.problem(
            states[0:n:2].T, states[1:n:2].T, torch.cat([null[:0], *kept]).T, fixed.T
        )

    def problem(
        self, keys: Tensor, targets: Tensor, retained: Tensor, fixed: Tensor
    ) -> EditProblem:
        """The published problem of columns, each of shape ``(d, …)``."""
        hard = (
            occupied_directions(retained, self.threshold)
            if retained.shape[1]
            else retained.double()
        )
        require_free(keys.double(), hard, self.threshold)
        weights = torch.full((keys.shape[1],), 1 / keys.shape[1], dtype=torch.float64)
        if self.soft:
            return EditProblem.build(
                keys, targets, weights=weights, hard=hard, ridge=self.ridge,
                retain=fixed, retain_strength=1 / self.soft,
            )  # fmt: skip
        hard = torch.cat([hard, fixed.double()], dim=1)
        return EditProblem.build(keys, targets, weights=weights, hard=hard, ridge=self.ridge)

    def pose_pooled(self, model: Model, plan: EditPlan) -> EditProblem:
        """The same means and ridge; retained pooled texts are soft, with weight 1."""
        share = torch.full((len(plan.pairs),), 1 / len(plan.pairs), dtype=torch.float64)
        return pooled_problem(model, plan, weights=share, ridge=self.ridge)


def centres(states: Tensor) -> Tensor:
    """Three k-means centres of states ``(n, d)``, fp64: seeded, the best of ten starts."""
    found = KMeans(_CENTRES, n_init=10, random_state=0).fit(states.double().numpy())
    return torch.from_numpy(found.cluster_centers_)
