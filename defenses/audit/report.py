"""An audit's result: verdict, coverage, evidence and, for edited models, what the edit does."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from defenses.audit.coverage import Coverage, Survey
from defenses.audit.evidence import Evidence, Verdict, examine
from defenses.audit.recovery import Recovery, Trigger, recover
from defenses.audit.thresholds import CUTOFFS
from defenses.audit.vocabulary import States, Vocabulary
from redediting.evaluation.frame import Column, Frame
from redediting.io import replace_json

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION = 2
EXIT_CODES: Mapping[Verdict, int] = {"clean": 0, "edited": 3, "changed": 4, "inconclusive": 5}
COLUMNS = (
    Column("phrase", "phrase"),
    Column("target", "moves to"),
    Column("score", "score", "{:.2f}", meaning="how near it comes to the target; 1: it arrives"),
    Column("strain", "residual", "{:.1g}",
           meaning="share of that displacement outside the column space of the edit"),
    Column("bound", "false-discovery bound", "{:.1g}", short="FDR"),
    Column("moved", "‖M̂c‖/‖c‖", "{:.2f}"),
)  # fmt: skip


@dataclass(frozen=True, repr=False)
class AuditReport:
    """Verdict and evidence; of an edited model, ranked triggers and their targets.

    Attributes:
        evidence: of the text projections.
        recovery: ranked triggers and retained concepts; None unless edited.
        seconds: wall time.
        survey: what was compared of all components; None where projections alone were given.
    """

    evidence: Evidence
    recovery: Recovery | None
    seconds: float
    survey: Survey | None = None

    @property
    def verdict(self) -> Verdict:
        """*Edited* or *changed* by the projections, *changed* elsewhere, *inconclusive*, *clean*.

        The first of these that holds. *Inconclusive*: nothing that was compared had changed, and
        not everything that the suspect's format carries could be compared.
        """
        found, survey = self.evidence.verdict, self.survey
        if found != "clean" or survey is None:
            return found
        if survey.others or survey.broken:
            return "changed"
        return "inconclusive" if survey.incomplete else "clean"

    @property
    def others(self) -> tuple[str, ...]:
        """What is not the base's beside the text projections, by ``component.name``."""
        return self.survey.others if self.survey else ()

    @property
    def coverage(self) -> tuple[Coverage, ...]:
        """What was compared; empty where projections alone were given."""
        return self.survey.coverage if self.survey else ()

    @property
    def findings(self) -> list[str]:
        """The evidence in sentences: what changed, what is broken, what could not be compared."""
        found = []
        if self.evidence.comparison.changed:
            found.append(
                f"{len(self.evidence.comparison.changed)} text projections changed; one shared "
                f"factor explains {self.evidence.r2:.4f} of that beyond chance"
            )
        if self.others:
            found.append(f"{len(self.others)} others changed: {', '.join(self.others[:3])}")
        if self.survey and self.survey.broken:
            broken = self.survey.broken
            found.append(f"{len(broken)} tensors hold numbers that are not finite: {broken[0]}")
        for part in self.coverage:
            if part.status in ("missing", "unreadable"):
                reason = f" ({part.reason})" if part.reason else ""
                found.append(f"{part.component}: {part.tensors} {part.status}{reason}")
        return found

    @property
    def exit_code(self) -> int:
        """Of ``redediting audit``: 0 clean, 3 edited, 4 changed, 5 inconclusive."""
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
        """Writes `as_json` to a file; `OutputError` where it cannot be written."""
        replace_json(Path(path), self.as_json())
        return Path(path)

    def as_json(self) -> dict[str, Any]:
        """The stable keys of ``redediting audit --json``."""
        evidence, recovery = self.evidence, self.recovery
        return {
            "schema_version": SCHEMA_VERSION,
            "verdict": self.verdict,
            "reparametrised": False,  # no gauge is undone yet: such a copy counts as changed
            "scope": self.survey.scope if self.survey else "compared: text projections",
            "coverage": [vars(part) for part in self.coverage],
            "evidence": self.findings,
            "r2": evidence.r2,
            "r2_whitened": evidence.r2_whitened,
            "r2_two_matrix": evidence.r2_two_matrix,
            "rank": evidence.rank,
            "footprint": evidence.comparison.footprint,
            "triggers": [
                {key: getattr(t, key) for key in ("phrase", "score", "strain", "bound")}
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
    survey: Survey | None = None,
    top: int = 10,
) -> AuditReport:
    """Examines text projections by name and, if they are edited, recovers triggers and targets.

    Raises:
        ModelError: a weight that is not finite.
    """
    started = time.perf_counter()
    evidence = examine(base, suspect)
    factor = evidence.comparison.factor
    found = None
    if evidence.verdict == "edited" and factor:
        found = recover(factor.denoised(), factor.metric, states, vocabulary, top=top)
    return AuditReport(evidence, found, time.perf_counter() - started, survey)
