"""Telling an edit from training that came on top of it: ``W_l' - W_l = W_l M + F_l``.

Least squares takes part of F for M: whatever of it lies along W. Two things are known about F that
help, both estimated from what no multiplier explains:

* its rows and columns are far from equally large, so M is solved by generalised least squares,
  with a noise ``F_l ~ N(0, S_l ⊗ C)`` whose row covariances ``S_l`` (one a layer) and common
  column covariance ``C`` are found in turns (the flip-flop algorithm);
* in coordinates where F is white, ``LᵀM̂C^(-½)``, ``LLᵀ = Σ W_lᵀS_l⁻¹W_l``, its singular values
  stay below ``2√d``; those of M̂ are shrunk to ``√(σ² - 4d)``, which is best in mean square.

An edit with nothing on top comes out unchanged.

References:
    Dutilleul, "The MLE algorithm for the matrix normal distribution", 1999.
    Gavish & Donoho, "Optimal shrinkage of singular values", 2017, Frobenius loss.

Deviations:
    ``S_l`` is shrunk towards a multiple of I by ``m_l/(m_l + d)``: it has m_l rows and only d
    columns to be estimated from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from defenses.audit.least_squares import centred, covariance, factored, power, shrunk, solve
from redediting.algebra.kernel import cholesky

_ROUNDS = 4


def separate(
    base: Mapping[str, Tensor], suspect: Mapping[str, Tensor], names: Sequence[str]
) -> tuple[Float[Tensor, "d d"], int]:
    """Estimates the shared multiplier M, fp64, below training that came on top, and its rank.

    Args:
        base: trusted ``W_l`` by name, each of shape ``(m_l, d)``.
        suspect: ``W_l'`` under the same names.
        names: matrices that changed; together they have more than d rows.
    """
    clean = [centred(base[name]) for name in names]
    delta = [centred(suspect[name]) - weight for name, weight in zip(names, clean, strict=True)]
    width = clean[0].shape[1]
    freedom = sum(len(weight) - 1 for weight in clean) - width
    energy = sum(float(change.square().sum()) for change in delta)
    inverses = [torch.eye(len(weight), dtype=torch.float64) for weight in clean]
    for turn in range(_ROUNDS):
        gram, cross, spread = torch.zeros(3, width, width, dtype=torch.float64)
        for weight, change, inverse in zip(clean, delta, inverses, strict=True):
            gram.addmm_(weight.T, inverse @ weight)
            cross.addmm_(weight.T, inverse @ change)
        root = factored(gram)
        multiplier, half = solve(root, cross)
        rest = [change - weight @ multiplier for weight, change in zip(clean, delta, strict=True)]
        for left, inverse in zip(rest, inverses, strict=True):
            spread.addmm_(left.T, inverse @ left)
        noise = covariance(spread, freedom, energy)
        if turn < _ROUNDS - 1:
            white = power(noise, -0.5)
            inverses = [_inverse(left @ white) for left in rest]
    return shrunk(half, root, noise)


def _inverse(white: Float[Tensor, "m d"]) -> Float[Tensor, "m m"]:
    """Inverse row covariance of what is white by columns; of mean variance 1 where it is none."""
    rows, columns = white.shape
    found = white @ white.T / columns
    level = float(found.diagonal().mean()) or 1.0
    share = rows / (rows + columns)
    found.mul_(1 - share).diagonal().add_(share * level)
    return torch.cholesky_inverse(cholesky(found))
