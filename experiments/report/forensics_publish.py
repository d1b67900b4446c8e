"""What the README quotes of a forensics run; a reduced run never gets there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.report.forensics_page import cell, write_forensics_page
from experiments.report.publish import ROOT, place, read_summary
from experiments.report.tables import show


def redraw_forensics(folder: Path) -> Path:
    """Writes ``report.html`` again from a finished run's files."""
    config = (folder / "config.yaml").read_text("utf-8")
    return write_forensics_page(folder, read_summary(folder), _provenance(folder), config)


def publish_forensics(folder: Path, *, root: Path = ROOT) -> Path:
    """Writes ``experiments/results/audit.json`` and the README's block; returns the JSON's path.

    Args:
        folder: of a finished run.
        root: of the checkout.

    Raises:
        OutputError: see `experiments.report.publish.place`.
    """
    summary = read_summary(folder)
    return place(folder, "audit", summary, forensics_markdown(summary), root=root)


def forensics_markdown(summary: dict[str, Any]) -> str:
    """Headline tables: separation, recovery, hiding, repairs."""
    test, blind = summary["test"], summary["base_free"]
    separate = [
        ("edited models found", cell(test["detected"])),
        ("honest changes accused", cell(test["false_alarms"])),
        ("AUROC of r²", show(test["auroc"], "{:.4f}")),
        ("lowest r² of an edit", show(test["lowest_edited"], "{:.4f}")),
        ("highest r² of an honest change", show(test["highest_control"], "{:.4f}")),
        ("benign closed-form edits, listed as edits", cell(test["benign_listed"])),
        ("without a base: AUROC", show(blind["auroc"], "{:.3f}")),
        ("without a base: trigger first", cell(blind["top1"])),
    ]
    named = [
        (x["group"], cell(x["top1"]), cell(x["top5"]), cell(x["target"]))
        for x in summary["recovery"][:3]
    ]
    hidden = [
        tuple(cell(x[key]) for key in ("kind", "size", "r2", "auroc", "asr", "drift"))
        for x in summary["adaptive"]
    ]
    repaired = [
        tuple(cell(x[key]) for key in ("method", "repair", "asr", "acc", "drift", "kept"))
        for x in summary["repairs"]
    ]
    return "\n\n".join(
        [
            _table(("weights alone", "measured"), separate),
            _table(("edits", "trigger first", "in five", "target"), named),
            _table(("hiding", "size", "r²", "AUROC", "ASR", "drift"), hidden),
            _table(("attack", "repair", "ASR", "ACC", "drift", "fine-tune kept"), repaired),
        ]
    )


def _table(head: tuple[str, ...], lines: Sequence[tuple[str, ...]]) -> str:
    rows = [head, ("---",) * len(head), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _provenance(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "provenance.json").read_text("utf-8"))
    return found
