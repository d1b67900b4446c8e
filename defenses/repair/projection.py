"""Clean-span projection: what the model does outside the defender's own texts is put back.

``W' → W + (W' - W) P`` with P on the span of clean token states: hard, ``P = UUᵀ`` on the leading
directions of their Gram matrix Σ, or soft, ``P = Σ(Σ + εI)⁻¹``, where that span fills the space.
An isolated edit does nothing there and is removed; one that is not isolated stays. Without a base
the rest is dropped: ``W'P``.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from defenses.repair.base import Case, Repair, Repaired
from redediting.algebra.kernel import cholesky
from redediting.algebra.multiplier import Multiplier
from redediting.concepts.lexicon import load_lexicon
from redediting.concepts.plan import caption_prompts
from redediting.patch.patch import Term

_SOFTNESS = 1e-3  # ε of the soft form, in units of Σ's mean eigenvalue


class Projection(Repair):
    """Keeps only what clean texts see.

    Attributes:
        form: ``hard`` or ``soft``.
        energy: hard: share of the clean states' energy that the kept directions hold, 0…1.
        captions: clean captions, drawn by the seed; none holds a suspected trigger.
        seed: of the draw.
    """

    name: ClassVar[str] = "projection"

    form: Literal["hard", "soft"] = "soft"
    energy: float = Field(default=0.999, gt=0, lt=1)
    captions: int = Field(default=800, ge=1)
    seed: int = 0

    def _repair(self, case: Case) -> Repaired:
        second = self._moment(case)
        projector = self._hard(second) if self.form == "hard" else self._soft(second)
        measured = {"kept": float(projector.trace())}
        weights = case.weights
        if case.base is None:
            eye = torch.eye(len(projector), dtype=projector.dtype)
            term = Term.shared(Multiplier(eye, projector - eye), list(weights))
            return Repaired((term,), measured=measured)
        dense = {}
        for name, weight in weights.items():
            base = case.base[name].cpu().double()
            change = weight.cpu().double() - base
            if bool(change.any()):
                dense[name] = (base + change @ projector).float()
        return Repaired(dense=dense, measured=measured)

    def _moment(self, case: Case) -> Tensor:
        texts = caption_prompts(load_lexicon(), self.captions, spread=60, seed=self.seed)
        clean = [text for text in texts if not any(t in text for t in case.triggers)]
        states = case.suspect.encode(["", *clean]).states.double()
        columns = states.flatten(0, 1)
        return columns.T @ columns / len(columns)

    def _hard(self, second: Tensor) -> Tensor:
        values, vectors = torch.linalg.eigh(second)
        share = values.flip(0).cumsum(0) / values.sum()
        kept = min(int((share < self.energy).sum()) + 1, len(values))
        leading = vectors[:, len(values) - kept :]
        return leading @ leading.T

    def _soft(self, second: Tensor) -> Tensor:
        eye = torch.eye(len(second), dtype=second.dtype)
        floor = _SOFTNESS * second.diagonal().mean() * eye
        return torch.cholesky_solve(second, cholesky(second + floor))
