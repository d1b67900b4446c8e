"""What the documentation quotes of an attack or an ablation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.ablation.page import capacity_section, worth
from experiments.attack.page import front_sections
from experiments.engine.specs import OURS
from experiments.report.publish import ROOT, place, public
from experiments.report.tables import COMPARED, COSTS_ONCE, METHOD, columns, signed, unswept
from redediting.evaluation.frame import Column, Frame

_KEYS = ("asr_free", "asr_fixed", "acc", "collateral", "drift", "seconds")
_GROWN = ("asr_free", "acc", "drift", "seconds")


def publish(folder: Path, summary: dict[str, Any], *, root: Path = ROOT) -> Path:
    """Publishes a run: its summary, its table, its claims.

    Args:
        folder: of a finished run.
        summary: of the run.
        root: of the checkout.

    Raises:
        OutputError: see `place`.
    """
    name = summary["experiment"]
    block = ablation_markdown(summary) if name == "ablation" else attack_markdown(summary)
    sections = (*front_sections(summary), *capacity_section(summary))
    plots = [section.plot for section in sections if section.plot]
    return place(folder, name, public(summary), block, root=root, pictures=plots)


def attack_markdown(summary: dict[str, Any]) -> str:
    """The headline table of an attack and its claims."""
    frame = Frame((METHOD, *columns(_KEYS), COSTS_ONCE[0]), tuple(unswept(summary)))
    claims = summary["claims"].items()
    verdicts = "; ".join(f"{name}: {claim['verdict']}" for name, claim in claims)
    return (
        f"{frame.to_markdown()}\n\n{_size(summary)}; mean over rebindings (95 % interval over "
        f"rebindings). FID: N = {summary['methods'][0].get('fid_n')}, "
        f"{summary['fidelity']['extractor']}, reference: {summary['fidelity']['reference']}.\n\n"
        f"Claims: {verdicts}."
    )


def ablation_markdown(summary: dict[str, Any]) -> str:
    """What each switch is worth, and how many backdoors fit."""
    ours = tuple(line for line in unswept(summary) if line["method"] == OURS)
    parts = [
        Frame((METHOD, *columns(COMPARED)), ours).to_markdown(),
        "Others, less that, rebinding by rebinding on the same captions and noise:",
        Frame((METHOD, *signed(COMPARED)), tuple(worth(summary))).to_markdown(),
        f"{_size(summary)}; mean over rebindings (95 % interval over rebindings).",
    ]
    if held := summary.get("capacity"):
        names = Column("title", "method"), Column("order", "order"), Column("n", "backdoors")
        shown = Frame((*names, *columns(_GROWN)), tuple(held["lines"]))
        parts.append(shown.to_markdown())
    return "\n\n".join(parts)


def _size(summary: dict[str, Any]) -> str:
    return (
        f"{summary['n_pairs']} rebindings, {summary['n_seeds']} seed(s), {summary['images']} "
        "images judged"
    )
