"""The matrix for people: on the console, as a GitHub table, and as what the README quotes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from experiments.detection.table import ALL
from experiments.report.publish import ROOT, place, read_summary
from experiments.report.tables import PERCENT, interval, show


def public(summary: dict[str, Any]) -> dict[str, Any]:
    """Returns the keys that other programs may rely on."""
    keys = ("rows", "attacks", "claims", "n_pairs", "n_calibration", "report")
    return {key: summary[key] for key in keys}


def show_table(summary: dict[str, Any], *, as_json: bool) -> None:
    """Prints AUROC and TPR at 5 % FPR of every detector against every attack.

    Args:
        summary: of a run.
        as_json: whether standard output is for programs; then the table goes to standard error.
    """
    attacks, cells = _cells(summary)
    title = "AUROC, TPR at 5 % FPR; triggered against length-matched benign prompts"
    table = Table(title=title, title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0))
    for head in ("detector", *attacks, "UNet evals"):
        side: Literal["left", "right"] = "left" if head == "detector" else "right"
        table.add_column(head, justify=side, overflow="fold", min_width=6)
    for detector, row in cells.items():
        table.add_row(detector, *(row[a][0] for a in attacks), row["cost"][0])
    console = Console(stderr=as_json)
    console.print(table)
    claim = summary["claims"]["stealth"]
    difference = show(claim["difference"], "{:+.1%}")
    console.print(f"claim stealth: {claim['verdict']} (reduction of drift {difference})")


def markdown(summary: dict[str, Any]) -> str:
    """Returns the matrix as a GitHub table: AUROC with its interval, TPR at 5 % FPR."""
    attacks, cells = _cells(summary)
    lines = [
        "| detector | " + " | ".join(attacks) + " | UNet evaluations |",
        "|---" * (len(attacks) + 2) + "|",
    ]
    for detector, row in cells.items():
        shown = " | ".join(row[attack][1] for attack in attacks)
        lines.append(f"| {detector} | {shown} | {row['cost'][0]} |")
    return "\n".join(lines)


def publish(folder: Path, *, root: Path = ROOT) -> Path:
    """Writes ``experiments/results/detection.json`` and the README's table.

    Args:
        folder: of a finished run.
        root: of the checkout.

    Raises:
        OutputError: see `experiments.report.publish.place`.
    """
    summary = read_summary(folder)
    n = next(row["n"] for row in summary["rows"] if row["kind"] == ALL)
    claim = summary["claims"]["stealth"]
    caption = (
        f"AUROC (95 % interval) and TPR at 5 % FPR; {n} triggered and as many length-matched "
        f"benign prompts an attack, {summary['n_pairs']} pairs, thresholds from "
        f"{summary['n_calibration']} clean prompts on the clean model.\n\n"
        f"Claim stealth: {claim['verdict']}. {_stealth(claim)}"
    )
    block = f"{markdown(summary)}\n\n{caption}"
    return place(folder, "detection", public(summary), block, root=root)


def _stealth(claim: dict[str, Any]) -> str:
    if claim["difference"] is None:
        return f"{claim['note'].capitalize()}."
    own = claim["secondary"]
    reduced = f"{claim['difference']:+.1%} ({interval(claim['ci'], '{:+.1%}')})"
    success = f"{claim['asr_difference']:+.1%} ({interval(claim['asr_difference_ci'], '{:+.1%}')})"
    unseen = ", ".join(f"{k} {v:.1%}" for k, v in own.items() if k != "relative_gain" and v)
    return (
        f"The projection's reduction of drift: {reduced}, asked for 24 %; its ASR less the plain "
        f"edit's: {success}, a loss of 2 points allowed. 1 - mean TPR at 5 % FPR over detectors: "
        f"{unseen}. {claim['note'].capitalize()}."
    )


def _cells(summary: dict[str, Any]) -> tuple[list[str], dict[str, dict[str, tuple[str, str]]]]:
    """Attacks, and by detector a short and a long text for each of them."""
    pooled = [row for row in summary["rows"] if row["kind"] == ALL]
    attacks = list(dict.fromkeys(row["attack"] for row in pooled))
    cells: dict[str, dict[str, tuple[str, str]]] = {}
    for row in pooled:
        line = cells.setdefault(row["detector"], dict.fromkeys(attacks, ("–", "–")))
        area, rate = show(row["auroc"], "{:.3f}"), show(row["tpr_at_fpr5"], PERCENT)
        span = interval(row["auroc_ci"], "{:.3f}")
        line[row["attack"]] = (f"{area}  {rate}", f"{area} ({span}), {rate}")
        line["cost"] = (f"{row['unet_evaluations']:.0f}", "")
    return attacks, cells
