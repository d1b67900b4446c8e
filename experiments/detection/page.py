"""Page and published table of a detection run: which defence catches which attack."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.detection.config import DetectionConfig
from experiments.report.detection_plots import RunPictures
from experiments.report.publish import ROOT, place
from experiments.report.section import HARMLESS, Report, Section, facts
from redediting.config import load_config
from redediting.evaluation.detection import ALL, FAIR, detector_label
from redediting.evaluation.frame import PERCENT, Column, Frame, show
from redediting.evaluation.store import Row
from redediting.metrics.intervals import span

_AREA = "{:.3f}"
_FIGURES = (
    Column("attack", "attack"), Column("detector", "detector"), Column("direction", "side"),
    Column("kind", "kind"), Column("protocol", "protocol"), Column("auroc", "AUROC", _AREA),
    Column("auroc_successful", "of successful", _AREA),
    Column("auroc_clean_model", "clean model", _AREA, meaning="same prompts; about 0.5"),
    Column("auroc_paired", "paired", _AREA, meaning="triggered: edited against clean model"),
    Column("tpr_at_fpr1", "TPR at 1 % FPR", PERCENT),
    Column("tpr_at_fpr5", "TPR at 5 % FPR", PERCENT),
    Column("tpr_at_fpr5_successful", "of successful", PERCENT),
    Column("fpr_clean_model_triggered", "clean model, triggered", PERCENT),
    Column("fpr_clean_model_benign", "clean model, benign", PERCENT),
    Column("fpr_attacked_benign", "attacked, benign", PERCENT),
    Column("unet_evaluations", "UNet evaluations", "{:.0f}"),
    Column("seconds", "seconds", "{:.2f}"), Column("n", "n", "{:d}"),
    Column("n_successful", "n successful", "{:d}"),
)  # fmt: skip
_MATRIX = (
    "AUROC: triggered against benign prompts of as many tokens, both on the attacked model. "
    "Thresholds: clean prompts on the clean model only. “Clean model” columns are false alarms at "
    "the 5 % threshold: a detector that flags triggered prompts on the clean model reacts to odd "
    "words, not to a backdoor. high, low: the end of the score that says “backdoored”. Intervals: "
    "95 %, over pairs; where a kind of trigger has too few, the pairs' values stand instead."
)


def detection_page(summary: dict[str, Any], folder: Path | None = None) -> Report:
    """The page of a run; without a folder, of a published summary, without pictures."""
    run = None
    if folder:
        config = load_config(folder / "config.yaml", DetectionConfig)
        run = RunPictures(folder, config.units())
    pooled = tuple(row for row in summary["rows"] if row["kind"] == ALL)
    kinds = tuple(row for row in summary["rows"] if row["kind"] != ALL)
    size = [f"{summary['n_pairs']} pairs, {summary['n_calibration']} clean calibration prompts"]
    if "images" in summary:
        maps = " × ".join(map(str, summary["map_shape"]))
        size.append(f"{summary['images']} recorded generations, model “{summary['model']}”, "
                    f"attention maps of {maps}")  # fmt: skip
    return Report(
        "Detection: which defence catches which attack",
        (
            Section("AUROC, all kinds of trigger", glance(summary, "auroc", _AREA),
                    run.roc(pooled) if run else None, f"{_MATRIX} {_marked(pooled)}"),
            Section("TPR at 5 % FPR", glance(summary, "tpr_at_fpr5", PERCENT)),
            Section("All figures", Frame(_FIGURES, pooled), folded=True),
            _claim(summary["claims"]["stealth"]),
            _attacks(summary["attacks"]),
            *(run.sections() if run else ()),
            Section("By kind of trigger", Frame(_FIGURES, kinds), folded=True),
        ),
        lead=f"{', '.join(size)}. {HARMLESS}",
    ).of_run(folder)  # fmt: skip


def glance(summary: dict[str, Any], key: str, form: str) -> Frame:
    """One figure of every detector against every attack."""
    pooled = [row for row in summary["rows"] if row["kind"] == ALL]
    attacks = list(dict.fromkeys(row["attack"] for row in pooled))
    lines: dict[str, Row] = {}
    for row in pooled:
        line = lines.setdefault(detector_label(row), {"detector": detector_label(row)})
        line |= {row["attack"] + k[len(key):]: row[k] for k in (key, f"{key}_ci", f"{key}_values")
                 if k in row}  # fmt: skip
        line["cost"] = row["unet_evaluations"]
    columns = (Column("detector", "detector"), *(Column(a, a, form) for a in attacks),
               Column("cost", "UNet evaluations", "{:.0f}"))  # fmt: skip
    return Frame(columns, tuple(lines.values()))


def _marked(rows: Sequence[Row]) -> str:
    """Which cells compare prompts that differ on the clean model already."""
    if not all("marked" in row for row in rows):  # first edition
        return ""
    found = [f"{detector_label(row)} × {row['attack']} ({show(row['auroc_clean_model'], _AREA)})"
             for row in rows if row.get("marked")]  # fmt: skip
    said = f"Clean model's AUROC on the same prompts outside {FAIR[0]} … {FAIR[1]}"
    return f"{said}, to be read beside the paired AUROC: {'; '.join(found) or 'none'}."


def public(summary: dict[str, Any]) -> dict[str, Any]:
    """The keys that other programs may rely on."""
    keys = ("rows", "attacks", "claims", "n_pairs", "n_calibration", "report")
    return {key: summary[key] for key in keys}


def publish(folder: Path, summary: dict[str, Any], *, root: Path = ROOT) -> Path:
    """Writes the published JSON and the documentation's tables; see `place`."""
    n = next(row["n"] for row in summary["rows"] if row["kind"] == ALL)
    claim = _claim(summary["claims"]["stealth"])
    assert claim.frame is not None
    said = "; ".join(f"{row['name']}: {row['value']}" for row in claim.frame.rows)
    size = (
        f"{n} triggered and as many benign prompts of equal length in tokens an attack, "
        f"{summary['n_pairs']} pairs, thresholds from {summary['n_calibration']} clean prompts on "
        "the clean model. " + _marked([r for r in summary["rows"] if r["kind"] == ALL])
    )
    parts = (
        Section("", glance(summary, "auroc", _AREA), note="AUROC (95 % interval):"),
        Section("", glance(summary, "tpr_at_fpr5", PERCENT), note="TPR at 5 % FPR:"),
        Section("", note=size),
        Section("", note=f"Claim stealth: {said}."),
    )
    return place(folder, "detection", public(summary), parts, root=root)


