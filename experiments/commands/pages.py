"""Which page a summary has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.report.publish import ROOT
from experiments.report.section import Report
from redediting.errors import OutputError


def page_of(summary: dict[str, Any], folder: Path | None) -> Report:
    """The page of a run, or of a published summary.

    Args:
        summary: of any experiment.
        folder: of the run, for pictures; None where only the summary is left.
    """
    kind = kind_of(summary)
    if kind == "detection":
        from experiments.detection.page import detection_page

        return detection_page(summary, folder)
    if kind == "audit":
        from experiments.audit.page import audit_page

        return audit_page(summary, folder)
    if kind == "ablation":
        from experiments.ablation.page import ablation_page

        return ablation_page(summary, folder)
    from experiments.attack.page import run_page

    return run_page(summary, folder)


def publish_run(folder: Path, summary: dict[str, Any], *, root: Path = ROOT) -> Path:
    """Publishes a finished run; returns the path of its JSON.

    Args:
        folder: of the run.
        summary: of the run.
        root: of the checkout.

    Raises:
        OutputError: a reduced run, or documentation without a place for it.
    """
    kind = kind_of(summary)
    if kind == "detection":
        from experiments.detection.page import publish as publish_detection

        return publish_detection(folder, summary, root=root)
    if kind == "audit":
        from experiments.audit.page import publish as publish_audit

        return publish_audit(folder, summary, root=root)
    if kind == "ablation":
        from experiments.ablation.publish import publish as publish_ablation

        return publish_ablation(folder, summary, root=root)
    from experiments.attack.publish import publish

    return publish(folder, summary, root=root)


def kind_of(summary: dict[str, Any]) -> str:
    """``attack``, ``ablation``, ``detection`` or ``audit``; a published one shows by its keys."""
    name = str(summary.get("experiment", ""))
    if not {"rows", "experiment"} & set(summary):
        raise OutputError(
            f"expected the summary of an experiment, got a file with {sorted(summary)[:5]}; name "
            "a run folder or a file of experiments/results/"
        )
    if name.startswith("audit") or "suspects" in summary:
        return "audit"
    if name == "detection" or any("auroc" in row for row in summary.get("rows", [])[:1]):
        return "detection"
    if name in ("ablation", "development") or "foreseen" in summary:
        return "ablation"
    return "attack"
