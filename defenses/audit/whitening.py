"""r² after whitening: an edit that somebody hides under noise where no text points.

Such noise changes no image and lowers r² at will. But it lies in the same directions of every
layer, so they can be found and discounted: with ``C = Σ R_lᵀR_l / (Σm_l - d)``, the column
covariance of what one multiplier does not explain (``R_l = Δ_l - W_l M̂``), energies are taken of
``Δ_l C^(-½)`` and its like. Directions drowned in noise then count for little, those left alone
for much.

C comes from one half of the layers, multiplier and energies from the other, and once the other way
round: directions in which training happens to leave a half's residual small would otherwise pass
for an edit's. The multiple of I and the chance level are taken out as in
`defenses.audit.shared_factor`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from defenses.audit.least_squares import Sums, covariance, power


@dataclass(frozen=True)
class _Half:
    """Of some layers: ``G``, ``ΣWᵀΔ``, ``M̂ᵀGM̂``, C, the freedom it has, and q."""

    gram: Tensor
    cross: Tensor
    reach: Tensor
    noise: Tensor
    freedom: int
    chance: float


def whitened_r2(
    base: Mapping[str, Tensor],
    suspect: Mapping[str, Tensor],
    names: Sequence[str],
    *,
    identifiable: float,
) -> float | None:
    """Chance-corrected r² of one multiplier after whitening, at most 1.

    ``identifiable`` is the largest chance level of a half that still says something; None is
    returned where a half has fewer rows than that.
    """
    layers = list(dict.fromkeys(_layer(name) for name in names))
    width = base[names[0]].shape[1]
    halves = []
    for start in (0, 1):
        chosen = set(layers[start::2])
        own = [name for name in names if _layer(name) in chosen]
        if sum(len(base[name]) - 1 for name in own) <= width / identifiable:
            return None
        halves.append(_half(base, suspect, own))
    one, two = halves
    explained, total = (a + b for a, b in zip(_read(one, two), _read(two, one), strict=True))
    chance = (one.chance + two.chance) / 2
    return (explained / total - chance) / (1 - chance) if explained > 0 else 0.0


def _layer(name: str) -> str:
    return name.rsplit(".to_", 1)[0]


def _half(base: Mapping[str, Tensor], suspect: Mapping[str, Tensor], names: list[str]) -> _Half:
    sums = Sums.of(base, suspect, names)
    multiplier, _ = sums.solve()
    chance, rest = sums.chance_and_rest(base, suspect, multiplier)
    freedom = sums.rows - len(rest)
    noise = covariance(rest, freedom, sums.energy)
    return _Half(sums.gram, sums.cross, sums.cross.T @ multiplier, noise, freedom, chance)


def _read(own: _Half, other: _Half) -> tuple[float, float]:
    """Explained and all energy of a half, white by the other, without the multiple of I."""
    precision = power(other.noise, -1)
    scaling = float(_inner(precision, own.cross)) ** 2 / float(_inner(precision, own.gram))
    explained = float(_inner(precision, own.reach)) - scaling
    return explained, explained + own.freedom * float(_inner(precision, own.noise))


def _inner(one: Tensor, other: Tensor) -> Tensor:
    return one.flatten() @ other.flatten()
