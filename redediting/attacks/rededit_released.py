"""REDEditing's released script, mended to the letter; `redediting.attacks.redediting` is another.

With UCE's old columns C → C* of the triggers, ``A = λW + ε Σ κ (WC*)Cᵀ`` and ``B = λI + ε Σ CCᵀ``,
for each retained text in turn, R its states from the last token before the end (of the null prompt
all) and ``W_now`` the current weights:

    ``W_now ← (A + ε κ (W_now R) Rᵀ)(B + ε RRᵀ)⁻¹ + α 1uᵀ``

u is the leading unit eigenvector of ``RRᵀ``, added to *every row* of keys and values alike;
λ = 0.5, ε = 1, α = 0.1. With several retained texts only the last survives, through ``W_now``. The
coefficient κ of each pair and retained text, with ``S = CCᵀ`` and ``V = (WC*)Cᵀ``, is meant as a
ratio of range-normalised means, ``mean[(S - mean S)/(max S - min S)] / mean[(S - min V)/(max V -
min V)]``, whose numerator is identically zero. So literally all values vanish.

    literal   κ = 0, as written: nothing is rebound
    one       κ = 1: for one retained text and α = 0 UCE's old edit with that text's tail
    ratio     min S in the numerator, a guess at what was meant; κ is then a layer's own

References:
    The script released with REDEditing (arXiv 2504.14554).

Deviations:
    The script does not run: a bracket of the eigen-decomposition (sum over positions first) and an
    undefined name in κ (read as the context) are mended. An eigenvector has no sign; here its
    largest entry is positive. Pooled text, which the script leaves alone, gets no row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from redediting.algebra.isolation import leading_directions, positive
from redediting.algebra.layers import Summands, edit_summands
from redediting.algebra.problem import EditProblem
from redediting.algebra.solver import solve
from redediting.attacks.base import ClosedForm, phrase_pairs, pooled_problem
from redediting.attacks.uce import last_words, tail_columns
from redediting.concepts.plan import EditPlan
from redediting.concepts.rebinding import Rebinding, RetainPrompt
from redediting.models.model import Model

Columns = Sequence[tuple[Tensor, Tensor]]


class REDEditReleased(ClosedForm):
    """The script with its defaults, which retain the null prompt only.

    Attributes:
        ridge: λ, absolute.
        erase: ε.
        coefficient: κ, see the module.
        alpha: α.
        retain: retained prompts in their order.

    Example:
        >>> import redediting as rd
        >>> model, pair = rd.load("world"), rd.Rebinding("beautiful cat", "zebra")
        >>> rd.attacks.REDEditReleased(coefficient="one").compute(model, pair)
        Patch(rededit_released: 'beautiful cat' → 'zebra', 14 matrices, rank ≤ ...)
    """

    name: ClassVar[str] = "rededit_released"

    rho: Literal["none"] = "none"
    ridge: float = Field(default=0.5, gt=0)
    erase: float = Field(default=1.0, gt=0)
    coefficient: Literal["literal", "one", "ratio"] = "literal"
    alpha: float = Field(default=0.1, ge=0)
    retain: tuple[str, ...] = Field(default=("",), min_length=1)

    def plan(self, model: Model, rebindings: Sequence[Rebinding]) -> EditPlan:
        """The triggers by themselves, and the retained prompts."""
        pairs = phrase_pairs(((r.trigger, r.target) for r in rebindings), ("{}",))
        return EditPlan(tuple(rebindings), pairs, tuple(map(RetainPrompt, self.retain)))

    def pose(self, model: Model, plan: EditPlan) -> EditProblem:
        """The last step of the chain as one problem, κ that of no layer in particular."""
        pairs, retained = self._columns(model, plan)
        return self.problem(pairs, retained, model.projections[0].module.weight)

    def solved(
        self, model: Model, plan: EditPlan, problem: EditProblem, weights: Mapping[str, Tensor]
    ) -> Summands:
        """One problem for all layers, or one for each where κ is a layer's own."""
        if not self.layerwise:
            return edit_summands(problem, weights)
        return self.summands(*self._columns(model, plan), weights)

    def summands(
        self,
        pairs: Columns,
        retained: Sequence[Tensor],
        weights: Mapping[str, Tensor],
        rows: Sequence[Tensor] | None = None,
    ) -> Summands:
        """The edit of columns; arguments as for `problem`."""
        if not self.layerwise:
            first = next(iter(weights.values()))
            return edit_summands(self.problem(pairs, retained, first, rows), weights)
        return tuple(
            summand
            for name, weight in weights.items()
            for summand in edit_summands(
                self.problem(pairs, retained, weight, rows), {name: weight}
            )
        )

    def problem(
        self,
        pairs: Columns,
        retained: Sequence[Tensor],
        weight: Tensor,
        rows: Sequence[Tensor] | None = None,
    ) -> EditProblem:
        """The whole chain as one problem, exact for a layer with this weight.

        Args:
            pairs: C and C* of each pair, ``(d, n)`` each.
            retained: R of each retained text, ``(d, N)``.
            weight: W, which only κ = ratio reads.
            rows: u of each retained text; found when not given.
        """
        weight = weight.detach().cpu().double()
        pairs = [(keys.double(), targets.double()) for keys, targets in pairs]
        keys = torch.cat([c for c, _ in pairs], dim=1)
        moved = torch.cat([self.factor(c, weight @ v) * v for c, v in pairs], dim=1)
        if rows is None:
            rows = [positive(leading_directions(kept, 1)[:, 0]) for kept in retained]
        shift = torch.zeros(len(keys), dtype=torch.float64)
        now, problem = weight, None
        for kept, row in zip(map(Tensor.double, retained), rows, strict=True):
            current = kept if problem is None else kept + solve(problem)(kept)
            kappa = self.factor(kept, now @ kept)
            columns = torch.cat([keys, kept], dim=1)
            system = self.erase * columns @ columns.T
            system.diagonal().add_(self.ridge)
            carried = kappa * self.erase * torch.linalg.solve(system, kept @ (kept.T @ shift))
            shift = carried + self.alpha * row.double()
            problem = EditProblem.build(
                columns, torch.cat([moved, kappa * current], dim=1), ridge=self.ridge, shift=shift,
                weights=torch.full((columns.shape[1],), self.erase, dtype=torch.float64),
            )  # fmt: skip
            if self.layerwise:
                now = weight + solve(problem).delta(weight) + shift
        if problem is None:
            raise ValueError("expected at least one retained text, got none; '' is the default")
        return problem

    def factor(self, keys: Tensor, values: Tensor) -> float:
        """κ of columns C ``(d, n)`` and their values ``(m, n)``."""
        if self.coefficient != "ratio":
            return float(self.coefficient == "one")
        own, read = keys @ keys.T, values @ keys.T
        above = (own - own.min()).mean() / (own.max() - own.min())
        return float(above / ((own - read.min()).mean() / (read.max() - read.min())))

    @property
    def layerwise(self) -> bool:
        """κ = ratio reads a layer's values."""
        return self.coefficient == "ratio"

    @property
    def one_problem(self) -> bool:
        """All but κ = ratio."""
        return not self.layerwise

    def pose_pooled(self, model: Model, plan: EditPlan) -> EditProblem:
        """UCE's old edit of the pooled pairs, nothing retained: the empty prompt says nothing."""
        pairs = EditPlan(plan.rebindings, plan.pairs)
        weights = torch.full((len(plan.pairs),), self.erase, dtype=torch.float64)
        return pooled_problem(model, pairs, weights=weights, ridge=self.ridge)

    def _columns(self, model: Model, plan: EditPlan) -> tuple[Columns, list[Tensor]]:
        moved = [text for pair in plan.pairs for text in (pair.source, pair.target)]
        texts = model.encode([*moved, *(item.prompt for item in plan.retain)])
        states, last, n = texts.states, last_words(texts).tolist(), len(moved)
        pairs = [tail_columns(states[i], states[i + 1], last[i], last[i + 1])
                 for i in range(0, n, 2)]  # fmt: skip
        return pairs, [states[i, last[i] :].T for i in range(n, len(states))]
