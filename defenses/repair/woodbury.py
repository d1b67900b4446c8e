"""The inverse of an edit: ``(I + DX)⁻¹ = I - D (I + XD)⁻¹ X``, without inverting d×d."""

from __future__ import annotations

import math

import torch

from redediting.algebra.multiplier import Multiplier


def undo(multiplier: Multiplier) -> tuple[Multiplier, float]:
    """The multiplier ``N`` with ``(I + M)(I + N) = I``, and the condition of ``I + XD``.

    The condition counts the directions that the edit leaves alone, ``max(1, σ₁)/σ_r``.

    A large condition number says that the edit maps two texts onto one: what it made equal, no
    inverse takes apart again; ``inf`` that it does so exactly.

    Args:
        multiplier: ``M = DX``.
    """
    inner = torch.eye(multiplier.rank, dtype=multiplier.left.dtype)
    inner = inner + multiplier.right @ multiplier.left
    values = torch.linalg.svdvals(inner)
    top, low = (max(1.0, float(values[0])), float(values[-1])) if len(values) else (1.0, 1.0)
    condition = top / low if low > 0 else math.inf
    solved = torch.linalg.lstsq(inner, multiplier.right, driver="gelsd").solution
    return Multiplier(-multiplier.left, solved), condition
