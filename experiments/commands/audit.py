"""``redediting audit``: verdict, evidence and ranked triggers of a suspect, from weights alone.

Exit code 0: clean, 3: edited in closed form, 4: changed otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from defenses.audit import (
    Audit,
    States,
    Vocabulary,
    audit,
    base_weights,
    read_suspect,
)
from experiments.console import Shown, pick_device
from experiments.engine.folder import check_writable
from experiments.report.audit_page import write_audit_page
from redediting.models.loading import load

EXIT_CODES = {"clean": 0, "edited": 3, "changed": 4}


@dataclass(frozen=True, kw_only=True)
class AuditCommand:
    """Compares a suspect's weights with its base's; draws no image."""

    suspect: str
    """Pipeline folder, folder or file of weights, LoRA, patch folder, card or hub id."""
    base: str = "world"
    """The trusted model that it was made from: card, model folder or hub id."""
    top: int = 5
    """Triggers to name."""
    report: Path | None = None
    """Also write a page with the spectrum and how far phrases move, e.g. audit.html."""
    device: str = "auto"
    """Where the text encoder runs: auto, cpu or cuda."""
    json: bool = False
    """Print one JSON object as the last line."""

    def run(self) -> int:
        """Audits and shows."""
        if self.report is not None:
            check_writable(self.report.parent)
        model = load(self.base, device=pick_device(self.device))
        trusted = base_weights(model)
        suspect = read_suspect(self.suspect, model)
        found = audit(
            trusted,
            suspect.projections,
            States(model),
            Vocabulary.of(model.tokenizer),
            others=suspect.others,
            top=self.top,
        )
        shown = Shown(self.json)
        _show(found, shown, Console(stderr=self.json))
        result = found.as_json()
        if self.report is not None:
            write_audit_page(self.report, found, base=self.base, suspect=self.suspect)
            shown.line(f"report: {self.report}")
            result["report"] = self.report.as_posix()
        shown.result(result)
        return EXIT_CODES[found.verdict]


def _show(found: Audit, shown: Shown, console: Console) -> None:
    evidence = found.evidence
    shown.line(
        f"verdict: {found.verdict} ({len(evidence.comparison.changed)} text projections and "
        f"{len(found.others)} other tensors changed, "
        f"‖ΔW‖/‖W‖ {evidence.comparison.footprint:.4f}, {found.seconds:.1f} s)"
    )
    best = evidence.comparison.best
    if best is not None:
        shown.line(
            f"one shared factor explains {best.corrected:.4f} of the change beyond chance "
            f"({best.group}; raw {best.r2:.4f}, chance {best.chance:.4f}), whitened "
            f"{evidence.r2_whitened:.4f}; two explain {evidence.r2_two_matrix:.4f}; "
            f"rank {evidence.rank}"
        )
    recovery = found.recovery
    if recovery is None:
        return
    table = Table(title=f"triggers, of {recovery.candidates} phrases", title_justify="left")
    heads = ("phrase", "lands on", "score", "strain", "false-discovery bound", "‖M̂c‖/‖c‖")
    for head in heads:
        table.add_column(head, justify="left" if head in heads[:2] else "right")
    for t in recovery.triggers:
        figures = (f"{t.score:.2f}", f"{t.strain:.1g}", f"{t.bound:.1g}", f"{t.moved:.2f}")
        table.add_row(t.phrase, t.target, *figures)
    console.print(table)
    shown.line(
        f"of other modifiers before that noun {recovery.same_noun:.0%} land as well, of other "
        f"nouns after that modifier {recovery.same_modifier:.0%}"
    )
    kept = ", ".join(f"{phrase} {moved:.2f}" for phrase, moved in recovery.kept[:5])
    shown.line(f"least moved: {kept}; the empty prompt: at most {recovery.null_moved:.2f}")
    shown.line("a closed-form edit need not be malicious: a concept erasure has the same form")
