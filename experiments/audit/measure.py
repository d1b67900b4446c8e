"""Forensics: does the audit find edits, name triggers and spare honest changes; can one repair?

``python -m experiments.audit configs/audit/first.yaml [--quick]``. A killed run continues where it
stopped: each suspect and each measurement is a row of its own.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
import yaml

from experiments.audit.config import AuditConfig
from experiments.audit.lab import Lab
from experiments.audit.ledger import Ledger
from experiments.audit.results import summarise
from experiments.audit.stages import adaptive, audit_suspects, persistence, repairs
from experiments.console import run_main
from experiments.engine.folder import code_digest, provenance, replace_json, replace_text
from experiments.engine.specs import digest, load_config
from experiments.entry import Experiment
from experiments.judges import Panel, world_panel
from experiments.report.forensics_page import write_forensics_page
from experiments.report.tables import show
from redediting.models.model import Model


@dataclass(frozen=True)
class AuditExperiment(Experiment):
    """Audits edited and honest models, tries to hide and to remove edits; writes a report."""

    def run(self) -> int:
        """Runs the experiment."""
        config = load_config(self.config, AuditConfig).resolved(quick=self.quick)
        started = self.start(config.model)
        shown = started.shown
        summary = forensics(
            config, started.model, world_panel(), out=self.out, device=started.device,
            progress=shown.progress,
        )  # fmt: skip
        for line in headlines(summary):
            shown.line(line)
        shown.result(summary)
        return 0


def forensics(
    config: AuditConfig,
    model: Model,
    panel: Panel,
    *,
    out: Path,
    device: str = "cpu",
    progress: bool = False,
) -> dict[str, Any]:
    """Runs every stage and writes summary and report.

    Args:
        config: resolved.
        model: the clean model.
        panel: the judges.
        out: where run folders lie.
        device: torch device of the model.
        progress: whether to show bars.

    Returns:
        The summary, as in ``summary.json``.
    """
    started = time.perf_counter()
    base = model.fingerprint()
    name = digest(config.model_dump_json(), base, code_digest("redediting", "defenses"))
    folder = out / config.experiment / name
    folder.mkdir(parents=True, exist_ok=True)
    resolved = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    replace_text(folder / "config.yaml", resolved)
    made = provenance(device, base) | {"quick": config.quick}
    replace_json(folder / "provenance.json", made)
    lab = Lab(config, model, panel, Ledger(folder / "rows.jsonl"))
    pairs = config.test.pairs.rebindings()
    if config.development:
        audit_suspects(lab, config.development, "development", progress=progress)
    audit_suspects(lab, config.test, "test", progress=progress)
    if config.persistence:
        persistence(lab, config.persistence, pairs, progress=progress)
    if config.repairs:
        repairs(lab, config.repairs, pairs, progress=progress)
    if config.adaptive:
        adaptive(lab, config.adaptive, pairs, progress=progress)
    summary = {
        "experiment": config.experiment,
        "model": config.model,
        **summarise(lab.ledger),
        "seconds": time.perf_counter() - started,
        "report": (folder / "report.html").as_posix(),
    }
    replace_json(folder / "summary.json", summary)
    write_forensics_page(folder, summary, made, resolved)
    return summary


def headlines(summary: dict[str, Any]) -> list[str]:
    """What a reader wants to know first, a line each."""
    test = summary["test"]
    lines = [
        f"{test['edited']} edited models and {test['controls']} controls: AUROC "
        f"{show(test['auroc'], '{:.4f}')}; lowest edited r² "
        f"{show(test['lowest_edited'], '{:.4f}')}, highest control "
        f"{show(test['highest_control'], '{:.4f}')}",
        f"detected {said(test['detected'])}; false alarms {said(test['false_alarms'])}",
    ]
    lines += [
        f"{line['group']}: trigger first {said(line['top1'])}, in five {said(line['top5'])}, "
        f"target {said(line['target'])}"
        for line in summary["recovery"][:3]
        if line["top1"]["n"]
    ]
    blind = summary["base_free"]
    if blind["top1"]["n"]:
        lines.append(
            f"without a base: AUROC {show(blind['auroc'], '{:.3f}')}, trigger first "
            f"{said(blind['top1'])}"
        )
    lines.append(f"report: {summary['report']}")
    return lines


def said(rate: dict[str, Any]) -> str:
    """A rate with its interval and n."""
    if rate["value"] is None:
        return "not measured"
    low, high = rate["ci"]
    return f"{rate['value']:.1%} ({low:.1%} … {high:.1%}, n = {rate['n']})"


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m experiments.audit``; returns the exit code."""
    return run_main(lambda: tyro.cli(AuditExperiment, args=arguments, description=__doc__).run())


if __name__ == "__main__":
    sys.exit(main())
