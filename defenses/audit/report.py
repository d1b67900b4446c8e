"""An audit's result: verdict, coverage, evidence and, for edited models, what the edit does."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from defenses.audit.evidence import Evidence, Verdict, examine
from defenses.audit.recovery import Recovery, Trigger, recover
from defenses.audit.thresholds import CUTOFFS
from defenses.audit.vocabulary import States, Vocabulary
from redediting.evaluation.frame import Column, Frame
from redediting.io import replace_json

if TYPE_CHECKING:
    import pandas as pd

EXIT_CODES: Mapping[Verdict, int] = {"clean": 0, "edited": 3, "changed": 4}
COLUMNS = (
    Column("phrase", "phrase"),
    Column("target", "moves to"),
    Column("score", "score", "{:.2f}", meaning="how near it comes to the target; 1: it arrives"),
    Column("strain", "residual", "{:.1g}",
           meaning="share of that displacement outside the column space of the edit"),
    Column("bound", "false-discovery bound", "{:.1g}", short="FDR"),
    Column("moved", "‖M̂c‖/‖c‖", "{:.2f}"),
)  # fmt: skip


@dataclass(frozen=True)
class Coverage:
    """What became of some tensors of a component.

    Attributes:
        component: of the model; ``other`` for tensors that the base has no name for.
        status: ``equal``, ``changed``, ``missing`` (taken for the base's), ``not_carried`` (the
            whole component is missing) or ``not_compared``.
        tensors: how many.
    """

    component: str
    status: str
    tensors: int


@dataclass(frozen=True, repr=False)
class AuditReport:
    """Verdict and evidence; of an edited model, ranked triggers and their targets.

    Attributes:
        evidence: of the text projections.
        recovery: ranked triggers and retained concepts; None unless edited.
        seconds: wall time.
        others: tensors beside the text projections that are not the base's.
        coverage: what was compared; empty where projections alone were given.
    """

    evidence: Evidence
    recovery: Recovery | None
    seconds: float
    others: tuple[str, ...] = ()
    coverage: tuple[Coverage, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """That of the projections; a change elsewhere alone makes a model *changed*."""
        found = self.evidence.verdict
        return "changed" if found == "clean" and self.others else found

    @property
    def exit_code(self) -> int:
        """Of ``redediting audit``: 0 clean, 3 edited, 4 changed."""
        return EXIT_CODES[self.verdict]

    @property
    def triggers(self) -> tuple[Trigger, ...]:
        """Recovered phrases, the best first; none is certain, see their bounds."""
        return self.recovery.triggers if self.recovery else ()

    @property
    def targets(self) -> tuple[str, ...]:
        """The concept that each of them moves to."""
        return tuple(trigger.target for trigger in self.triggers)

    @property
    def suspected(self) -> tuple[str, ...]:
        """Recovered phrases within the false-discovery bound, the best first."""
        return tuple(t.phrase for t in self.triggers if t.bound <= CUTOFFS.discovery)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A row a trigger."""
        return [{c.key: getattr(t, c.key) for c in COLUMNS} for t in self.triggers]

    @property
    def headline(self) -> str:
        """Verdict and size of the change, in one line."""
        comparison = self.evidence.comparison
        return (
            f"verdict: {self.verdict} ({len(comparison.changed)} text projections and "
            f"{len(self.others)} other tensors changed, "
            f"‖ΔW‖/‖W‖ {comparison.footprint:.4f}, {self.seconds:.1f} s)"
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """How specific the edit is and what it retains, a sentence each; none unless edited."""
        found = self.recovery
        if found is None:
            return ()
        kept = ", ".join(f"{phrase} {moved:.2f}" for phrase, moved in found.kept[:5])
        return (
            f"Of other modifiers before the first trigger's noun, {found.same_noun:.0%} score as "
            f"high; of other nouns after its modifier, {found.same_modifier:.0%}.",
            f"Least moved: {kept}; the empty prompt: at most {found.null_moved:.2f}.",
            "A closed-form edit need not be malicious: a concept erasure has the same form.",
        )

    def table(self) -> Frame:
        """The ranked triggers."""
        tried = f", of {self.recovery.candidates} phrases" if self.recovery else ""
        return Frame(COLUMNS, tuple(self.rows), title=f"triggers{tried}")

    def to_pandas(self) -> pd.DataFrame:
        """The ranked triggers as a data frame."""
        return self.table().to_pandas()

    def save(self, path: str | Path) -> Path:
        """Writes `as_json` to a file.

        Raises:
            OutputError: it cannot be written.
        """
        replace_json(Path(path), self.as_json())
        return Path(path)

    def as_json(self) -> dict[str, Any]:
        """The stable keys of ``redediting audit --json``."""
        evidence, recovery = self.evidence, self.recovery
        return {
            "verdict": self.verdict,
            "coverage": [vars(part) for part in self.coverage],
            "r2": evidence.r2,
            "r2_whitened": evidence.r2_whitened,
            "r2_two_matrix": evidence.r2_two_matrix,
            "rank": evidence.rank,
            "footprint": evidence.comparison.footprint,
            "triggers": [
                {"phrase": t.phrase, "score": t.score, "strain": t.strain, "bound": t.bound}
                for t in self.triggers
            ],
            "targets": [
                {"trigger": t.phrase, "target": t.target, "score": t.score} for t in self.triggers
            ],
            "changed_beside": len(self.others),
            "kept": [phrase for phrase, _ in recovery.kept] if recovery else [],
            "seconds": self.seconds,
        }

    def __repr__(self) -> str:
        """The headline and the triggers."""
        return f"{self.headline}\n{self.table()}" if self.triggers else self.headline

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return f"<p>{self.headline}</p>" + (self.table().to_html() if self.triggers else "")


def audit_weights(
    base: Mapping[str, Tensor],
    suspect: Mapping[str, Tensor],
    states: States,
    vocabulary: Vocabulary,
    *,
    others: tuple[str, ...] = (),
    coverage: tuple[Coverage, ...] = (),
    top: int = 10,
) -> AuditReport:
    """Examines text projections and, if they are edited, recovers triggers and targets.

    Args:
        base: trusted ``W_l`` by name.
        suspect: ``W_l'`` under the same names.
        states: of the trusted text encoder.
        vocabulary: candidates.
        others: tensors elsewhere that changed.
        coverage: what was compared.
        top: triggers returned.

    Raises:
        ModelError: a weight that is not finite.
    """
    started = time.perf_counter()
    evidence = examine(base, suspect)
    factor = evidence.comparison.factor
    found = None
    if evidence.verdict == "edited" and factor:
        found = recover(factor.denoised(), factor.metric, states, vocabulary, top=top)
    return AuditReport(evidence, found, time.perf_counter() - started, others, coverage)
