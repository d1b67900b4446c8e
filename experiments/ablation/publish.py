"""What the documentation quotes of an ablation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.ablation.page import capacity_section, worth
from experiments.attack.page import front_sections
from experiments.attack.publish import size
from experiments.engine.specs import OURS
from experiments.report.publish import ROOT, place, public
from experiments.report.tables import COMPARED, METHOD, columns, signed, unswept
from redediting.evaluation.frame import Column, Frame

_GROWN = ("asr_free", "acc", "drift", "seconds")


def publish(folder: Path, summary: dict[str, Any], *, root: Path = ROOT) -> Path:
    """Publishes a run: its summary, its tables and plots.

    Args:
        folder: of a finished run.
        summary: of the run.
        root: of the checkout.

    Raises:
        OutputError: see `place`.
    """
    sections = (*front_sections(summary), *capacity_section(summary))
    plots = [section.plot for section in sections if section.plot]
    block = ablation_markdown(summary)
    return place(folder, summary["experiment"], public(summary), block, root=root, pictures=plots)


def ablation_markdown(summary: dict[str, Any]) -> str:
    """What each switch is worth, and how many backdoors fit."""
    ours = tuple(line for line in unswept(summary) if line["method"] == OURS)
    parts = [
        Frame((METHOD, *columns(COMPARED)), ours).to_markdown(),
        "Others, less that, rebinding by rebinding on the same captions and noise:",
        Frame((METHOD, *signed(COMPARED)), tuple(worth(summary))).to_markdown(),
        f"{size(summary)}; mean over rebindings (95 % interval over rebindings).",
    ]
    if held := summary.get("capacity"):
        names = Column("title", "method"), Column("order", "order"), Column("n", "backdoors")
        shown = Frame((*names, *columns(_GROWN)), tuple(held["lines"]))
        parts.append(shown.to_markdown())
    return "\n\n".join(parts)
