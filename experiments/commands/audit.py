"""``redediting audit``: verdict, evidence and ranked triggers of a suspect, from weights alone.

Exit code 0: clean, 3: edited in closed form, 4: changed otherwise, 5: inconclusive (nothing that
could be compared had changed, but not everything could be).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.commands.common import Command, check
from experiments.engine.console import Shown, pick_device

if TYPE_CHECKING:
    from defenses.audit import AuditReport


@dataclass(frozen=True, kw_only=True)
class AuditCommand(Command):
    """Compares a suspect's weights with its base's; draws no image."""

    suspect: str
    """Pipeline folder, folder or file of weights, LoRA, patch folder, card or hub id."""
    base: str = "world"
    """The trusted model that it was made from: card, model folder or hub id."""
    top: int = 5
    """Triggers to name."""
    report: Path | None = None
    """Also write a page with the spectrum and how far phrases move, e.g. audit.html."""

    def run(self) -> int:
        """Audits and shows."""
        page = None if self.report is None else self.report.parent
        check(model=self.base, device=self.device, suspect=self.suspect, out=page)
        from defenses import audit

        found = audit(self.base, self.suspect, top=self.top, device=pick_device(self.device))
        shown = Shown(self.json)
        _show(found, shown)
        result = found.as_json()
        if self.report is not None:
            from experiments.report.suspect_page import suspect_page

            suspect_page(found, base=self.base, suspect=self.suspect).write(self.report)
            shown.line(f"report: {self.report}")
            result["report"] = self.report.as_posix()
        shown.result(result)
        return found.exit_code


def _show(found: AuditReport, shown: Shown) -> None:
    evidence = found.evidence
    shown.line(found.headline)
    best = evidence.comparison.best
    if best is not None:
        shown.line(
            f"one shared factor explains {best.corrected:.4f} of the change beyond chance "
            f"({best.group}; raw {best.r2:.4f}, chance {best.chance:.4f}), whitened "
            f"{evidence.r2_whitened:.4f}; two explain {evidence.r2_two_matrix:.4f}; "
            f"rank {evidence.rank}"
        )
    if found.survey is not None:
        shown.line(found.survey.scope)
    for sentence in found.findings:
        shown.line(sentence)
    if found.recovery is not None:
        shown.frame(found.table())
        for line in found.notes:
            shown.line(line)
