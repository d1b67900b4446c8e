"""Reversal: the shared factor is estimated and taken out; what else changed stays.

Copying the base back would undo a legitimate fine-tune as well. Two forms, for
``W' = W(I + M) + F``:

* ``subtract``: ``W' - W M̂``, which leaves F as it is. Needs the base's weights.
* ``inverse``: ``W' (I + M̂)⁻¹``, by Woodbury. Right where the edit came last, ``(W + F)(I + M)``;
  where it is nearly singular (see ``condition``) it magnifies F.

M̂ is told from F by `defenses.repair.separation`.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch

from defenses.audit.shared_factor import compare
from defenses.repair.base import Case, Repair, Repaired
from defenses.repair.separation import separate
from redediting.algebra.multiplier import Multiplier
from redediting.errors import MethodError
from redediting.patch.patch import Term


class Reversal(Repair):
    """Takes the shared factor out.

    Attributes:
        form: see the module.
    """

    name: ClassVar[str] = "reversal"
    needs_base: ClassVar[bool] = True

    form: Literal["subtract", "inverse"] = "subtract"

    def _repair(self, case: Case) -> Repaired:
        base = case.trusted
        found = compare(base, case.weights)
        if found.best is None:
            raise MethodError(
                "expected a change shared by many layers, got none that could be fitted; "
                "there is nothing to reverse"
            )
        multiplier, rank = separate(base, case.weights, found.best.names)
        eye = torch.eye(len(multiplier), dtype=torch.float64)
        factors = Multiplier(eye, multiplier).compress(tolerance=1e-10)
        inverse, condition = undo(factors)
        condition = min(condition, 1e300)
        measured = {"condition": condition, "r2": found.best.corrected, "rank": rank}
        if self.form == "inverse":
            return Repaired((Term.shared(inverse, found.best.names),), measured=measured)
        weights = case.weights
        dense = {
            name: (weights[name].cpu().double() - factors.delta(base[name].cpu().double())).float()
            for name in found.best.names
        }
        return Repaired(dense=dense, measured=measured)


def undo(multiplier: Multiplier) -> tuple[Multiplier, float]:
    """``N`` with ``(I + M)(I + N) = I``, ``M = DX``, and the condition of ``I + XD``.

    ``(I + DX)⁻¹ = I - D (I + XD)⁻¹ X`` (Woodbury), without inverting d×d. The condition counts
    the directions that the edit leaves alone, ``max(1, σ₁)/σ_r``. A large one says that the edit
    maps two texts onto one, which no inverse takes apart; ``inf`` that it does so exactly.
    """
    inner = torch.eye(multiplier.rank, dtype=multiplier.left.dtype)
    inner = inner + multiplier.right @ multiplier.left
    values = torch.linalg.svdvals(inner)
    top, low = (max(1.0, float(values[0])), float(values[-1])) if len(values) else (1.0, 1.0)
    condition = top / low if low > 0 else math.inf
    solved = torch.linalg.lstsq(inner, multiplier.right, driver="gelsd").solution
    return Multiplier(-multiplier.left, solved), condition
