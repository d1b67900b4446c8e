"""The page of an ablation: switches, fronts of the sweeps, many backdoors, choices."""

from __future__ import annotations

import html
from dataclasses import replace
from pathlib import Path
from typing import Any

from experiments.attack.page import front_sections, run_page, size
from experiments.engine.specs import OURS
from experiments.report.plots import growth
from experiments.report.publish import ROOT, place, public
from experiments.report.section import Plot, Report, Section
from experiments.report.tables import COMPARED, METHOD, columns, signed, unswept
from redediting.evaluation.frame import Column, Frame
from redediting.evaluation.summary import differences

_P = Column("asr_free_p", "p", "{:.3f}", meaning="of ASR free, sign flips, adjusted by Holm")
_GROWN = ("asr_free", "acc", "collateral", "drift", "seconds")


def ablation_page(summary: dict[str, Any], folder: Path | None = None) -> Report:
    """An attack's page with sections of its own; pictures where nothing was swept."""
    note = (
        "Each method less the one by default, rebinding by rebinding on the same captions and "
        "noise; mean over rebindings. Exploratory: these contrasts were not named beforehand, and "
        "each interval (95 %, over rebindings) is its own; p (of ASR) is adjusted by Holm for all "
        "contrasts of the table."
    )
    lines = worth(summary, _P, Column("n_pairs", "pairs"))
    own = [Section("What each switch is worth", lines, note=note)] if lines.rows else []
    further = (*capacity_section(summary), *choice_section(summary))
    swept = any(len(titles) > 1 for titles in summary.get("families", {}).values())
    return run_page(
        summary, folder, title="ablation", own=own, further=further, pictures=not swept
    )  # fmt: skip


def publish(folder: Path, summary: dict[str, Any], *, root: Path = ROOT) -> Path:
    """Publishes what each switch is worth, and how many backdoors fit; see `place`."""
    ours = tuple(line for line in unswept(summary) if line["method"] == OURS)
    note = "Others, less that, rebinding by rebinding on the same captions and noise:"
    sections = [
        Section("", Frame((METHOD, *columns(COMPARED)), ours)),
        Section("", worth(summary), note=note),
        Section("", note=f"{size(summary)}."),
        *(replace(section, frame=None) for section in front_sections(summary)),
        *capacity_section(summary),
    ]
    return place(folder, summary["experiment"], public(summary), sections, root=root)


def worth(summary: dict[str, Any], *further: Column) -> Frame:
    """Switches and rivals less the method by default, rebinding by rebinding."""
    titles = [line["method"] for line in unswept(summary)]
    lines = differences(summary["rows"], titles, COMPARED, reference=OURS)
    return Frame((METHOD, *signed(COMPARED), *further), tuple(lines))


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
