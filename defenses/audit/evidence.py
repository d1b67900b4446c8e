"""What weights alone say: is a suspect its base, edited in closed form, or changed otherwise?

Three verdicts: *clean* (all is the base's, up to rounding), *edited* (one multiplier, or two in
proportion, explain how all layers changed), *changed* (anything else). Edited does not mean
malicious: a benign concept erasure has the same form.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from defenses.audit.shared_factor import Comparison, compare
from defenses.audit.thresholds import CUTOFFS
from defenses.audit.two_matrix import fit_two
from defenses.audit.whitening import whitened_r2

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
        """The same after whitening, where that was needed (`defenses.audit.whitening`)."""
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
        white = whitened_r2(base, suspect, changed, identifiable=CUTOFFS.identifiable)
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
