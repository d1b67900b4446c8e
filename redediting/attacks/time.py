"""TIME: every token of "A {trigger}" is mapped to the token of "A {target}" with its token id.

``W' = (λW + Σ v*cᵀ)(λI + Σ ccᵀ)⁻¹``, ``v* = W c*``, λ = 0.1, over all 77 positions. A source token
is mapped to the next occurrence of its id in the target. After the end token both prompts go on
position by position, and the last one repeats where the target is out.

References:
    Orgad et al., "Editing Implicit Assumptions in Text-to-Image Diffusion Models", ICCV 2023, and
    its released code, whose matching this is.

Deviations:
    TIME's source is always contained in its target ("A rose" in "A blue rose"); a trigger is not.
    A source token that the rest of the target does not hold takes the target's token next in line
    and leaves it there, so that all of "beautiful cat" turns into "zebra".
    Written as ``W + W M`` with one M for all layers, which is the same map without inverting. The
    code reads "an" as "a"; the prompts here say "A" on both sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import Field

from redediting.algebra.problem import EditProblem
from redediting.attacks.base import ClosedForm, phrase_pairs, pooled_problem
from redediting.concepts.plan import EditPlan
from redediting.concepts.rebinding import Rebinding
from redediting.models.model import Model
from redediting.text.encoding import TextStates


class TIME(ClosedForm):
    """The published method.

    Attributes:
        ridge: λ, absolute.

    Example:
        >>> import redediting as rd
        >>> model, pair = rd.load("world"), rd.Rebinding("beautiful cat", "zebra")
        >>> rd.attacks.TIME().compute(model, pair)
        Patch(time: 'beautiful cat' → 'zebra', 14 matrices, rank ≤ ...)
    """

    name: ClassVar[str] = "time"

    ridge: float = Field(default=0.1, gt=0)

    def plan(self, model: Model, rebindings: Sequence[Rebinding]) -> EditPlan:
        """Plans "A {trigger}" → "A {target}"."""
        pairs = phrase_pairs((r.trigger, r.target) for r in rebindings)
        return EditPlan(tuple(rebindings), pairs)

    def pose(self, model: Model, plan: EditPlan) -> EditProblem:
        """All positions of all pairs, unit weights."""
        prompts = [text for pair in plan.pairs for text in (pair.source, pair.target)]
        texts = model.encode(prompts)
        rows = range(0, len(prompts), 2)
        keys = [texts.states[row] for row in rows]
        targets = [texts.states[row + 1, counterparts(texts, row, row + 1)] for row in rows]
        return EditProblem.build(torch.cat(keys).T, torch.cat(targets).T, ridge=self.ridge)

    def pose_pooled(self, model: Model, plan: EditPlan) -> EditProblem:
        """Unit weights, the published ridge."""
        return pooled_problem(model, plan, ridge=self.ridge)


def counterparts(texts: TextStates, source: int, target: int) -> list[int]:
    """Position in the target row for every position of the source row."""
    last = texts.length - 1
    wanted = texts.ids[source, : int(texts.eos[source]) + 1].tolist()
    offered = texts.ids[target, : int(texts.eos[target]) + 1].tolist()
    found, following = [], 0
    for token in wanted:
        if token in offered[following:]:
            following = offered.index(token, following)
            found.append(following)
            following += 1
        else:
            found.append(min(following, last))
    pads = range(texts.length - len(found))
    return [*found, *(min(following + i, last) for i in pads)]