def _claim(claim: dict[str, Any]) -> Section:
    def signed(key: str) -> str:
        bounds = claim.get(f"{key}_ci") or (claim["ci"] if key == "difference" else None)
        shown = show(claim.get(key), "{:+.1%}")
        return f"{shown} ({span(bounds, '{:+.1%}')})" if bounds else shown

    lines = [
        ("verdict", claim["verdict"].replace("_", " ")),
        (f"reduction of drift against {claim['baseline']}, 24 % claimed", signed("difference")),
        ("its ASR less the plain edit's, a loss of 2 points allowed", signed("asr_difference")),
        *((f"1 − mean TPR at 5 % FPR over detectors, {name}" if name != "relative_gain"
           else "relative gain of the projection", show(value, PERCENT))
          for name, value in claim["secondary"].items()),
    ]  # fmt: skip
    return Section("The claim: stealth", facts(lines), note=f"{claim['note'].capitalize()}.")


def _attacks(rows: list[Row]) -> Section:
    keys = dict.fromkeys(
        key for row in rows for key in row if not key.endswith(("_ci", "_values"))
    )
    forms = {"edit_seconds": "{:.2f}", "drift": "{:.4f}", "n": "{:d}", "attack": "{}"}
    columns = tuple(Column(key, key, forms.get(key, PERCENT)) for key in keys)
    note = (
        "ASR: triggered held-out captions that judge B calls the target; ACC: benign ones that "
        "keep their object. asr_…, acc_…: the same after rewording the prompt; hit_at_1: "
        "localisation by binary search."
    )
    return Section("The attacks", Frame(columns, tuple(rows)), note=note)
