"""What the documentation quotes of an attack."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.attack.page import front_sections
from experiments.report.publish import ROOT, place, public
from experiments.report.tables import COSTS_ONCE, METHOD, columns, unswept
from redediting.evaluation.claims import verdict_line
from redediting.evaluation.evaluate import HEADLINE
from redediting.evaluation.frame import Frame


def publish(folder: Path, summary: dict[str, Any], *, root: Path = ROOT) -> Path:
    """Publishes a run: its summary, its table, its claims.

    Args:
        folder: of a finished run.
        summary: of the run.
        root: of the checkout.

    Raises:
        OutputError: see `place`.
    """
    plots = [section.plot for section in front_sections(summary) if section.plot]
    block = attack_markdown(summary)
    return place(folder, summary["experiment"], public(summary), block, root=root, pictures=plots)


def attack_markdown(summary: dict[str, Any]) -> str:
    """The headline table of an attack and its claims."""
    frame = Frame((METHOD, *columns(HEADLINE), COSTS_ONCE[0]), tuple(unswept(summary)))
    claims = summary["claims"].items()
    verdicts = "; ".join(f"{name}: {verdict_line(claim)}" for name, claim in claims)
    return (
        f"{frame.to_markdown()}\n\n{size(summary)}; mean over rebindings (95 % interval over "
        f"rebindings). FID: N = {summary['methods'][0].get('fid_n')}, "
        f"{summary['fidelity']['extractor']}, reference: {summary['fidelity']['reference']}.\n\n"
        f"Claims: {verdicts}."
    )


def size(summary: dict[str, Any]) -> str:
    """What a table rests on."""
    return (
        f"{summary['n_pairs']} rebindings, {summary['n_seeds']} seed(s), {summary['images']} "
        "images judged"
    )
