"""What weights alone say: is a suspect its base, edited in closed form, or changed otherwise?

Three verdicts: *clean* (all is the base's, up to rounding), *edited* (one multiplier, or two in
proportion, explain how all layers changed), *changed* (anything else). Edited does not mean
malicious: a benign concept erasure has the same form.

An edit may be hidden under noise where no text points, which changes no image and lowers r² at
will. But it lies in the same directions of every layer, so they can be found and discounted: with
``C = Σ R_lᵀR_l / (Σm_l - d)``, the column covariance of what one multiplier does not explain
(``R_l = Δ_l - W_l M̂``), whitened r² takes energies of ``Δ_l C^(-½)`` and its like. Directions
drowned in noise then count for little, those left alone for much. C comes from one half of the
layers, multiplier and energies from the other, and once the other way round: directions in which
training happens to leave a half's residual small would otherwise pass for an edit's. The multiple
of I and the chance level are taken out as in `defenses.audit.shared_factor`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from defenses.audit.least_squares import Sums, covariance, power
from defenses.audit.shared_factor import Comparison, compare
from defenses.audit.thresholds import CUTOFFS
from defenses.audit.two_matrix import fit_two

Verdict = Literal["clean", "edited", "changed", "inconclusive"]


@dataclass(frozen=True)
class Evidence:
    """What the text projections say."""

    verdict: Verdict  # see the module
    comparison: Comparison  # the shared-factor test
    # corrected r² after whitening; None where it was not needed or could not be made
    whitened: float | None
    two: float | None  # the same of the two-matrix fit; None likewise
    seconds: float  # wall time

    @property
    def r2(self) -> float:
        """Corrected r² of one multiplier; 0 where nothing changed or nothing can be told."""
        best = self.comparison.best
        return best.corrected if best else 0.0

    @property
    def r2_whitened(self) -> float:
        """The same after whitening, where that was needed (see the module)."""
        return self.r2 if self.whitened is None else self.whitened

    @property
    def r2_two_matrix(self) -> float:
        """Corrected r² of two multipliers, at least that of one."""
        return max(self.r2, self.two or 0.0)

    @property
    def rank(self) -> int:
        """Directions of M̂ above the noise."""
        factor = self.comparison.factor
        return factor.rank if factor else 0


def examine(base: Mapping[str, Tensor], suspect: Mapping[str, Tensor]) -> Evidence:
    """Compares a suspect's text projections with a trusted base's of the same names.

    Raises:
        ModelError: a weight that is not finite.
    """
    started = time.perf_counter()
    comparison = compare(base, suspect)
    best, white, two = comparison.best, None, None
    alone = best is not None and best.corrected >= 0.999
    if comparison.fits and not alone and comparison.signal >= CUTOFFS.signal:
        changed = comparison.changed
        white = whitened_r2(base, suspect, changed)
        two = fit_two(base, suspect, changed)
    verdict = _verdict(comparison, white, two)
    return Evidence(verdict, comparison, white, two, time.perf_counter() - started)


def _verdict(comparison: Comparison, white: float | None, two: float | None) -> Verdict:
    if not comparison.changed:
        return "clean"
    best = comparison.best
    if best is None or comparison.signal < CUTOFFS.signal:
        return "changed"
    if max(best.corrected, white or 0.0) >= CUTOFFS.shared:
        return "edited"
    both = two is not None and two >= CUTOFFS.shared_two
    return "edited" if both and best.corrected >= CUTOFFS.shared_least else "changed"


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
) -> float | None:
    """Chance-corrected r² after whitening, at most 1; None where a half has too few rows."""
    layers = list(dict.fromkeys(_layer(name) for name in names))
    width = base[names[0]].shape[1]
    halves = []
    for start in (0, 1):
        chosen = set(layers[start::2])
        own = [name for name in names if _layer(name) in chosen]
        if sum(len(base[name]) - 1 for name in own) <= width / CUTOFFS.identifiable:
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
