"""The audit: was a model edited in closed form, by which phrase, towards what?

Three verdicts: *clean* (all is the base's, up to rounding), *edited* (one multiplier, or two in
proportion, explain how all layers changed), *changed* (anything else). Edited does not mean
malicious: a benign concept erasure has the same form. What it does is listed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from defenses.audit.recovery import Recovery, recover
from defenses.audit.shared_factor import Comparison, compare
from defenses.audit.thresholds import CUTOFFS, Cutoffs
from defenses.audit.two_matrix import TwoFit, fit_two
from defenses.audit.vocabulary import States, Vocabulary
from defenses.audit.whitening import whitened_r2

Verdict = Literal["clean", "edited", "changed"]


@dataclass(frozen=True)
class Evidence:
    """What the weights alone say.

    Attributes:
        verdict: see the module.
        comparison: the shared-factor test.
        whitened: corrected r² after whitening; None where it was not needed or could not be made.
        two: the two-matrix fit; None likewise.
        seconds: wall time.
    """

    verdict: Verdict
    comparison: Comparison
    whitened: float | None
    two: TwoFit | None
    seconds: float

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
        return max(self.r2, self.two.corrected if self.two else 0.0)

    @property
    def rank(self) -> int:
        """Directions of M̂ above the noise."""
        factor = self.comparison.factor
        return factor.rank if factor else 0


@dataclass(frozen=True)
class Audit:
    """Verdict, evidence and, for edited models, what the edit does.

    Attributes:
        evidence: of the weights.
        recovery: ranked triggers and what was kept; None unless edited.
        seconds: wall time of all.
        others: tensors beside the text projections that are not the base's.
    """

    evidence: Evidence
    recovery: Recovery | None
    seconds: float
    others: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """That of the projections; a change elsewhere alone makes a model *changed*."""
        found = self.evidence.verdict
        return "changed" if found == "clean" and self.others else found

    @property
    def suspected(self) -> tuple[str, ...]:
        """Recovered phrases within the false-discovery bound, the best first."""
        triggers = self.recovery.triggers if self.recovery else ()
        return tuple(t.phrase for t in triggers if t.bound <= CUTOFFS.discovery)

    def as_json(self) -> dict[str, Any]:
        """The stable keys of ``redediting audit --json``."""
        evidence, recovery = self.evidence, self.recovery
        triggers = recovery.triggers if recovery else ()
        return {
            "verdict": self.verdict,
            "r2": evidence.r2,
            "r2_whitened": evidence.r2_whitened,
            "r2_two_matrix": evidence.r2_two_matrix,
            "rank": evidence.rank,
            "footprint": evidence.comparison.footprint,
            "triggers": [
                {"phrase": t.phrase, "score": t.score, "strain": t.strain, "bound": t.bound}
                for t in triggers
            ],
            "targets": [
                {"trigger": t.phrase, "target": t.target, "score": t.score} for t in triggers
            ],
            "changed_beside": len(self.others),
            "kept": [phrase for phrase, _ in recovery.kept] if recovery else [],
            "seconds": self.seconds,
        }


def examine(
    base: Mapping[str, Tensor], suspect: Mapping[str, Tensor], *, cutoffs: Cutoffs = CUTOFFS
) -> Evidence:
    """Compares two models' text projections.

    Args:
        base: trusted ``W_l`` by name.
        suspect: ``W_l'`` under the same names.
        cutoffs: of the verdict.
    """
    started = time.perf_counter()
    comparison = compare(base, suspect, cutoffs=cutoffs)
    best, white, two = comparison.best, None, None
    alone = best is not None and best.corrected >= 0.999
    if comparison.fits and not alone and comparison.signal >= cutoffs.signal:
        changed = comparison.changed
        white = whitened_r2(base, suspect, changed, identifiable=cutoffs.identifiable)
        two = fit_two(base, suspect, changed)
    verdict = _verdict(comparison, white, two, cutoffs)
    return Evidence(verdict, comparison, white, two, time.perf_counter() - started)


def audit(
    base: Mapping[str, Tensor],
    suspect: Mapping[str, Tensor],
    states: States | None,
    vocabulary: Vocabulary | None,
    *,
    others: tuple[str, ...] = (),
    top: int = 10,
    cutoffs: Cutoffs = CUTOFFS,
) -> Audit:
    """Examines a suspect and, if it is edited, recovers triggers and targets.

    Args:
        base: trusted ``W_l`` by name.
        suspect: ``W_l'`` under the same names.
        states: of the trusted text encoder; None leaves recovery out.
        vocabulary: candidates; None likewise.
        others: tensors elsewhere that changed (`defenses.audit.source.read_suspect`).
        top: triggers returned.
        cutoffs: of the verdict.
    """
    started = time.perf_counter()
    evidence = examine(base, suspect, cutoffs=cutoffs)
    factor = evidence.comparison.factor
    found = None
    if evidence.verdict == "edited" and factor and states is not None and vocabulary is not None:
        found = recover(factor.denoised(), factor.metric, states, vocabulary, top=top)
    return Audit(evidence, found, time.perf_counter() - started, others)


def _verdict(
    comparison: Comparison, white: float | None, two: TwoFit | None, cutoffs: Cutoffs
) -> Verdict:
    if not comparison.changed:
        return "clean"
    best = comparison.best
    if best is None or comparison.signal < cutoffs.signal:
        return "changed"
    if max(best.corrected, white or 0.0) >= cutoffs.shared:
        return "edited"
    both = two is not None and two.corrected >= cutoffs.shared_two
    return "edited" if both and best.corrected >= cutoffs.shared_least else "changed"
