"""The page of an ablation: switches, fronts of the sweeps, many backdoors, choices."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

from experiments.attack.page import (
    claim_section,
    closing_sections,
    front_sections,
    galleries,
    lead,
    method_sections,
)
from experiments.engine.specs import OURS
from experiments.report.plots import growth
from experiments.report.section import QUICK, Plot, Report, Section
from experiments.report.tables import COMPARED, METHOD, columns, signed, unswept
from redediting.evaluation.frame import Column, Frame
from redediting.evaluation.summary import Summary, differences

_P = Column("asr_free_p", "p", "{:.3f}", meaning="of ASR free, sign flips, adjusted by Holm")
_GROWN = ("asr_free", "acc", "collateral", "drift", "seconds")


def ablation_page(summary: dict[str, Any], folder: Path | None = None) -> Report:
    """The page of an ablation.

    Args:
        summary: as in ``summary.json``, or a published one.
        folder: of the run, for pictures and provenance; None where only the summary is left.
    """
    swept = any(len(own) > 1 for own in summary.get("families", {}).values())
    return Report(
        "redediting: ablation",
        (
            *method_sections(summary),
            *worth_section(summary),
            *front_sections(summary),
            *capacity_section(summary),
            *choice_section(summary),
            claim_section(summary),
            *(() if folder is None or swept else galleries(folder, summary)),
            *closing_sections(summary, folder),
        ),
        lead=lead(summary),
        warning=QUICK if summary.get("quick") else "",
    )


def worth(summary: dict[str, Any]) -> list[Summary]:
    """Switches and rivals less the method by default, rebinding by rebinding."""
    titles = [line["method"] for line in unswept(summary)]
    return differences(summary["rows"], titles, COMPARED, reference=OURS)


def worth_section(summary: dict[str, Any]) -> tuple[Section, ...]:
    """What each switch is worth; nothing where the method by default was not measured."""
    lines = worth(summary)
    note = (
        "Each method less the one by default, rebinding by rebinding on the same captions and "
        "noise; mean over rebindings. Exploratory: these contrasts were not named beforehand, and "
        "each interval (95 %, over rebindings) is its own; p (of ASR) is adjusted by Holm for all "
        "contrasts of the table."
    )
    shown = (METHOD, *signed(COMPARED), _P, Column("n_pairs", "pairs"))
    frame = Frame(shown, tuple(lines))
    return (Section("What each switch is worth", frame, note=note),) if lines else ()


def capacity_section(summary: dict[str, Any]) -> tuple[Section, ...]:
    """The growth with many backdoors, where it was measured."""
    held = summary.get("capacity")
    if not held:
        return ()
    broken = ", ".join(
        f"{name}: {'not within these sizes' if n is None else f'at {n}'}"
        for name, n in held["breaks"].items()
    )
    names = Column("title", "method"), Column("order", "order"), Column("n", "backdoors")
    return (
        Section(
            "Many backdoors at once",
            Frame((*names, *columns(_GROWN)), tuple(held["lines"])),
            Plot("Many backdoors at once", growth(held["lines"]), name="capacity"),
            "Broken is: ASR free under half of the best at smaller sizes, or ACC under half of "
            f"the clean model's on the same pairs. {broken}.",
        ),
    )


def choice_section(summary: dict[str, Any]) -> tuple[Section, ...]:
    """The settings chosen on development pairs."""
    if not summary.get("choices"):
        return ()
    shown = (
        Column("method", "method"), Column("chosen", "chosen"),
        Column("score", "harmonic mean of ASR and ACC", "{:.3f}"),
        Column("score_default", "of the default", "{:.3f}"), Column("settings", "settings drawn"),
    )  # fmt: skip
    note = (
        "Highest harmonic mean of ASR free and ACC among the settings drawn, the default among "
        "them; the same rule and the same number of settings for every method. Best baseline: "
        f"{summary['baseline']}."
    )
    text = f"<pre>{html.escape(summary.get('choices_yaml', ''))}</pre>"
    frame = Frame(shown, tuple(summary["choices"]))
    return (Section("Chosen on development pairs", frame, note=note, markup=text),)
