"""What the README quotes of a forensics run; a reduced run never gets there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.audit.ledger import Ledger
from experiments.audit.results import summarise
from experiments.report.figures import Figure
from experiments.report.forensics_page import cell, plots, write_forensics_page
from experiments.report.publish import PICTURES, ROOT, place, read_summary
from experiments.report.tables import grid, show
from redediting.errors import OutputError

_NAMED = {  # column: its heading
    "group": "edits",
    "asr": "ASR",
    "top1": "trigger first",
    "top5": "in five",
    "noun": "its noun",
    "target": "target",
    "same_noun": "same noun",
    "same_modifier": "same modifier",
}
_KEPT = ("kept", "kept_read")
_SHOWN = ("r²", "AUROC", "r² whitened", "AUROC")
_HIDDEN = ("r2", "auroc", "r2_whitened", "auroc_whitened")
_COST = ("ASR", "ACC", "drift")
_STATISTICS = (("auroc", "r²"), ("auroc_whitened", "r² after whitening"))


def redraw_forensics(folder: Path) -> Path:
    """Writes ``report.html`` again from a finished run's rows.

    Raises:
        OutputError: the folder is no finished run.
    """
    config = (folder / "config.yaml").read_text("utf-8")
    return write_forensics_page(folder, _summary(folder), _provenance(folder), config)


def publish_forensics(folder: Path, *, root: Path = ROOT) -> Path:
    """Writes ``experiments/results/NAME.json`` and the README's block; returns the JSON's path.

    Args:
        folder: of a finished run.
        root: of the checkout.

    Raises:
        OutputError: see `experiments.report.publish.place`.
    """
    summary = _summary(folder)
    name, block = summary["experiment"], forensics_markdown(summary)
    picture = plots(summary)
    drawn = [Figure("forensics", "Lasting, removing, hiding", picture, "")] if picture else []
    links = [f"![{figure.title}]({PICTURES}/{name}-{figure.name}.png)" for figure in drawn]
    return place(folder, name, summary, "\n\n".join([block, *links]), root=root, pictures=drawn)


def forensics_markdown(summary: dict[str, Any]) -> str:
    """Headline tables: separation, recovery, hiding, repairs."""
    test, blind = summary["test"], summary["base_free"]
    lowest = show(test["lowest_unmodified"], "{:.6f}")
    separate = [  # what was not measured is left out
        ("edited models found", cell(test["detected"])),
        ("honest changes accused", cell(test["false_alarms"])),
        ("AUROC of r²", show(test["auroc"], "{:.4f}")),
        ("lowest r² of an unmodified edit (of one or two matrices)", lowest),
        ("lowest r² of any edit", show(test["lowest_edited"], "{:.4f}")),
        ("highest r² of an honest change", show(test["highest_control"], "{:.4f}")),
        ("the same, whitened", show(test["highest_control_whitened"], "{:.4f}")),
        ("benign closed-form edits, listed as edits", cell(test["benign_listed"])),
        ("the concept they are about stands in the first finding", cell(test["benign_named"])),
        ("without a base: AUROC", show(blind["auroc"], "{:.3f}")),
        ("without a base: trigger first", cell(blind["top1"])),
    ]
    separate = [line for line in separate if line[1] != "–"]
    named = [
        tuple(cell(x[key]) for key in _NAMED)
        for x in summary["recovery"]
        if x["asr"] is not None  # copies and several at once are on the page
    ]
    hidden = [
        tuple(cell(x[key]) for key in ("kind", "size", *_HIDDEN, "asr", "acc", "drift", "top1"))
        for x in summary["adaptive"]
    ]
    repaired = [
        tuple(cell(x[key]) for key in ("method", "repair", "asr", "acc", "drift", *_KEPT))
        for x in summary["repairs"]
    ]
    parts = [
        grid(("weights alone", "measured"), separate),
        grid(list(_NAMED.values()), named),
    ]
    if hidden:
        parts.append(grid(("hiding", "size", *_SHOWN, *_COST, "trigger first"), hidden))
        parts += [price(summary["adaptive"], key, name) for key, name in _STATISTICS]
    if repaired:
        head = ("attack", "repair", "ASR", "ACC", "drift", "kept", "kept, as read")
        parts.append(grid(head, repaired))
    parts.append(_lasting(summary["persistence"]))
    return "\n\n".join(part for part in parts if part)


def price(lines: Sequence[dict[str, Any]], key: str, name: str, *, least: float = 0.9) -> str:
    """What hiding costs until a statistic's AUROC falls under a level, a clause a way of hiding.

    Args:
        lines: of `experiments.audit.results.adaptive`, sizes rising within a kind.
        key: its AUROC in them.
        name: of the statistic.
        least: the level.
    """
    plain = next((line for line in lines if line["kind"] == "none"), None)
    clauses = []
    for kind in dict.fromkeys(line["kind"] for line in lines if line["kind"] != "none"):
        own = [line for line in lines if line["kind"] == kind]
        first = next((x for x in own if x[key] is not None and x[key] < least), None)
        if first is None:
            clauses.append(f"{kind}: not within these sizes")
        else:
            paid = f"ASR {show(first['asr'], '{:.0%}')}, drift {show(first['drift'], '{:.3f}')}"
            clauses.append(f"{kind}: from {first['size']:g} on, at {paid}")
    start = (
        f" (unhidden: ASR {show(plain['asr'], '{:.0%}')}, drift {show(plain['drift'], '{:.3f}')})"
        if plain
        else ""
    )
    return f"AUROC of {name} under {least:g}: {'; '.join(clauses)}{start}."


def _lasting(lines: Sequence[dict[str, Any]]) -> str:
    """Success after each treatment, at its last step: a row an attack."""
    if not lines:
        return ""
    last = {(line["method"], line["trial"]): line for line in lines}  # steps rise
    trials = list(dict.fromkeys(line["trial"] for line in lines))
    heads = [
        f"{trial}, {max(x['step'] for x in lines if x['trial'] == trial)} steps"
        if any(x["step"] for x in lines if x["trial"] == trial)
        else trial
        for trial in trials
    ]
    rows = [
        (method, *(show(last[method, t]["asr"], "{:.1%}") if (method, t) in last else "–"
                   for t in trials))
        for method in dict.fromkeys(line["method"] for line in lines)
    ]  # fmt: skip
    return grid(("ASR after", *heads), rows)


def _summary(folder: Path) -> dict[str, Any]:
    """That of the run, with its tables made anew from the rows."""
    found, ledger = read_summary(folder), Ledger(folder / "rows.jsonl")
    if not ledger.rows:
        raise OutputError(
            f"expected rows.jsonl of a finished run in {str(folder)!r}, got none; "
            "run the experiment again"
        )
    return found | summarise(ledger)


def _provenance(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "provenance.json").read_text("utf-8"))
    return found
